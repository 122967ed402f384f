"""`python -m engine.keye.parity FOLDER`: how far this implementation is from recorded figures of the published one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers.utils import logging as library_logging

from engine.errors import EngineError
from engine.keye.loading import load_model
from engine.keye.modeling import KeyeForConditionalGeneration

TOLERANCE = 1e-4
"""Largest difference allowed in float32. Two exact implementations of the same sums differ by about 1.3e-5 here."""

_INPUTS = (
    "input_ids",
    "attention_mask",
    "pixel_values",
    "image_grid_thw",
    "pixel_values_videos",
    "video_grid_thw",
    "second_per_grid_ts",
    "num_frames",
)


@dataclass(frozen=True)
class Difference:
    """Largest absolute differences of one case; None where nothing was recorded. Positions and generated ids are exact
    or not: their figure is the number of places that differ."""

    case: str
    vision: float | None
    projector: float | None
    positions: float | None
    logits: float | None
    generation: float | None  # logits of the generated tokens
    tokens: float | None  # generated ids that differ

    @property
    def within(self) -> bool:
        exact = (self.positions, self.tokens)
        close = (self.vision, self.projector, self.logits, self.generation)
        return not any(exact) and all(value is None or value <= TOLERANCE for value in close)


def model_folders(root: Path) -> list[Path]:
    """`root` and the folders under it that hold config.json, model.safetensors and at least one case."""
    return [
        path.parent
        for path in sorted(root.rglob("config.json"))
        if (path.parent / "model.safetensors").is_file() and _cases(path.parent)
    ]


def compare(folder: Path, attn_implementation: str | None = None, device: str = "cpu") -> Iterator[Difference]:
    """Run every case of a model folder. A case is a safetensors file with inputs and what the published model made."""
    model: Any = load_model(folder, torch.float32, attn_implementation, device)
    for path in _cases(folder):
        case = {name: tensor.to(device) for name, tensor in load_file(path).items()}
        yield compare_case(model, case, f"{folder.name}/{path.stem}")


@torch.inference_mode()
def compare_case(model: KeyeForConditionalGeneration, case: dict[str, Tensor], name: str) -> Difference:
    inputs: dict[str, Any] = {key: case[key] for key in _INPUTS if key in case}
    vision, projector = _seeing(model, case)
    output = model(**inputs)
    positions, deltas = model.get_rope_index(
        **{k: v for k, v in inputs.items() if not k.startswith("pixel") and k != "num_frames"}
    )
    wrong = (positions != case["position_ids"]).sum() + (deltas != case["rope_deltas"]).sum()
    real = case["attention_mask"].bool()
    generation = tokens = None
    if "gen_ids" in case:
        ids, logits = generate(model, inputs, case["gen_ids"].shape[1])
        tokens = float((ids != case["gen_ids"]).sum())
        generation = _far(logits, case["gen_logits"])
    return Difference(
        name, vision, projector, float(wrong), _far(output.logits[real], case["logits"][real]), generation, tokens
    )


def generate(model: Any, inputs: dict[str, Any], count: int) -> tuple[Tensor, Tensor]:
    """The `count` likeliest tokens one after the other [batch, count], and their logits [batch, count, vocabulary].

    The figures were recorded with nothing suppressed and no end, so neither is applied here."""
    made: Any = model.generate(
        **inputs,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        max_new_tokens=count,
        min_new_tokens=None,
        eos_token_id=-1,
        pad_token_id=0,
        suppress_tokens=None,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return made.sequences[:, inputs["input_ids"].shape[1] :], torch.stack(made.logits, dim=1)


def _seeing(model: KeyeForConditionalGeneration, case: dict[str, Tensor]) -> tuple[float | None, float | None]:
    """Vision and projector differences. Pictures and clips go through the tower in one pass, as in `forward`."""
    kinds = [kind for kind in ("image", "video") if f"{kind}_vision_out" in case]
    if not kinds:
        return None, None
    pixels = torch.cat([case["pixel_values" if kind == "image" else "pixel_values_videos"] for kind in kinds])
    grid = torch.cat([case[f"{kind}_grid_thw"] for kind in kinds])
    features = model.visual(pixels, grid, per_frame=model.per_frame)
    tokens = torch.cat(model.encode_visual(pixels, grid))
    return (
        _far(features, torch.cat([case[f"{kind}_vision_out"] for kind in kinds])),
        _far(tokens, torch.cat([case[f"{kind}_projector_out"] for kind in kinds])),
    )


def _far(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b.float()).abs().max())


def _cases(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.safetensors")) if not path.name.startswith("model")]


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m engine.keye.parity FOLDER", file=sys.stderr)
        return 2
    library_logging.set_verbosity_error()
    library_logging.disable_progress_bar()
    try:
        folders = model_folders(Path(arguments[0]))
        if not folders:
            raise EngineError(f"{arguments[0]} holds no model folder with recorded cases; give tests/golden.")
        columns = [field.name for field in fields(Difference)][1:]
        print(f"{'case':26}" + "".join(f"{column:>12}" for column in columns))
        good = True
        for folder in folders:
            for row in compare(folder):
                good &= row.within
                values = (getattr(row, column) for column in columns)
                print(
                    f"{row.case:26}" + "".join(f"{'–' if v is None else format(v, '.2g'):>12}" for v in values),
                    "" if row.within else "  OVER",
                )
        print(f"tolerance {TOLERANCE:g}; positions and tokens must not differ: {'all within' if good else 'OVER'}")
        return 0 if good else 1
    except EngineError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
