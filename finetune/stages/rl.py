"""Mix-mode reinforcement (report, section 4.2.2): questions with known answers are answered several times in several
modes; what is better than its group becomes likelier (GRPO), without leaving the model that the part began with.

Group size, rates, clip, divergence and the mix of modes are not published; ours are the recipe's. Answers come from
the weights as they stand, and every draw from the seed and the question alone, so that a run that was killed goes on
with the answers that it would have had. A server (`rollouts = "sglang"`) draws many at once, with
the base and the adapter that is trained; its draws follow the seed as far as the server's own arithmetic does."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from engine.keye import KeyeForConditionalGeneration
from engine.reasoning.modes import ModeName
from engine.runtime.base import Decoding
from engine.runtime.choose import make_runtime
from engine.runtime.sglang import SGLangRuntime
from finetune.answers.queries import FileQueries, Queries, Query, WorldQueries
from finetune.answers.rollouts import ModelRoller, Rolled, Roller, ServedRoller
from finetune.answers.scorer import Scorer, scorer
from finetune.data.collate import Batch, collate_shared, learnt_log_probs
from finetune.data.conversations import Conversations, Example, Prompt
from finetune.data.problems import BadRow, Problems
from finetune.errors import FinetuneError
from finetune.recipe import Part, Stage
from finetune.stages import sft
from finetune.stages.reading import WORLD, Start, diet_of
from finetune.stages.rounds import forget_rounds, seed_of
from finetune.training.losses import group_advantages, grpo_loss
from finetune.training.trainer import Objective, Result, Scores, Work

__all__ = ["check", "load", "work"]

load = sft.load


def check(stage: Stage) -> None:
    """FinetuneError where a part cannot be run as it is written."""
    sft.check(stage)
    for name, part in stage.parts.items():
        if part.rollouts == "sglang" and not part.lora:
            where = stage.name if name == stage.name else f"{stage.name}.{name}"
            raise FinetuneError(f"{where} draws from a server, which takes adapters only; give {where}.lora = 16.")


def queries_of(start: Start, part: Part, conversations: Conversations) -> tuple[Queries, Problems]:
    """The questions of the part's data, and the rows that were left out."""
    if part.data == WORLD:
        return WorldQueries(start.seed, diet_of(part)), Problems()
    rows, problems = sft.checked_rows(start, part, conversations, "question")
    return FileQueries(rows, conversations, start.seed), problems


@dataclass(frozen=True)
class Group:
    """The answers to one question in one mode, and what they are worth."""

    number: int  # of the question
    mode: ModeName
    answers: list[Rolled]
    rewards: list[float]
    parts: list[dict[str, float]]

    @property
    def spread(self) -> bool:
        return max(self.rewards) - min(self.rewards) > 1e-6


@dataclass
class RollBatch:
    """The groups of some questions, packed; those whose answers are all worth the same are not in it."""

    batch: Batch
    advantages: Tensor  # float32 [answers]
    old: Tensor | None  # float32 [tokens]: under the model that wrote them; None: under the model as it is
    reference: Tensor | None  # float32 [tokens]: under the model that the part began with
    scores: Scores
    answers: int  # drawn, with those of the groups that teach nothing


class Reinforcing(Objective):
    """The model whose better answers become likelier."""

    def __init__(self, model: KeyeForConditionalGeneration, ratio: float, kl: float) -> None:
        super().__init__()
        self.model, self.ratio, self.kl = model, ratio, kl

    def forward(self, rolled: RollBatch) -> Result:
        log_probs, which = learnt_log_probs(self.model, rolled.batch)
        old = log_probs.detach() if rolled.old is None else rolled.old.to(log_probs.device)
        advantages = rolled.advantages.to(log_probs.device)
        loss, _ = grpo_loss(log_probs, old, rolled.reference, advantages, which, self.ratio, self.kl)
        return Result(loss.sum(), loss.new_zeros(()), rolled.scores)


class Rolls:
    """Batches of answers that the model has just given.

    With `part.reuse` several steps learn from the same ones; they lie in the part's folder (with their probabilities
    when they were written), because after the first of these steps nobody could draw them again."""

    def __init__(
        self, start: Start, part: Part, queries: Queries, conversations: Conversations, scorer: Scorer,
        roller: Roller, reference: Callable[[Batch], Tensor] | None,
    ) -> None:  # fmt: skip
        self.start, self.part, self.queries, self.conversations = start, part, queries, conversations
        self.scorer, self.roller, self.reference = scorer, roller, reference
        self.steps = queries.steps // (part.questions * part.accumulate * start.processes)
        self._prompts: dict[tuple[int, ModeName], Prompt | None] = {}
        self._held: dict[int, tuple[list[Group], Tensor | None]] = {}
        self._file = start.out / f"answers-{start.rank}.jsonl" if start.out else None

    def make(self, number: int) -> RollBatch:
        step, at = divmod(number, self.part.accumulate)
        window, later = divmod(step, self.part.reuse)
        item = window * self.part.accumulate + at
        if later == 0:
            if at == 0:
                self.roller.renew()
            groups = self._draw(item)
            old = self._old(groups) if self.part.reuse > 1 else None
            self._held = {i: held for i, held in self._held.items() if i // self.part.accumulate == window}
            self._held[item] = groups, old
            self._write(item, groups, old)
        elif item not in self._held:
            self._held[item] = self._read(item)
        groups, old = self._held[item]
        batch, advantages = self._batch(groups)
        return RollBatch(
            batch,
            advantages,
            old,
            self.reference(batch) if self.reference and len(advantages) else None,
            _scores(groups),
            sum(len(group.answers) for group in groups),
        )

    def learnt(self, batch: RollBatch) -> int:
        return len(batch.advantages)

    def size(self, batch: RollBatch) -> tuple[int, int]:
        return batch.answers, batch.batch.input_ids.shape[1]

    def _draw(self, item: int) -> list[Group]:
        groups = []
        for i in range(self.part.questions):
            number = (item * self.part.questions + i) * self.start.processes + self.start.rank
            query = self.queries.make(number)
            for mode in self.part.modes if query is not None else ():
                prompt = self._prompt(number, mode, query)
                if query is None or prompt is None:
                    continue
                seed = seed_of(self.start.seed, number, mode)
                decoding = Decoding(self.part.answer_tokens, False, self.part.temperature, 1.0, 0, seed)
                answers = self.roller.roll(prompt, self.part.samples, decoding)
                scored = [self.scorer(query, mode, answer) for answer in answers]
                groups.append(Group(number, mode, answers, [s.total for s in scored], [s.parts for s in scored]))
        return groups

    def _prompt(self, number: int, mode: ModeName, query: Query | None = None) -> Prompt | None:
        """A question in a mode; the last ones are kept, since they are answered and then learnt from."""
        if (number, mode) not in self._prompts:
            query = query or self.queries.make(number)
            try:
                made = None if query is None else self.conversations.prompt(query.asked(mode))
            except BadRow:
                made = None
            while len(self._prompts) >= self.part.questions * len(self.part.modes):
                self._prompts.pop(next(iter(self._prompts)))
            self._prompts[number, mode] = made
        return self._prompts[number, mode]

    def _batch(self, groups: list[Group]) -> tuple[Batch, Tensor]:
        examples: list[list[Example]] = []
        advantages = []
        for group in groups:
            prompt = self._prompt(group.number, group.mode) if group.spread else None
            if prompt is not None:
                examples.append([prompt.answered(answer.ids) for answer in group.answers])
                advantages.append(group_advantages(torch.tensor([group.rewards]))[0])
        return collate_shared(examples), torch.cat(advantages) if advantages else torch.zeros(0)

    @torch.no_grad()
    def _old(self, groups: list[Group]) -> Tensor:
        return _of_batch(self.start.model, self._batch(groups)[0])

    # -- kept -------------------------------------------------------------------------------------------------------

    def _write(self, item: int, groups: list[Group], old: Tensor | None) -> None:
        if self._file is None:
            return
        line = {"item": item, "groups": [asdict(g) for g in groups], "old": None if old is None else old.tolist()}
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise FinetuneError(
                f"{self._file} cannot be written ({error.strerror}); make room and give the same command again."
            ) from error

    def _read(self, item: int) -> tuple[list[Group], Tensor | None]:
        """What was drawn before the run was stopped."""
        found: dict[str, Any] | None = None
        if self._file is not None and self._file.is_file():
            for text in self._file.read_text("utf-8", errors="replace").splitlines():
                try:
                    line = json.loads(text)
                except ValueError:
                    continue  # the kill came while it was written; it was drawn again
                if isinstance(line, dict) and line.get("item") == item:
                    found = line
        try:
            assert found is not None
            groups = [
                Group(g["number"], g["mode"], [_rolled(a) for a in g["answers"]], g["rewards"], g["parts"])
                for g in found["groups"]
            ]
            return groups, None if found["old"] is None else torch.tensor(found["old"])
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise FinetuneError(
                f"The answers that the run was learning from are not in {self._file}; delete {self.start.out} to begin "
                "the part again."
            ) from error


def _rolled(data: dict[str, Any]) -> Rolled:
    return Rolled(tuple(data["ids"]), data["text"], data["finished"])


def _scores(groups: list[Group]) -> Scores:
    """For the log: shares of answers that are right and well-formed by mode, the mean reward (in thousandths), and the
    groups that teach something."""
    out: Scores = {"groups apart": (sum(g.spread for g in groups), len(groups))}
    for name in ("correct", "format", "repetition", "consistent"):
        for mode in dict.fromkeys(g.mode for g in groups):
            values = [p[name] for g in groups if g.mode == mode for p in g.parts if name in p]
            if values:
                out[f"{name} {mode}"] = (round(1000 * sum(values)), 1000 * len(values))
    rewards = [r for g in groups for r in g.rewards]
    out["reward"] = (round(1000 * sum(rewards)), 1000 * len(rewards))
    return out


def _of_batch(model: KeyeForConditionalGeneration, batch: Batch) -> Tensor:
    """The log-probabilities of the learnt tokens of a batch, without gradients, as training computes them."""
    device = model.lm_head.weight.device
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        return learnt_log_probs(model, batch)[0]


def reference_of(start: Start, part: Part, adapted: PeftModel | None) -> Callable[[Batch], Tensor] | None:
    """What the model that the part began with says of a batch: the model without its adapter, or a copy. None where
    the divergence from it does not count."""
    if not part.kl:
        return None
    if adapted is not None:

        def without(batch: Batch) -> Tensor:
            with adapted.disable_adapter():
                return _of_batch(start.model, batch)

        return without
    frozen = copy.deepcopy(start.model).requires_grad_(False).eval()
    return lambda batch: _of_batch(frozen, batch)


def work(start: Start, part: Part) -> Work:
    """GRPO on the part's questions, by the modules that it names or by LoRA beside the decoder."""
    conversations = sft.conversations_of(start, part)
    queries, problems = queries_of(start, part, conversations)
    moved, save_weights, adapted = sft.moved_by(start, part)
    judged = scorer(part.answer_tokens, part.judge)
    forget_rounds(start, "answers-{rank}.jsonl")
    roller = _roller(start, part, conversations, adapted)
    source = Rolls(start, part, queries, conversations, judged, roller, reference_of(start, part, adapted))

    def save(folder: Path) -> None:
        save_weights(folder)
        lost = queries.lost if isinstance(queries, FileQueries) else problems
        sft.write_facts(folder, part, queries.steps, problems, lost, judge_failed=judged.failed)

    close = roller.close if isinstance(roller, ServedRoller) else None
    return Work(Reinforcing(start.model, part.ratio, part.kl), source, moved, save, close)


def _roller(start: Start, part: Part, conversations: Conversations, adapted: PeftModel | None) -> Roller:
    """What draws the answers; every process has a server of its own. EngineError where none can be started."""
    if part.rollouts == "model":
        return ModelRoller(start.model, conversations)
    assert adapted is not None and start.out is not None  # checked
    server = make_runtime("sglang", str(start.folder))
    assert isinstance(server, SGLangRuntime)
    server.start()
    server.info()  # waits until it is ready
    return ServedRoller(server, adapted, conversations, start.out / f"rolling-{start.rank}")
