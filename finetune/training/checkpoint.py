"""Model folders: written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor

from engine.keye.loading import load_config
from finetune.errors import FinetuneError

COMPANIONS = (
    "config.json", "generation_config.json", "preprocessor_config.json", "video_preprocessor_config.json",
    "processor_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "chat_template.json", "chat_template.jinja",
)  # fmt: skip
"""What a model folder holds beside its weights."""


def stored_dtype(folder: Path) -> torch.dtype | None:
    """The type of a model folder's weights as its config.json names it; None where it names none."""
    kind = load_config(folder).dtype
    return kind if isinstance(kind, torch.dtype) else None


def write_model(
    folder: Path, weights: dict[str, Tensor], like: Path, dtype: torch.dtype | None = None, shard: str = "5GB"
) -> None:
    """Write a model folder of `weights` under their published names, as `dtype` (None: as they are), with the other
    files of the folder `like`.

    A folder that is there already is replaced in one step. Raises FinetuneError where there is no room; what was there
    stays."""
    scratch = folder.with_name(f".{folder.name}.part")
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        for name in COMPANIONS:
            if (like / name).is_file():
                shutil.copyfile(like / name, scratch / name)
        kept = {name: value.detach().to(device="cpu", dtype=dtype).contiguous() for name, value in weights.items()}
        kinds = {value.dtype for value in kept.values()}
        if len(kinds) == 1:
            config = json.loads((scratch / "config.json").read_text("utf-8"))
            config["dtype"] = str(kinds.pop()).removeprefix("torch.")
            config.pop("torch_dtype", None)
            (scratch / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
        save_torch_state_dict(kept, scratch, max_shard_size=shard, metadata={"format": "pt"})
        for path in scratch.glob("*.safetensors"):
            path.chmod(0o644)  # the library writes them for their owner alone
        replace_folder(scratch, folder)
    except OSError as error:
        shutil.rmtree(scratch, ignore_errors=True)
        raise FinetuneError(f"The model cannot be written to {folder} ({error}); make room and try again.") from error


def replace_folder(scratch: Path, folder: Path) -> None:
    """Put `scratch` in the place of `folder`; a reader that comes between the two renames finds none, never half."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(scratch, folder)
    shutil.rmtree(old, ignore_errors=True)
