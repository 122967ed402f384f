"""keye-nano's model card: what it is, how it was made, what it can do, measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from finetune.errors import FinetuneError

_STAGES = ("tower", "pictures", "videos", "anneal")

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
`{command}` on a machine of 2 CPU cores: {processor:.0f} minutes of processor time, {minutes:.0f} by the clock,
with other work on them.

Random weights; first the tower learns to say what lies under each patch ({tower} steps), then projector and decoder
learn from pictures ({pictures} steps), then from videos of 2 to 8 seconds ({videos} steps), at last, at a falling rate
and with the tower released, from videos again ({anneal} steps): in all {clips:,} clips and {questions:,} questions.
Beside the answers, the visual tokens in the middle of the decoder are asked by linear probes what lies under them, how
it has moved and what has happened to it; the probes are thrown away. Four pairs of colour and shape, eight
triples of colour, shape and motion, the ring and the zigzag are never shown.

## Accuracy
`{evaluation}`: scenes never seen in training, encoded as H.264 files, sampled and asked one question at a time as the
studio does, greedy. Right means every word right, of a box that it shares half of what both cover.
*Blind* is the same model before grey frames; *most frequent answer*
is the best that one fixed answer per kind could do.

{table}
"""


def write_card(folder: Path, run: Path, command: str) -> str:
    """Write README.md of the model `folder` from the log of its `run` and its evaluation.json and evaluation.md.

    `command` is what trained it. Raises FinetuneError where one of them is missing or damaged."""
    try:
        notes = [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
        log: list[dict[str, Any]] = [line for line in notes if "stage" in line]
        facts = json.loads((folder / "evaluation.json").read_text("utf-8"))
        table = (folder / "evaluation.md").read_text("utf-8")
        steps = {stage: max((n["step"] for n in log if n["stage"] == stage), default=0) for stage in _STAGES}
        last = log[-1]
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise FinetuneError(
            f"The card of {folder} needs the run's log and an evaluation ({error}); make them first."
        ) from error
    from engine.runtime.placement import parameter_count

    card = _CARD.format(
        parameters=parameter_count(folder) / 1e6,
        command=command,
        processor=last["processor_minutes"],
        minutes=last["minutes"],
        clips=last["clips"],
        questions=last["questions"],
        evaluation=facts["command"],
        table=table.strip(),
        **steps,
    )
    (folder / "README.md").write_text(card, "utf-8")
    return card
