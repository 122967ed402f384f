"""Which device, number type and attention a checkpoint runs with on this machine."""

from __future__ import annotations

import importlib.util
import json
import math
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from engine.errors import EngineError
from engine.keye.loading import weight_files

_HEADROOM = 0.85  # of the free memory: the rest is for activations, the KV cache and the page
_FOUR_BIT = 0.36  # bytes of NF4 weights, scales and the parts kept in 16 bits, against all in 16 bits


@dataclass(frozen=True)
class Placement:
    device: str
    dtype: torch.dtype
    four_bit: bool
    attention: str
    note: str  # what to expect, one sentence; empty where there is nothing to say


def parameter_count(folder: Path) -> int:
    """Parameters in a folder of safetensors, read from the headers alone. EngineError where they cannot be read."""
    count = 0
    for file in weight_files(folder):
        try:
            with file.open("rb") as stream:
                size = int.from_bytes(stream.read(8), "little")
                if size > 100_000_000:  # the format's own limit: a hostile header must not fill the memory
                    raise ValueError("header too large")
                header = json.loads(stream.read(size))
            count += sum(math.prod(t["shape"]) for name, t in header.items() if name != "__metadata__")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise EngineError(f"{file} is not a readable safetensors file; copy or download it again.") from error
    return count


def place(
    folder: Path, device: str | None = None, dtype: torch.dtype | None = None, four_bit: bool | None = None
) -> Placement:
    """Decide how to load `folder`; what the caller gives is taken as it is.

    With CUDA: bfloat16, 4 bits only where 16 do not fit. Without: float32 where it fits into the free memory,
    else bfloat16, else 4 bits; EngineError where not even those fit."""
    parameters = parameter_count(folder)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    on_cuda = device.startswith("cuda")
    if on_cuda and not torch.cuda.is_available():
        raise EngineError("No CUDA device was found; leave --device out to run on the processor.")
    free = _free(on_cuda)
    fits = {torch.float32: 4 * parameters <= free, torch.bfloat16: 2 * parameters <= free}
    if dtype is None:
        dtype = torch.float32 if not on_cuda and fits[torch.float32] else torch.bfloat16
    if four_bit is None:
        four_bit = not fits.get(dtype, True)
    if four_bit and 2 * parameters * _FOUR_BIT > free:
        raise EngineError(
            f"{folder.name} needs about {2 * parameters * _FOUR_BIT / 1e9:.0f} GB even in 4 bits and "
            f"{free / 1e9:.0f} GB are free; close other programs or take a machine with more memory."
        )
    return Placement(device, dtype, four_bit, _attention(on_cuda), _note(parameters, on_cuda, dtype, four_bit))


def fits_beside(folder: Path, device: str, dtype: str) -> bool:
    """Whether the model of `folder` has room in the memory that is free now, on `device` and as wide as `dtype` (as
    ModelInfo names it): what decides whether two models may be there at once."""
    width = 2 * _FOUR_BIT if dtype == "4 bit" else getattr(torch, dtype, torch.float32).itemsize
    return parameter_count(folder) * width <= _free(device.startswith("cuda"))


def _free(on_cuda: bool) -> float:
    """Bytes that a model may take."""
    return (torch.cuda.mem_get_info()[0] if on_cuda else psutil.virtual_memory().available) * _HEADROOM


def _attention(on_cuda: bool) -> str:
    return "flash_attention_2" if on_cuda and importlib.util.find_spec("flash_attn") else "sdpa"


def _note(parameters: int, on_cuda: bool, dtype: torch.dtype, four_bit: bool) -> str:
    if on_cuda or parameters < 500_000_000:
        return "Loaded in 4 bits, because 16 do not fit: answers are slightly worse." if four_bit else ""
    how = "4 bits, because more does not fit," if four_bit else str(dtype).removeprefix("torch.")
    return (
        f"{parameters / 1e9:.1f} billion parameters in {how} on a processor: expect minutes before the first word and "
        "about a word a second after it. A lower visual token budget shortens the wait."
    )
