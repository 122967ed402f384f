"""Tower and prefill of a clip, against the published modelling code."""

from __future__ import annotations

import json
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.figures import Line, Row, Run, Series, Size, at_least, cpu_seconds, not_measured, seconds, times_faster
from bench.published import modeling
from bench.worker import alternate, timed
from engine.keye import KeyeConfig, KeyeForConditionalGeneration, load_model

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "assets" / "keye-nano"
PUBLISHED_8B = ROOT / "tests" / "golden" / "keye-vl-8b-preview" / "config.json"
FRAMES = 60
CLIPS = 16
WHOLE, FRAME = 1.5, 3.0  # the goals
H100 = (989e12, 3.35e12)  # datasheet, SXM: dense bfloat16 operations and bytes of memory a second


def clip_inputs(config: Any, frames: int, rows: int, columns: int, device: torch.device | str) -> dict[str, Any]:
    """A prompt of one clip of noise, `rows` × `columns` patches a frame, and 32 tokens of text around it."""
    random = torch.Generator().manual_seed(0)
    side = config.vision.patch_size
    tokens = frames * rows * columns // 4
    text = torch.randint(10, 100, (32,), generator=random)
    video = torch.full((tokens,), config.video_token_id)
    ids = torch.cat((text[:8], torch.tensor([config.vision_start_token_id]), video, text[8:]))
    inputs = {
        "input_ids": ids[None],
        "pixel_values_videos": torch.randn(frames * rows * columns, 3, side, side, generator=random),
        "video_grid_thw": torch.tensor([[frames, rows, columns]]),
        "second_per_grid_ts": torch.tensor([0.5]),
    }
    return {name: tensor.to(device) for name, tensor in inputs.items()}


@torch.inference_mode()
def first_pass(model: Any, inputs: dict[str, Any], span: str) -> None:
    """Ours, with attention over the whole clip or within each frame."""
    model.config.vision.attention_span = span
    model(**inputs, use_cache=True, logits_to_keep=1)
    _finished(inputs)


@torch.inference_mode()
def published_pass(model: Any, inputs: dict[str, Any], attention: str) -> None:
    modeling.first_pass(model, inputs, attention)
    _finished(inputs)


def _finished(inputs: dict[str, Any]) -> None:
    if inputs["input_ids"].is_cuda:
        torch.cuda.synchronize()


def measure(size: Size) -> list[Line]:
    return _on_cpu(size) + _on_gpu(size)


def _on_cpu(size: Size) -> list[Line]:
    model = load_model(NANO, dtype=torch.float32)
    frames = 4 if size.tiny else FRAMES
    inputs = clip_inputs(model.config, frames, 8, 8, "cpu")
    works = [
        partial(timed, partial(first_pass, model, inputs, "clip")),
        partial(timed, partial(first_pass, model, inputs, "frame")),
        partial(timed, partial(published_pass, model, inputs, "sdpa")),
        partial(timed, partial(published_pass, model, inputs, "eager")),
    ]
    whole, frame, sdpa, eager = alternate(works, size.runs)
    name = f"CPU, keye-nano, {frames} frames of 64 patches"
    return [
        _accuracy(size),
        _line(f"{name}: whole clip", whole, sdpa, WHOLE),
        _line(f"{name}: attention_span frame", frame, sdpa, FRAME),
        _line(f"{name}: whole clip, the published code attending eagerly", whole, eager, None),
    ]


def _accuracy(size: Size) -> Line:
    """What attention within each frame costs keye-nano, which was trained with whole clips: the change of its accuracy
    on held-out clips of the world, mean of the kinds of question, in percentage points."""
    clips, share = (1, (0, 100)) if size.tiny else (CLIPS, (0, 1))
    found = {span: _asked(span, clips, share) for span in ("clip", "frame")}
    whole, frame = (100 * found[span]["mean_of_kinds"]["accuracy"] for span in ("clip", "frame"))
    name = f"accuracy on {clips} held-out clips of the world, attention_span frame against clip"
    note = "percentage points, mean of all kinds of question; keye-nano was trained with whole clips"
    return Line(name, "%", Series((frame,)), Series((whole,)), frame - whole, "points", None, note)


def _asked(span: str, clips: int, share: tuple[int, int]) -> dict[str, Any]:
    from finetune.measuring.evaluate import Answerer, report, run

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "keye-nano"
        shutil.copytree(NANO, folder)
        fields = json.loads((folder / "config.json").read_text("utf-8"))
        fields["vision_config"]["attention_span"] = span
        (folder / "config.json").write_text(json.dumps(fields), "utf-8")
        return report(run(Answerer(folder), clips, blind=False, share=share))


def _line(name: str, made: list[Run], published: list[Run], goal: float | None, note: str = "") -> Line:
    cpu = cpu_seconds(published).median / cpu_seconds(made).median
    note = "; ".join(filter(None, (f"{cpu:.1f}× fewer CPU seconds", note)))
    return times_faster(name, seconds(made), seconds(published), goal, note)


# -- GPU --------------------------------------------------------------------------------------------------------


def _on_gpu(size: Size) -> list[Line]:
    name = f"GPU, 8B shapes, {FRAMES} frames of 15×26 tokens"
    if not torch.cuda.is_available():
        return [
            not_measured(f"{name}: whole clip", "no GPU here", at_least(WHOLE)),
            not_measured(f"{name}: attention_span frame", "no GPU here", at_least(FRAME)),
        ]
    config = KeyeConfig.from_json_file(str(PUBLISHED_8B))
    frames, rows, columns = (2, 8, 8) if size.tiny else (FRAMES, 30, 52)
    return gpu_lines(name, config, frames, rows, columns, "cuda", torch.bfloat16, size.runs)


def gpu_lines(
    name: str, config: Any, frames: int, rows: int, columns: int, device: str, dtype: torch.dtype, runs: int
) -> list[Line]:
    """The same three passes on a model of these shapes with made-up weights, beside what the datasheet allows."""
    model = dummy(config, device, dtype)
    inputs = clip_inputs(model.config, frames, rows, columns, device)
    works = [
        partial(timed, partial(first_pass, model, inputs, "clip")),
        partial(timed, partial(first_pass, model, inputs, "frame")),
        partial(timed, partial(published_pass, model, inputs, "sdpa")),
    ]
    whole, frame, published = alternate(works, runs)
    lines = []
    for span, made, goal in (("whole clip", whole, WHOLE), ("attention_span frame", frame, FRAME)):
        share = floor_seconds(config, frames, rows, columns, span == "whole clip") / seconds(made).median
        lines.append(_line(f"{name}: {span}", made, published, goal, f"{share:.0%} of what an H100's datasheet allows"))
    return lines


def dummy(config: Any, device: str, dtype: torch.dtype) -> Any:
    """A model of these shapes whose weights are small noise: what it says means nothing, what it costs is real."""
    with torch.device("meta"):
        model: Any = KeyeForConditionalGeneration(config)
    model = model.to(dtype).to_empty(device=device).eval()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.normal_(0.0, 0.02)
    return model


def floor_seconds(config: Any, frames: int, rows: int, columns: int, whole_clip: bool) -> float:
    """Seconds that the first pass takes where nothing but the operations of its matrix products counts."""
    vision = config.vision
    patches = frames * rows * columns
    tokens = patches // 4 + 33
    seen = patches if whole_clip else rows * columns
    width = vision.hidden_size
    layer = 2 * patches * (4 * width * width + 2 * width * vision.intermediate_size) + 4 * patches * seen * width
    joined = 4 * width
    projector = 2 * (patches // 4) * (joined * joined + joined * config.hidden_size)
    attention = config.head_dim * (2 * config.num_attention_heads + 2 * config.num_key_value_heads)
    block = 2 * tokens * config.hidden_size * (attention + 3 * config.intermediate_size)
    scores = 2 * tokens * tokens * config.num_attention_heads * config.head_dim  # causal: half of them
    operations = vision.num_hidden_layers * layer + projector + config.num_hidden_layers * (block + scores)
    return float(operations) / H100[0]


ROW = Row(
    name="vision",
    what="vision tower + prefill, 60 frames, on the CPU and on a GPU",
    against="the published modelling code run the same way (attention over the whole packed clip)",
    goal='at least 1.5× on the CPU, at least 3× with attention within each frame (`"attention_span": "frame"` in '
    "config.json's vision_config)",
    how="The published code asserts flash-attn and is restated (bench/published/modeling.py) on the same weights, with "
    "PyTorch's SDPA, as the library chooses where flash-attn is absent; features and logits are proven equal. All take "
    "turns in one process. A GPU gets the published 8B shapes in bfloat16 with made-up weights.",
    measure=measure,
)
