"""The page as a whole: its frame, its looks, and serving it."""

from __future__ import annotations

import gradio as gr

from app.ask import AskTab
from app.bench import BenchTab
from app.comments import CommentTab
from app.config import AppConfig
from app.data import DataTab
from app.demos import load_demos
from app.promote import PromoteTab
from app.rounds import memory
from app.skills import SkillsTab
from app.studio import Studio
from app.tuning import TuneTab
from app.wiring import ASSETS, asset
from engine.runtime.choose import make_runtime


def build(studio: Studio) -> gr.Blocks:
    """The page over one studio."""
    with gr.Blocks(title="Keye Studio", fill_width=True) as page:
        ask = AskTab(page, studio, load_demos())
        comments, skills = memory("comment"), memory("skill")
        with ask.tabs:
            CommentTab(page, studio, ask, comments)
            SkillsTab(page, studio, ask, skills)
            DataTab(page, studio, ask)
            TuneTab(page, studio, ask)
            PromoteTab(page, studio, ask)
            BenchTab(page, studio, ask)
    return page


def launch(studio: Studio, config: AppConfig, block: bool = True) -> gr.Blocks:
    """Serve the page; with `block` until the process is interrupted."""
    page = build(studio)
    page.queue(default_concurrency_limit=8, max_size=256)
    page.launch(
        server_name=config.host,
        server_port=config.port,
        auth=("keye", config.password) if config.password else None,
        prevent_thread_lock=not block,
        quiet=True,
        share=False,
        ssr_mode=False,
        run_history=False,
        enable_monitoring=False,
        footer_links=[],
        max_file_size=int(config.max_upload_gb * 1e9),
        allowed_paths=[
            str(folder.resolve())
            for folder in (
                studio.library.folder,
                studio.bench_folder,
                studio.serving.folder,
                studio.dataset.folder,
            )
        ],
        favicon_path=ASSETS / "favicon.svg",
        theme=_theme(),
        css_paths=[ASSETS / "style.css", ASSETS / "report.css", ASSETS / "models.css"],
        head=f"<script>{asset('studio.js')}</script>",
    )
    return page


def serve(config: AppConfig) -> None:
    """Start the model in the background and the page at once; returns when the user ends it."""
    runtime = make_runtime(config.runtime, config.model, config.device)
    studio = Studio(config, runtime)
    studio.runtime.start()
    print(f"Open http://{config.host}:{config.port}", flush=True)
    try:
        launch(studio, config)
    finally:
        studio.close()


def _theme() -> gr.themes.Base:
    """Gradio's soft theme with the fonts of the system, so that nothing is fetched, and with quiet labels: what is
    filled with colour is what can be pressed."""
    theme = gr.themes.Soft(
        primary_hue="indigo",
        neutral_hue="slate",
        font=["ui-sans-serif", "system-ui", "Noto Sans", "Noto Sans CJK SC", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    return theme.set(
        background_fill_primary="*neutral_50",  # the soft theme's own, which `set` would put back to white
        body_text_color_subdued="*neutral_500",  # 4.5 to 1 on it
        block_title_background_fill="none",
        block_title_background_fill_dark="none",
        block_title_text_color="*body_text_color_subdued",
        block_title_text_color_dark="*body_text_color_subdued",
        block_title_text_size="*text_sm",
        block_title_padding="0",
        block_label_background_fill="*background_fill_secondary",
        block_label_background_fill_dark="*background_fill_secondary",
        block_label_text_color="*body_text_color_subdued",
        block_label_text_color_dark="*body_text_color_subdued",
    )
