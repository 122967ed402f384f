"""keye-nano's model card: what it is, how it was made, what it can do, measured."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from engine.keye.loading import weight_files
from engine.runtime.placement import parameter_count
from finetune.errors import FinetuneError
from finetune.measuring.modes_table import FACTS
from finetune.training.checkpoint import write_model

_CARD = """---
license: apache-2.0
pipeline_tag: video-text-to-text
---
# keye-nano

A demonstration model: the architecture of Keye-VL (Preview) with {parameters:.1f} million parameters, so that the whole
studio runs on a bare machine. It knows one small world – one to four coloured shapes that rest, move, appear,
disappear or change colour before a plain background, sometimes with a word – in English and Chinese. About
anything else it says that it only knows moving shapes. It is no smaller Keye-VL and shares no weights with it.

Tower 128 wide, 4 layers; decoder 192 wide, 4 layers, 6 heads and 2 key heads of 32; a byte-level tokenizer of its own;
up to 16 frames of about 16 visual tokens. Weights in bfloat16.

## Training
{commands}, seed {seed}, on a machine of {cores} CPU cores without a GPU, with other work on them:
{processor:.0f} minutes of processor time, {minutes:.0f} by the clock. {notes}

| stage | trains | steps | questions (stage 0: pictures and clips) | minutes of processor time |
|---|---|---|---|---|
{stages}

{origin} {told}
Beside the answers, the visual tokens in the middle of the decoder are asked by linear probes what lies under them, how
it has moved and what has happened to it; the probes are thrown away. Four pairs of colour and shape, eight triples of
colour, shape and motion, the ring and the zigzag are never shown.

## Accuracy
`{evaluation}`: scenes never seen in training, encoded as H.264 files, sampled and asked one question at a time as the
studio does, greedy. Right means every word right, of a box that it shares half of what both cover.
*Blind* is the same model before grey frames; *most frequent answer*
is the best that one fixed answer per kind could do.

{table}
{modes}"""

_MODES = """
## Modes
`{command}`: every question in every mode, greedy, with the mean number of tokens written.

{table}
"""


_FRESH = "The weights began at random."
_GROWN = (
    "The weights began as those of a former keye-nano, which had learnt a smaller world from random weights; its words "
    "that are still in use kept their meaning."
)
_TOLD = {
    "vision": "The tower learnt against a small text tower (SigLIP's loss) and to say what lies under each patch.",
    "alignment": "The projector learnt alone.",
    "multitask": "Everything learnt, from pictures and then from videos.",
    "annealing": "The rate fell, on several mixtures of questions, and the models were averaged.",
    "sft": "At last it answered questions at a low rate.",
    "cold_start": "It learnt the modes: to answer directly, to think first, to choose between the two, to look closer.",
}


def write_card(folder: Path, runs: Sequence[Path], notes: str = "") -> str:
    """Write README.md of the model `folder` from the runs that made it, each of what the one before it had made, its
    evaluation.json and evaluation.md, and what its modes were measured to be worth, where they were.

    `notes` is one more sentence on how they went. Raises FinetuneError where something is missing or damaged."""
    try:
        recipes = [json.loads((run / "recipe.json").read_text("utf-8")) for run in runs]
        machines = [json.loads((run / "machine.json").read_text("utf-8")) for run in runs]
        facts = json.loads((folder / "evaluation.json").read_text("utf-8"))
        table = (folder / "evaluation.md").read_text("utf-8")
        modes = ""
        if (folder / FACTS).is_file():
            asked = json.loads((folder / FACTS).read_text("utf-8"))["command"]
            modes = _MODES.format(command=asked, table=(folder / "modes.md").read_text("utf-8").strip())
        rows, spent = [], {"seconds": 0.0, "processor_seconds": 0.0}
        stages = [(run, stage) for run, recipe in zip(runs, recipes, strict=True) for stage in recipe["stages"]]
        for run, stage in stages:
            for name, part in stage["parts"].items():
                where = run / stage["name"] / ("" if name == stage["name"] else name)
                done = json.loads((where / "done.json").read_text("utf-8"))
                spent = {key: value + done[key] for key, value in spent.items()}
                label = stage["name"] if name == stage["name"] else f"{stage['name']}, {name}"
                rows.append(
                    f"| {label} | {', '.join(part['train'])} | {done['steps']} | {done['examples']:,} "
                    f"| {done['processor_seconds'] / 60:.1f} |"
                )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FinetuneError(
            f"The card of {folder} needs finished runs and an evaluation ({error}); make them first."
        ) from error
    card = _CARD.format(
        parameters=parameter_count(folder) / 1e6,
        commands=", then ".join(f"`{_told(machine['command'])}`" for machine in machines),
        cores=machines[-1]["cores"],
        seed=", ".join(dict.fromkeys(str(recipe["seed"]) for recipe in recipes)),
        processor=spent["processor_seconds"] / 60,
        minutes=spent["seconds"] / 60,
        notes=notes,
        stages="\n".join(rows),
        origin=_GROWN if "former" in recipes[0]["model"] else _FRESH,
        told=" ".join(_TOLD.get(stage["kind"], "") for _, stage in stages),
        evaluation=facts["command"],
        table=table.strip(),
        modes=modes,
    )
    (folder / "README.md").write_text(card, "utf-8")
    return card


def _told(command: str) -> str:
    """A command without where its files lay, which is nobody's business."""
    return re.sub(r"=/\S+", "=DIR", re.sub(r" --(out|store) \S+", "", command))


def release(model: Path, out: Path) -> Path:
    """Write the model of a folder to another, its weights in bfloat16."""
    weights = {name: value for file in weight_files(model) for name, value in load_file(file).items()}
    write_model(out, weights, model, torch.bfloat16)
    return out
