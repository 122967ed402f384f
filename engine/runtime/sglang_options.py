"""Which options SGLang's server starts with for a checkpoint on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch

from engine.errors import EngineError
from engine.keye.loading import check_folder
from engine.keye.modeling import KeyeForConditionalGeneration, KeyeVL1_5ForConditionalGeneration
from engine.runtime.base import ModelInfo
from engine.runtime.checkpoint import describe_checkpoint
from engine.runtime.placement import place
from engine.runtime.source import name_of

ADAPTER_RANK = 64
"""Largest rank of an adapter; the server sets memory for it aside when it starts."""
_CPU_USERS = 8  # answered at once without a GPU
_CPU_CACHE = 0.15  # of the free memory, for the keys and values of conversations


@dataclass(frozen=True)
class Plan:
    """How to start a server: what will answer, how many at once, and the options."""

    info: ModelInfo
    architecture: str  # the class of engine.sglang_plugin.models
    users: int  # answered at once; others wait in line
    options: tuple[str, ...]


def plan_server(folder: Path, device: str | None, host: str, port: int, extra: Sequence[str]) -> Plan:
    """The options for `folder`; an option in `extra` (SGLang's own names) takes the place of ours.

    Raises EngineError where the folder is no checkpoint, its weights do not belong to its config.json, or a machine
    without a GPU cannot hold it."""
    config = check_folder(folder)
    per_frame = config.model_type == "KeyeVL1_5"
    model_class = KeyeVL1_5ForConditionalGeneration if per_frame else KeyeForConditionalGeneration
    own = {
        "--model-path": str(folder.resolve()),
        "--served-model-name": name_of(folder).replace(":", "-"),
        "--host": host,
        "--port": str(port),
        "--max-lora-rank": str(ADAPTER_RANK),
        "--max-loras-per-batch": "2",
    }
    flags = ["--enable-cache-report", "--enable-lora"]
    lists = ["--lora-target-modules", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    if device != "cpu" and torch.cuda.is_available():
        info = describe_checkpoint(folder, "cuda", _option(extra, "--dtype") or "bfloat16")
        users = 32
    else:
        where = place(folder, "cpu")
        if where.four_bit:
            raise EngineError(
                f"{folder.name} does not fit into the memory in 16 bits, and SGLang has no 4 bits without a GPU; "
                "use the local runtime, or a machine with a GPU."
            )
        dtype = str(where.dtype).removeprefix("torch.")
        info = describe_checkpoint(folder, "cpu", _option(extra, "--dtype") or dtype, where.note)
        per_token = 2 * config.num_hidden_layers * (config.num_key_value_heads or 1) * (config.head_dim or 1) * 4
        tokens = int(psutil.virtual_memory().available * _CPU_CACHE / per_token)
        users = _CPU_USERS
        own |= {
            "--device": "cpu",
            "--dtype": dtype,
            "--max-total-tokens": str(max(4096, min(tokens, users * info.context))),
            "--lora-backend": "torch_native",
            "--watchdog-timeout": "3600",  # a large model on a processor thinks for minutes before the first word
        }
        flags += ["--sleep-on-idle", "--skip-server-warmup"]
    own["--max-running-requests"] = str(users)
    users = int(_option(extra, "--max-running-requests") or users)
    context = _option(extra, "--context-length")
    info = replace(info, runtime="sglang", context=int(context) if context and context.isdigit() else info.context)
    given = {option.partition("=")[0] for option in extra}
    options = [text for name, value in own.items() if name not in given for text in (name, value)]
    options += [flag for flag in flags if flag not in given]
    if lists[0] not in given:
        options += lists
    return Plan(info, model_class.__name__, users, (*options, *extra))


def _option(extra: Sequence[str], name: str) -> str | None:
    for i, option in enumerate(extra):
        if option == name and i + 1 < len(extra):
            return extra[i + 1]
        if option.startswith(name + "="):
            return option.partition("=")[2]
    return None
