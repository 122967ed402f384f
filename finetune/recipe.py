"""A recipe: an ordered list of stages and the numbers each runs with, read from a TOML file.

Every table of the file but `[model]` and `[evaluate]` is a stage. The tables inside a stage are its parts: they take
over what the stage says and may say otherwise. A stage of kind `annealing` begins each of its parts at the same
weights and averages what comes out; all others run their parts one after the other. `[small.STAGE]` says what a stage
takes instead where the model is small."""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from finetune.errors import FinetuneError

Kind = Literal["vision", "alignment", "multitask", "annealing", "sft", "mpo", "cold_start", "rl", "align"]
Module = Literal["tower", "projector", "decoder"]
MODULES: tuple[Module, ...] = get_args(Module)

TRAINED: dict[Kind, tuple[Module, ...]] = {"vision": ("tower",), "alignment": ("projector",)}
"""What a stage trains where it says nothing (report, section 3.2); all others train everything."""


@dataclass(frozen=True)
class Part:
    """One loop of training. Rates are peak rates."""

    steps: int = 0  # of the optimiser
    epochs: float = 0.0  # instead of steps, where the data ends
    lr: float = 1e-3  # of AdamW
    muon_lr: float = 0.0  # of Muon, for matrices; 0: AdamW for everything
    tower_lr: float = 0.1  # the tower's rate as a share of the others', where it is not alone
    warmup: int = 0  # steps until the full rate
    fall: Literal["none", "linear", "cosine"] = "none"
    floor: float = 0.0  # the share of the rate at which the fall ends
    weight_decay: float = 0.0
    accumulate: int = 1  # batches of a step
    clip: float = 1.0  # norm of the gradient
    train: tuple[Module, ...] = MODULES
    data: tuple[str, ...] = ("world",)  # "world", "feedback" (of the store), or files of what the stage learns from
    views: int = 1  # numbers of frames at which clips of files are seen, one each time they are gone through
    least: int = 0  # rows of feedback; with fewer the stage is left out
    replay: float = 0.0  # share of the steps that go over old skills, where the data are files
    replay_data: tuple[str, ...] = ()  # "world", "modes" (the world in every mode), or files of conversations
    look: int = 0  # steps after which held-out questions are asked meanwhile; 0: at the beginning and the end only
    batch_tokens: int = 16384  # of each process, where the data are files
    # of the world
    media: Literal["pictures", "videos"] = "videos"
    things: int = 4  # the most that a scene may hold
    seconds: float = 8.0  # of the longest clip
    mixture: dict[str, float] = field(default_factory=dict)  # how much more often a kind of question is asked
    chinese: float = 0.2  # share of the questions
    plain: bool = False  # things without a pattern, before a camera that stands still
    dense: float = 0.0  # weight of what tokens and patches are asked directly, beside the stage's own loss
    contrastive: float = 1.0  # weight of the contrastive loss in `vision`
    # of fine-tuning
    lora: int = 0  # rank; 0 trains the weights themselves
    lora_alpha: float = 0.0  # 0: twice the rank
    targets: tuple[str, ...] = ()  # the matrices that LoRA adapts, by their endings; none: all seven of a layer
    four_bit: bool = False  # of the decoder, under LoRA
    merge: bool = False  # write the model with its adapter worked in, too
    shard: bool = False  # divide weights and optimiser among the processes, unless they are in 4 bits
    recompute: bool = False  # the activations of a layer in the backward pass: a third more time, far less memory
    cache: str = "data/frames"  # folder of decoded clips
    cache_gb: float = 50.0
    # of preferences and of answers that are drawn
    beta: float = 0.1  # how far the model may go from where it began to prefer an answer
    questions: int = 4  # of a batch
    samples: int = 8  # answers to each, in each mode
    answer_tokens: int = 1024  # of the longest
    modes: tuple[Literal["auto", "think", "no_think"], ...] = ("think", "no_think")
    temperature: float = 1.0
    kl: float = 0.02  # weight of the divergence from the model that the part began with
    ratio: float = 0.2  # how far a token's probability may move before it counts no more
    reuse: int = 1  # steps that learn from the same answers
    rollouts: Literal["model", "sglang"] = "model"  # what draws the answers of `rl`: the weights here, or a server
    rounds: int = 3  # of alignment
    judge: str = ""  # address of a model that judges answers too
    # of a published recipe
    tokens: float = 0.0
    examples: int = 0
    counts: dict[str, int] = field(default_factory=dict)  # what the examples are made of
    context: int = 0
    shapes: dict[str, dict[str, float]] = field(default_factory=dict)  # what an example is (finetune.planning.workload)
    effort: dict[str, float] = field(default_factory=dict)  # what else is done with it, for the plan
    ours: tuple[str, ...] = ()  # the fields that nobody has published; counts.NAME where it is one of the counts


SMALL = 100_000_000
"""Models of fewer parameters, such as keye-nano, follow what a recipe says under [small]."""

FEEDBACK = ("feedback",)
"""The data of a part that learns from what people said; see finetune.loop.from_feedback."""


@dataclass(frozen=True)
class Stage:
    name: str
    kind: Kind
    parts: dict[str, Part]  # by name; a stage that has none inside is one part of its own name


@dataclass(frozen=True)
class Evaluation:
    clips: int = 0  # held-out clips of the world after each stage; 0: none
    modes: int = 0  # held-out clips asked about in every mode after each stage; 0: none
    final: int = 0  # after the last stage, with the blind baseline; 0: the model is not released


@dataclass(frozen=True)
class Recipe:
    name: str
    stages: tuple[Stage, ...]
    seed: int = 0
    processes: int = 1  # on this machine, where no launcher has started them
    threads: int = 0  # of each process; 0: the cores divided among the processes
    model: dict[str, str] = field(default_factory=dict)  # {"new": "keye-nano"[, "former": folder]} or {"path": folder}
    evaluate: Evaluation = Evaluation()

    def stage(self, name: str) -> Stage:
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise FinetuneError(
            f"The recipe {self.name} has no stage “{name}”; it has {', '.join(s.name for s in self.stages)}."
        )

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def load_recipe(path: Path, overrides: Iterable[str] = (), model: str | None = None) -> Recipe:
    """Read a recipe and replace numbers as `stage2.lr=1e-3`, `stage3.time.steps=100` or `seed=1` say. `model` is the
    folder to begin with, where that is known: what the recipe says of small models then holds for it or does not.

    Raises FinetuneError, naming the field, for a file that cannot be read, an unknown field or a value that makes no
    sense."""
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise FinetuneError(f"The recipe {path} cannot be read ({error}); give the path of a .toml file.") from error
    except tomllib.TOMLDecodeError as error:
        raise FinetuneError(f"The recipe {path} is not valid TOML: {error}.") from error
    _suit(data, model or (data["model"].get("path") if isinstance(data.get("model"), dict) else None))
    for text in overrides:
        _override(data, text)
    return parse_recipe(data, path.stem)


def _suit(data: dict[str, Any], model: str | None) -> None:
    """Take what the recipe says of small models into its stages, or leave it."""
    small = data.pop("small", {})
    if not isinstance(small, dict) or not all(isinstance(table, dict) for table in small.values()):
        raise FinetuneError("[small] holds tables of stages, such as [small.sft].")
    for name in small:
        if not isinstance(data.get(name), dict):
            raise _unknown(name, [k for k, v in data.items() if isinstance(v, dict)], "[small]")
    if model is None or not small:
        return
    from engine.keye.loading import load_config
    from finetune.planning.costs import parameters

    if parameters(load_config(Path(model))).built < SMALL:
        for name, table in small.items():
            data[name] |= table


def parse_recipe(data: dict[str, Any], name: str = "recipe") -> Recipe:
    """A recipe from what tomllib gives."""
    data = dict(data)
    known = {"name": str, "seed": int, "processes": int, "threads": int}
    top: dict[str, Any] = {"name": name}
    for key, kind in known.items():
        if key in data:
            top[key] = _value(kind, data.pop(key), key)
    model = data.pop("model", {})
    if (
        not isinstance(model, dict)
        or not all(isinstance(v, str) for v in model.values())
        or set(model) - {"new", "former", "path"}
    ):
        raise FinetuneError('[model] takes new = "keye-nano" (and former = "a folder") or path = "a folder".')
    evaluation = _fill(Evaluation, data.pop("evaluate", {}), "evaluate")
    stages = []
    for stage, table in data.items():
        if not isinstance(table, dict):
            raise _unknown(stage, [*known, "model", "evaluate"], "The recipe")
        stages.append(_stage(stage, table))
    if not stages:
        raise FinetuneError("The recipe has no stage; add a table such as [sft] with its kind.")
    recipe = Recipe(stages=tuple(stages), model=model, evaluate=evaluation, **top)
    if not 1 <= recipe.processes <= 64:
        raise FinetuneError(f"processes must lie between 1 and 64, not {recipe.processes}.")
    return recipe


def _stage(name: str, table: dict[str, Any]) -> Stage:
    table = dict(table)
    kind = table.pop("kind", None)
    if kind not in get_args(Kind):
        raise FinetuneError(f"[{name}] needs a kind: one of {', '.join(get_args(Kind))}; not {kind!r}.")
    fields = {f.name for f in dataclasses.fields(Part)}
    inner = {key: table.pop(key) for key in list(table) if isinstance(table[key], dict) and key not in fields}
    if kind in TRAINED and "train" not in table:
        table["train"] = list(TRAINED[kind])
    parts = {part: _part(f"{name}.{part}", {**table, **rows}) for part, rows in inner.items()}
    return Stage(name, kind, parts or {name: _part(name, table)})


def _part(where: str, table: dict[str, Any]) -> Part:
    part: Part = _fill(Part, table, where)
    numbers = {
        "steps": part.steps >= 0,
        "epochs": part.epochs >= 0,
        "lr": part.lr >= 0,
        "muon_lr": part.muon_lr >= 0,
        "warmup": part.warmup >= 0,
        "floor": 0 <= part.floor <= 1,
        "accumulate": part.accumulate >= 1,
        "clip": part.clip > 0,
        "batch_tokens": part.batch_tokens >= 1,
        "things": 1 <= part.things <= 4,
        "seconds": 8 <= part.seconds <= 16,
        "chinese": 0 <= part.chinese <= 1,
        "lora": part.lora >= 0,
        "lora_alpha": part.lora_alpha >= 0,
        "cache_gb": part.cache_gb > 0,
        "beta": part.beta > 0,
        "questions": part.questions >= 1,
        "samples": part.samples >= 2,
        "answer_tokens": part.answer_tokens >= 1,
        "modes": bool(part.modes),
        "temperature": part.temperature > 0,
        "kl": part.kl >= 0,
        "ratio": 0 < part.ratio < 1,
        "reuse": part.reuse >= 1,
        "rounds": part.rounds >= 1,
        "least": part.least >= 0,
        "replay": 0 <= part.replay < 1,
        "look": part.look >= 0,
        "train": bool(part.train),
    }
    for name, sensible in numbers.items():
        if not sensible:
            raise FinetuneError(f"{where}.{name} = {getattr(part, name)} makes no sense; give another value.")
    if part.shard and part.muon_lr:
        raise FinetuneError(f"{where}: Muon needs whole matrices; give muon_lr = 0, or shard = false.")
    for name in part.ours:
        if name.startswith("counts.") and name.removeprefix("counts.") in part.counts:
            continue
        if name not in {f.name for f in dataclasses.fields(Part)}:
            raise _unknown(name, [f.name for f in dataclasses.fields(Part)], f"{where}.ours")
    return part


def _fill(kind: type[Any], table: Any, where: str) -> Any:
    if not isinstance(table, dict):
        raise FinetuneError(f"[{where}] must be a table.")
    types_ = typing.get_type_hints(kind)
    for key in table:
        if key not in types_:
            raise _unknown(key, list(types_), f"[{where}]")
    return kind(**{key: _value(types_[key], value, f"{where}.{key}") for key, value in table.items()})


def _unknown(key: str, names: list[str], where: str) -> FinetuneError:
    near = difflib.get_close_matches(key, names, 1)
    hint = f"did you mean “{near[0]}”?" if near else f"there are {', '.join(names)}."
    return FinetuneError(f"{where} knows no “{key}”; {hint}")


def _value(kind: Any, value: Any, where: str) -> Any:
    """`value` as the field's type; FinetuneError where it is none."""
    origin, inner = typing.get_origin(kind), get_args(kind)
    if origin is Literal and value in inner:
        return value
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if value != value or value in (float("inf"), float("-inf")):
            raise FinetuneError(f"{where} must be a number, not {value}.")
        return float(value)
    if kind is str and isinstance(value, str):
        return value
    if origin is tuple:
        several = [value] if isinstance(value, str) else value
        if isinstance(several, list | tuple):
            return tuple(_value(inner[0], one, where) for one in several)
    if origin is dict and isinstance(value, dict):
        return {_value(inner[0], k, where): _value(inner[1], v, f"{where}.{k}") for k, v in value.items()}
    raise FinetuneError(f"{where} must be {_told(kind)}, not {value!r}.")


def _told(kind: Any) -> str:
    inner = get_args(kind)
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(f"“{v}”" for v in inner)
    if typing.get_origin(kind) is tuple:
        return f"a list, each {_told(inner[0])}"
    if isinstance(kind, types.GenericAlias):
        return "a table"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[kind]


def _override(data: dict[str, Any], text: str) -> None:
    """Set one value of the file's data; a text that is no TOML value is taken as it stands."""
    key, sign, raw = text.partition("=")
    names = key.strip().split(".")
    if not sign or not all(names):
        raise FinetuneError(f"“{text}” sets nothing; write it as stage.field=value.")
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()
    table = data
    for name in names[:-1]:
        if not isinstance(table.get(name), dict):
            raise _unknown(name, [k for k, v in table.items() if isinstance(v, dict)], "The recipe")
        table = table[name]
    table[names[-1]] = value
    fields = {f.name for f in dataclasses.fields(Part)}
    if len(names) == 2 and names[1] in fields:  # said of a stage, it holds for all its parts
        for key, inner in table.items():
            if isinstance(inner, dict) and key not in fields:
                inner.pop(names[1], None)


def write_resolved(recipe: Recipe, path: Path) -> None:
    """The recipe as it runs, with every default, as JSON."""
    path.write_text(json.dumps(recipe.as_json(), indent=1, ensure_ascii=False) + "\n", "utf-8")
