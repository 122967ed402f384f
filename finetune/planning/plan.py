"""What a recipe will take, before anything is started: tokens, operations, memory and hours.

    python -m finetune run recipes/paper.toml --plan --gpus 512 --gpu h100 --mfu 0.4

Sizes come from the model's config.json, amounts from the recipe; the formulas are those of finetune.planning.costs and
finetune.planning.memory and are printed below the table."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from pathlib import Path

from engine.keye import KeyeConfig
from engine.keye.loading import load_config
from finetune.errors import FinetuneError
from finetune.planning.costs import Parameters, parameters
from finetune.planning.memory import Memory, memory
from finetune.planning.workload import SAMPLED, Load, World, load_of
from finetune.recipe import Part, Recipe

GPUS: dict[str, tuple[float, float]] = {
    "a100": (312e12, 80e9),
    "h100": (989e12, 80e9),
    "h800": (989e12, 80e9),
    "h200": (989e12, 141e9),
    "b200": (2250e12, 192e9),
    "l40s": (362e12, 48e9),
    "4090": (165e12, 24e9),
    "core": (56e9, 8e9),
}
"""Operations a second in dense bfloat16 and bytes of memory, as their makers state them; `core` is one processor core
as it was measured on keye-nano's matrices, with the memory it may have."""

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Row:
    """A part of the recipe."""

    title: str
    part: Part
    load: Load
    memory: Memory
    hours: float  # on all GPUs together


@dataclass(frozen=True)
class Plan:
    recipe: Recipe
    config: KeyeConfig
    parameters: Parameters
    gpus: int
    gpu: str
    mfu: float
    rows: tuple[Row, ...]

    @property
    def peak(self) -> float:
        return GPUS[self.gpu][0]


def make_plan(recipe: Recipe, gpus: int | None = None, gpu: str | None = None, mfu: float = 0.4) -> Plan:
    """Every part of a recipe with what it takes. Loads no weights of a published model and starts nothing.

    Where they are not named: as many GPUs as the recipe has processes, and processor cores for keye-nano.
    FinetuneError for senseless numbers, EngineError where the model's folder has no valid config.json."""
    gpus = recipe.processes if gpus is None else gpus
    gpu = gpu or ("core" if "new" in recipe.model else "h100")
    if not 1 <= gpus <= 1_000_000:
        raise FinetuneError(f"--gpus must be at least 1 and at most a million, not {gpus}.")
    if gpu not in GPUS:
        raise FinetuneError(f"--gpu knows no “{gpu}”; there are {', '.join(GPUS)}.")
    if not 0 < mfu <= 1:
        raise FinetuneError(f"--mfu is the share of the peak that is reached, between 0 and 1, not {mfu:g}.")
    config = _config(recipe)
    rows, world = [], World(recipe)
    for stage in recipe.stages:
        for name, part in stage.parts.items():
            title = stage.name if name == stage.name else f"{stage.name}.{name}"
            load = load_of(recipe, stage, part, title, config, world)
            took = memory(
                config,
                part.train,
                load.batch,
                gpus,
                lora=part.lora,
                four_bit=part.four_bit,
                beside=load.beside,
                copies=load.copies,
                sees_only=stage.kind == "vision",
            )
            seconds = ((load.training + load.judging) / mfu + load.sampling / load.effort.rollout_share) / (
                GPUS[gpu][0] * gpus
            )
            rows.append(Row(title, part, load, took, seconds / 3600))
    return Plan(recipe, config, parameters(config), gpus, gpu, mfu, tuple(rows))


def _config(recipe: Recipe) -> KeyeConfig:
    if "path" in recipe.model:
        path = Path(recipe.model["path"])
        return load_config(path if path.is_dir() else _ROOT / path if (_ROOT / path).is_dir() else path)
    if recipe.model.get("new") == "keye-nano":
        from finetune.nano.shape import nano_config
        from finetune.nano.tokenizer import train_tokenizer

        fields = nano_config(train_tokenizer())
        return KeyeConfig(**{k: v for k, v in fields.items() if k not in ("model_type", "dtype")})
    raise FinetuneError('Say what to train: --model DIR, or new = "keye-nano" under [model].')


# -- as text ----------------------------------------------------------------------------------------------------


def plan_text(plan: Plan) -> str:
    """The plan for a terminal, 120 characters wide."""
    p, (peak, room) = plan.parameters, GPUS[plan.gpu]
    kind = "processor core" if plan.gpu == "core" else plan.gpu
    lines = [
        f"{plan.recipe.name}: {_count(p.built)} parameters (tower {_count(p.tower)}, projector {_count(p.projector)}, "
        f"decoder {_count(p.decoder + p.embeddings + p.output)})",
        f"on {plan.gpus:,} × {kind} at {plan.mfu:.0%} of {_count(peak)} operations/s. Nothing has been started.",
        "",
    ]
    heads = ("part", "examples", "tokens", "visual", "operations", "state", "all kept", "checkpt.", "time")
    table = [heads, *(_cells(row, room) for row in plan.rows), _sum(plan)]
    widths = [max(len(row[at]) for row in table) for at in range(len(heads))]
    for at, row in enumerate(table):
        if at in (1, len(table) - 1):
            lines.append("─" * (sum(widths) + 2 * (len(widths) - 1)))
        cells = [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([f"{row[0]:<{widths[0]}}", *cells]))
    lines += ["", *_notes(plan, room), *_sources(plan)]
    return "\n".join(lines)


def _cells(row: Row, room: float) -> tuple[str, ...]:
    load, took = row.load, row.memory
    mark = "" if load.known else " a step"
    full, least = (f"{_bytes(v)}{'' if v <= room else ' !'}" for v in (took.full, took.least))
    return (
        row.title,
        _count(load.examples) + mark,
        _count(load.tokens),
        f"{load.visual / load.tokens:.0%}" if load.tokens else "–",
        f"{load.training + load.sampling + load.judging:.2e}",
        _bytes(took.state),
        full,
        least,
        _time(row.hours) + mark,
    )


def _sum(plan: Plan) -> tuple[str, ...]:
    known = [row for row in plan.rows if row.load.known]
    tokens = sum(row.load.tokens for row in known)
    total = sum(row.load.training + row.load.sampling + row.load.judging for row in known)
    return (
        "all" if len(known) == len(plan.rows) else "all that is known",
        _count(sum(row.load.examples for row in known)),
        _count(tokens),
        f"{sum(row.load.visual for row in known) / tokens:.0%}" if tokens else "–",
        f"{total:.2e}",
        "",
        "",
        "",
        _time(sum(row.hours for row in known)),
    )


def _notes(plan: Plan, room: float) -> list[str]:
    p, c = plan.parameters, plan.config
    matrices = p.decoder - (2 * c.num_hidden_layers + 1) * c.hidden_size
    told = {
        "operations": "2·N·T forward for N weights of matrices and T tokens, 2·N·T more where a gradient passes "
        "through, 2·N·T more where weights learn: 6·N·T of what is trained, 4·N·T of a frozen decoder behind a "
        f"learning projector, 2·N·T of a frozen tower. N is {_count(matrices)} for the decoder's layers and "
        f"{_count(p.tower)}, a patch, for the tower. Attention: 4·n²·width a layer, half of it in the causal decoder, "
        "three times that with its gradient. A picture is one sequence of the tower, and so is a whole clip "
        "(Preview): its n² grows with the square of the frames.",
        "state": "a GPU's share of weights (2 bytes), gradients (2), float32 copies and AdamW's moments (12, of what "
        "learns) under ZeRO-3, the reference model of preferences and reinforcement with it.",
        "all kept": "the state, the activations of a GPU's batch, and its logits (10 bytes each). checkpt.: with each "
        f"layer computed again on the way back. ! is more than {_bytes(room)}.",
        "time": "operations / (GPUs × peak × share reached). Recomputing, loading and waiting are in the share.",
    }
    if any(row.load.sampling for row in plan.rows):
        told["sampling"] = (
            "answers are drawn at `rollout_share` of the peak, because reading the weights bounds it and not "
            "arithmetic; a judge runs at the same share as training. Tokens are those of the prompts."
        )
    if any(row.part.data == ("world",) and not row.part.tokens + row.part.examples for row in plan.rows):
        told["the world"] = f"its batches are taken to be as the mean of {SAMPLED} that were made for the plan."
    if any(not row.load.known for row in plan.rows):
        told["a step"] = "how long it will be depends on the data: give PART.steps=N or PART.examples=N to know."
    return ["How it is counted", *(line for name, words in told.items() for line in _wrapped(f"  {name:<12}", words))]


def _sources(plan: Plan) -> list[str]:
    """Of a published recipe: which numbers are the report's, and which are not."""
    out = []
    for row in plan.rows:
        published, ours = provenance(row.part)
        if row.part.ours:
            out.append(f"  {row.title}")
            out += _wrapped("    published   ", "; ".join(published) or "no number")
            out += _wrapped("    our choice  ", "; ".join(ours) or "none")
    return ["", "Where the numbers come from (the reasons stand in the recipe)", *out] if out else []


def _wrapped(first: str, words: str) -> list[str]:
    return textwrap.wrap(words, 120, initial_indent=first, subsequent_indent=" " * len(first))


def provenance(part: Part) -> tuple[list[str], list[str]]:
    """The numbers that a part states, each as published or ours; `counts.NAME` where some of the counts are ours."""
    plain = Part()
    published: list[str] = []
    ours = [name for name in part.ours if not name.startswith("counts.")]
    names = [n for n in vars(part) if n not in ("ours", "train", "data", "media") and vars(part)[n] != vars(plain)[n]]
    for name in names:
        if name == "counts":
            for key, value in part.counts.items():
                (ours if f"counts.{key}" in part.ours else published).append(f"{key} {value:,}")
        elif name not in part.ours:
            value = vars(part)[name]
            published.append(f"{name} {_count(value)}" if isinstance(value, int | float) else name)
    return published, ours


def _count(value: float) -> str:
    for size, unit in ((1e15, "P"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def _bytes(value: float) -> str:
    return (
        f"{value / 1e9:,.0f} GB"
        if value >= 10e9
        else f"{value / 1e9:.1f} GB"
        if value >= 1e8
        else f"{value / 1e6:.0f} MB"
    )


def _time(hours: float) -> str:
    if hours * 3600 < 100:
        return f"{hours * 3600:.3g} s"
    if hours < 2:
        return f"{hours * 60:.0f} min"
    return f"{hours:,.0f} h" if hours < 100 else f"{hours / 24:,.0f} days" if math.isfinite(hours) else "–"
