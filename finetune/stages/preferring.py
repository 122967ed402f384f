"""Learning from two answers to one question, of which one is better: the loss of MPO on pairs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from engine.keye import KeyeForConditionalGeneration
from finetune.data.collate import Batch, collate_shared, learnt_log_probs
from finetune.data.conversations import Conversations, Example
from finetune.data.jsonl import Rows
from finetune.data.problems import BadRow
from finetune.errors import FinetuneError
from finetune.stages.reading import Start
from finetune.training.losses import mpo_loss
from finetune.training.trainer import Objective, Result

SAVE_SECONDS = 60.0


@dataclass
class PairBatch:
    """Pairs, packed: the chosen and the rejected answer of each in turn, what both see once."""

    batch: Batch
    reference: Tensor  # float32 [pairs, 2]: log-probabilities of both answers under the model that is not to be left
    first: bool = False  # of a round: rewards so far were against another reference

    @property
    def learnt(self) -> int:
        return len(self.reference)


def pair_batch(pairs: Sequence[tuple[Example, Example]], reference: Tensor, first: bool = False) -> PairBatch:
    return PairBatch(collate_shared(pairs), reference.reshape(-1, 2), first)


def answer_log_probs(model: KeyeForConditionalGeneration, batch: Batch, answers: int) -> tuple[Tensor, Tensor]:
    """float32 [answers]: the log-probability of each whole answer of a packed batch, with gradients, and its tokens."""
    log_probs, which = learnt_log_probs(model, batch)
    nothing = log_probs.new_zeros(answers)
    return nothing.index_add(0, which, log_probs), nothing.index_add(0, which, torch.ones_like(log_probs))


class Preferring(Objective):
    """The model that is to prefer the chosen answers."""

    kept = ("total", "counted")

    def __init__(self, model: KeyeForConditionalGeneration, beta: float) -> None:
        super().__init__()
        self.model, self.beta = model, beta
        # The sum and the number of the rewards so far, of all processes: their mean is the shift of the quality loss.
        self.total: Tensor
        self.counted: Tensor
        self.register_buffer("total", torch.zeros((), dtype=torch.float64))
        self.register_buffer("counted", torch.zeros((), dtype=torch.float64))

    def forward(self, pairs: PairBatch) -> Result:
        count = len(pairs.reference)
        summed, tokens = answer_log_probs(self.model, pairs.batch, 2 * count)
        summed, tokens = summed.view(-1, 2), tokens.view(-1, 2)
        moved = summed - pairs.reference.to(summed.device)
        shift = self._shift(self.beta * moved.detach(), pairs.first)
        chosen, rejected = moved.unbind(1)
        loss, _ = mpo_loss(chosen, rejected, summed[:, 0] / tokens[:, 0].clamp(min=1), self.beta, shift)
        return Result(loss.sum(), loss.new_zeros(()), {"preferred": (int((chosen > rejected).sum()), count)})

    def _shift(self, rewards: Tensor, first: bool) -> Tensor:
        """The mean of all rewards so far, these with them."""
        told = torch.stack((rewards.double().sum(), rewards.new_tensor(rewards.numel(), dtype=torch.float64)))
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(told)
        if first:
            self.total.zero_()
            self.counted.zero_()
        self.total += told[0]
        self.counted += told[1]
        return (self.total / self.counted.clamp(min=1)).to(rewards.dtype)


# -- the reference ---------------------------------------------------------------------------------------------------


def reference_log_probs(start: Start, rows: Rows, conversations: Conversations, most: int) -> Tensor:
    """float32 [rows, 2]: the log-probabilities of chosen and rejected under the model that the part begins with, before
    anything of it is trained or adapted. NaN for a row that cannot be read any more.

    Computed once, in batches of at most `most` tokens; each process takes its share, and what is done stays in the
    part's folder, so that a run that was stopped or killed goes on."""
    of = json.dumps([[str(f.resolve()), f.stat().st_mtime_ns, f.stat().st_size] for f in rows.files])
    of += f" {len(rows)} {sum(rows.lengths)} {start.folder.resolve()}"
    mine = list(range(start.rank, len(rows), start.processes))
    file = _share(start, start.rank)
    found = _stored(file, of)
    if found is None or len(found) != len(mine):
        found = torch.full((len(mine), 2), torch.nan)
        done = 0
    else:
        done = int((~found.isinf()).all(1).sum())
    found[done:] = torch.inf  # not yet
    saved = time.monotonic()
    with torch.no_grad():
        while done < len(mine):
            at, tokens = done, 0
            while at < len(mine) and (at == done or tokens + rows.lengths[mine[at]] <= most):
                tokens += rows.lengths[mine[at]]
                at += 1
            found[done:at] = _of_rows(start.model, rows, conversations, mine[done:at])
            done = at
            if time.monotonic() - saved > SAVE_SECONDS:
                _store(file, found, of)
                saved = time.monotonic()
    _store(file, found, of)
    if start.processes > 1:
        dist.barrier()
    whole = torch.full((len(rows), 2), torch.nan)
    for rank in range(start.processes):
        share = found if rank == start.rank else _stored(_share(start, rank), of)
        if share is None:
            raise FinetuneError("The processes share no folder for what they compute; give an --out that all can see.")
        whole[rank :: start.processes] = share
    return whole


def _of_rows(
    model: KeyeForConditionalGeneration, rows: Rows, conversations: Conversations, chosen: list[int]
) -> Tensor:
    out = torch.full((len(chosen), 2), torch.nan)
    pairs = []
    for i, row in enumerate(chosen):
        try:
            pairs.append((i, conversations.pair(rows[row])))
        except BadRow:
            continue  # told when it would be learnt
    if pairs:
        batch = collate_shared([pair for _, pair in pairs])
        summed, _ = answer_log_probs(model, batch, 2 * len(pairs))
        out[[i for i, _ in pairs]] = summed.view(-1, 2).float().cpu()
    return out


def _share(start: Start, rank: int) -> Path | None:
    return start.out / f"reference-{rank}-of-{start.processes}.safetensors" if start.out else None


def _stored(file: Path | None, of: str) -> Tensor | None:
    if file is None or not file.is_file():
        return None
    try:
        with safe_open(file, "pt") as stored:
            return stored.get_tensor("log_probs") if stored.metadata().get("of") == of else None
    except (OSError, SafetensorError, AttributeError):
        return None


def _store(file: Path | None, found: Tensor, of: str) -> None:
    if file is None:
        return
    scratch = file.with_suffix(".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({"log_probs": found}, scratch, {"of": of})
        os.replace(scratch, file)
    except (OSError, SafetensorError) as error:
        scratch.unlink(missing_ok=True)
        raise FinetuneError(
            f"{file} cannot be written ({error}); make room and give the same command again."
        ) from error


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all. Raises FinetuneError where there is no room."""
    scratch = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch.open("w", encoding="utf-8") as file:
            json.dump(content, file, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise FinetuneError(
            f"{path} cannot be written ({error}); make room and give the same command again."
        ) from error
