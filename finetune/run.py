"""Running a recipe: stage after stage, each from the model that the one before it wrote.

    runs/NAME/recipe.json machine.json log.jsonl
    runs/NAME/start/model                 what the first stage began with, where it was made here
    runs/NAME/data                        what the store taught, and from which rows of it (finetune.loop.from_feedback)
    runs/NAME/samples.jsonl               what it said to questions that are held out (finetune.measuring.held_out)
    runs/NAME/STAGE[/PART]/state.pt       while it trains
    runs/NAME/STAGE[/PART]/model          when it has ended; a folder that `engine` loads
    runs/NAME/STAGE[/PART]/done.json evaluation.json
    runs/NAME/STAGE/model                 of the whole stage: its last part's, or the average of all
    runs/NAME/release                     the last model in bfloat16, measured, with its card
    runs/NAME/report.html report.json

The same command goes on where a run was stopped or killed."""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import transformers
from accelerate import Accelerator
from transformers.utils import logging as library_logging

from engine.keye import KeyeProcessor
from engine.keye.loading import load_config, load_model
from finetune.data.cache import FrameStore
from finetune.errors import FinetuneError
from finetune.loop.from_feedback import drawn, drawn_elsewhere
from finetune.measuring import evaluate, modes_table
from finetune.measuring.held_out import HeldOut
from finetune.nano.card import release, write_card
from finetune.nano.shape import new_checkpoint
from finetune.recipe import Part, Recipe, Stage, write_resolved
from finetune.reports.run_record import Record, code_version, recorded
from finetune.reports.run_report import write_report
from finetune.stages.reading import BESIDE, Start
from finetune.training.launch import spawn
from finetune.training.trainer import Log, Progress, Trainer, stop_on_signals

_T = TypeVar("_T")

RUNNABLE = ("vision", "alignment", "multitask", "annealing", "sft", "mpo", "cold_start", "rl", "align")


@dataclass(frozen=True)
class Step:
    """One part of a stage, and where it lives."""

    stage: Stage
    part: str
    folder: Path

    @property
    def name(self) -> str:
        return self.stage.name if self.part == self.stage.name else f"{self.stage.name}.{self.part}"

    @property
    def done(self) -> bool:
        return (self.folder / "done.json").is_file()


def steps_of(stage: Stage, out: Path) -> list[Step]:
    """The parts of a stage in order."""
    root = out / stage.name
    return [Step(stage, part, root if part == stage.name else root / part) for part in stage.parts]


def prepare(recipe: Recipe, out: Path, begin: str | None = None) -> None:
    """Check a run before anything is computed, and write down what it will be.

    `begin` names the stage to run again, with all after it. FinetuneError where a finished stage was run with other
    numbers, where stages before `begin` have not been run, or where a stage cannot be run."""
    for stage in recipe.stages:
        if stage.kind not in RUNNABLE:
            raise FinetuneError(f"A stage of kind “{stage.kind}” cannot be run yet; leave [{stage.name}] out.")
        module = importlib.import_module(f"finetune.stages.{stage.kind}")
        if hasattr(module, "check"):
            module.check(stage)
    steps = [step for stage in recipe.stages for step in steps_of(stage, out)]
    for step in steps[:-1]:
        if (part := step.stage.parts[step.part]).lora and not part.merge:
            raise FinetuneError(f"What comes after {step.name} needs a whole model; give {step.name}.merge = true.")
    if set(recipe.model) not in ({"new"}, {"new", "former"}, {"path"}):
        raise FinetuneError('Say what to train: --model DIR, or new = "keye-nano" under [model].')
    if "path" in recipe.model:
        load_config(Path(recipe.model["path"]))
    elif recipe.model["new"] != "keye-nano":
        raise FinetuneError(f'[model] new can be "keye-nano" only, not “{recipe.model["new"]}”.')
    if begin is not None:
        _forget(recipe, out, recipe.stage(begin))
    _compare(recipe, out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_resolved(recipe, out / "recipe.json")
        (out / "machine.json").write_text(json.dumps(machine(), indent=1) + "\n", "utf-8")
    except OSError as error:
        raise FinetuneError(f"The run cannot be written to {out} ({error}); give another --out.") from error


def _forget(recipe: Recipe, out: Path, begin: Stage) -> None:
    before = True
    for stage in recipe.stages:
        before = before and stage.name != begin.name
        if before:
            if not all(step.done for step in steps_of(stage, out)):
                raise FinetuneError(
                    f"{begin.name} begins where {stage.name} ends, which has not ended in {out}; run it first, or give "
                    f"--model DIR and a recipe without it."
                )
        else:
            shutil.rmtree(out / stage.name, ignore_errors=True)


def _compare(recipe: Recipe, out: Path) -> None:
    """Going on with a run must not mix numbers."""
    if not (out / "recipe.json").is_file():
        return
    try:
        old = json.loads((out / "recipe.json").read_text("utf-8"))
        stages = {stage["name"]: stage for stage in old["stages"]}
        whole = {name: old[name] for name in ("seed", "model")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FinetuneError(f"{out} holds a damaged recipe.json ({error}); give another --out.") from error
    now = json.loads(json.dumps(recipe.as_json()))
    begun = [stage for stage in recipe.stages if any(step.done for step in steps_of(stage, out))]
    if not begun:
        return
    for name, value in whole.items():
        if now[name] != value:
            raise FinetuneError(f"The run in {out} has {name} = {value}, not {now[name]}; give another --out.")
    for stage in now["stages"]:
        for part, numbers in stage["parts"].items():
            step = next(s for s in steps_of(recipe.stage(stage["name"]), out) if s.part == part)
            # what an earlier version had no word for was as it is by default
            before = json.loads(json.dumps(asdict(Part()))) | stages.get(stage["name"], {}).get("parts", {}).get(
                part, {}
            )
            odd = next((k for k in numbers if before.get(k) != numbers[k]), None)
            if step.done and odd is not None:
                raise FinetuneError(
                    f"{step.name} has ended in {out} with other numbers ({odd}); give --from {stage['name']} to run it "
                    "and all after it again, or another --out."
                )


def machine() -> dict[str, Any]:
    """What the run was made on."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "gpus": gpus,
        "code": code_version(),
        "command": " ".join(["python", "-m", "finetune", *sys.argv[1:]]),
    }


@contextmanager
def tiny_is_zero() -> Iterator[None]:
    """Numbers below 1e-38 count as 0 meanwhile, in this thread and those that it starts.

    Small weights of an attention times small gradients lie there, and a processor takes a hundred times as long over
    each: keye-nano's SFT two and a half times, its stage 2 a quarter more. To be entered before the first product,
    with which PyTorch starts its threads; these keep it."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@tiny_is_zero()
def execute(recipe: Recipe, out: Path, store: Path | None = None) -> Path:
    """Run what is left of a recipe in this process, which may be one of several; the folder of the last model.

    The run and its figures are rows of `store` too. Raises Stopped when the user ends it."""
    library_logging.disable_progress_bar()  # the bar that counts is the training's
    cuda = torch.cuda.is_available()
    accelerator = Accelerator(cpu=not cuda, mixed_precision="bf16" if cuda else "no")
    if accelerator.device.type == "cpu":
        torch.set_num_threads(recipe.threads or max(1, (os.cpu_count() or 1) // accelerator.num_processes))
    if "new" in recipe.model:
        last = out / "start"
        if accelerator.is_main_process and not (last / "model" / "config.json").is_file():
            former = recipe.model.get("former")
            new_checkpoint(last / "model", recipe.seed, Path(former) if former else None)
        accelerator.wait_for_everyone()
        model = last / "model"
    else:
        last, model = out / "start", Path(recipe.model["path"])
    main = accelerator.is_main_process
    questions = HeldOut(out)
    with stop_on_signals() as stop, recorded(store if main else None, recipe, out) as record:
        for stage in recipe.stages:
            if stop.keep:
                break
            begun_at, beside = model, last / BESIDE
            for step in steps_of(stage, out):
                if not step.done:
                    if stop.keep:
                        break
                    _train(recipe, step, model, beside, accelerator, out, record, stop, questions)
                    record.done(step.name, step.folder)
                if stage.kind == "annealing":
                    _evaluate(recipe, step.folder, accelerator)
                    record.done(step.name, step.folder)
                    model, beside = begun_at, last / BESIDE
                else:
                    last, model, beside = step.folder, outcome(step.folder), step.folder / BESIDE
            if stage.kind == "annealing":
                last, model = _merged(stage, out, accelerator)
                _evaluate(recipe, last, accelerator)
            else:
                if main:
                    _point(out / stage.name / model.name, model)
                accelerator.wait_for_everyone()
                if stage.kind != "vision":  # the tower alone cannot answer
                    _evaluate(recipe, out / stage.name, accelerator)
                    ended = [step for step in steps_of(stage, out) if step.done][-1]
                    record.done(ended.name, ended.folder, out / stage.name)
        if stop.keep:
            record.sentence = "It was ended early, as asked; what was learnt until then is kept."
        _release(recipe, out, model, accelerator)
        if main:
            write_report(out)
    accelerator.wait_for_everyone()
    return model


def _train(
    recipe: Recipe,
    step: Step,
    model: Path,
    beside: Path,
    accelerator: Accelerator,
    out: Path,
    record: Record,
    stop: threading.Event,
    questions: HeldOut,
) -> None:
    part = step.stage.parts[step.part]
    stage = importlib.import_module(f"finetune.stages.{step.stage.kind}")
    own = getattr(stage, "load", None)
    loaded: Any = own(model, part, accelerator.device) if own else load_model(model, torch.float32)
    loaded.train()
    start = Start(
        loaded,
        KeyeProcessor.from_pretrained(model),
        model,
        beside,
        f"{recipe.seed}-{step.name}",
        accelerator.process_index,
        accelerator.num_processes,
        step.folder,
    )
    work = stage.work(start, part)
    log = Log(out / "log.jsonl", record.figures)
    frames = FrameStore(Path(part.cache), int(part.cache_gb * 1e9))
    asks = bool(questions.rows) and step.stage.kind != "vision"  # the tower alone cannot answer
    look = partial(questions.look, loaded, start.processor, model, step.name, frames) if asks else None
    try:
        trainer = Trainer(step.name, part, work, step.folder, accelerator, log, look)
        record.begun(step.name, trainer.progress.step)
        progress = trainer.run(stop)
        trainer.gather()
    finally:
        if work.close is not None:
            work.close()
    if accelerator.is_main_process:
        work.save(step.folder)
        _write(step.folder / "done.json", _account(progress))
        trainer.state_file.unlink(missing_ok=True)
    accelerator.free_memory()
    accelerator.wait_for_everyone()


def _account(progress: Progress) -> dict[str, Any]:
    return {
        "steps": progress.step,
        "seconds": round(progress.seconds, 1),
        "processor_seconds": round(progress.processor, 1),
        "examples": progress.examples,
        "tokens": progress.tokens,
        "skipped": progress.skipped,
    }


def _merged(stage: Stage, out: Path, accelerator: Accelerator) -> tuple[Path, Path]:
    from finetune.stages.annealing import merge

    folder = out / stage.name
    models = [step.folder / "model" for step in steps_of(stage, out) if step.done]  # all, where it was not cut short
    if accelerator.is_main_process and not (folder / "model" / "config.json").is_file():
        merge(models, folder / "model")
    accelerator.wait_for_everyone()
    return folder, folder / "model"


def outcome(folder: Path) -> Path:
    """What a part has made: its model, or its adapter where that is all."""
    return folder / ("model" if (folder / "model").exists() else "adapter")


def _point(link: Path, model: Path) -> None:
    """A stage's model is its last part's."""
    if not link.exists():
        link.symlink_to(os.path.relpath(model, link.parent))


def _evaluate(recipe: Recipe, folder: Path, accelerator: Accelerator) -> None:
    """Accuracy on held-out clips after a part or stage, where the recipe wants it and there is a model."""
    if recipe.evaluate.clips and (folder / "model").exists() and not (folder / "evaluation.json").is_file():
        _measure(folder / "model", recipe.evaluate.clips, False, [folder], accelerator)
    if recipe.evaluate.modes and (folder / "model").exists() and not (folder / modes_table.FACTS).is_file():
        _measure_modes(folder / "model", recipe.evaluate.modes, folder, accelerator)


def _measure_modes(model: Path, clips: int, folder: Path, accelerator: Accelerator) -> None:
    """Ask in every mode, which the processes share, and write the tables into the folder."""
    share = (accelerator.process_index, accelerator.num_processes)
    told = _together(modes_table.Table(model).run(clips, part=share), accelerator)
    if accelerator.is_main_process:
        command = f"python -m finetune modes MODEL --clips {clips}"
        modes_table.write(told, {"command": command, "clips": clips, "seed": 0}, folder)
    accelerator.wait_for_everyone()


def _release(recipe: Recipe, out: Path, model: Path, accelerator: Accelerator) -> None:
    """The model to give away: in bfloat16, measured with the blind baseline, with its card."""
    folder = out / "release"
    if not recipe.evaluate.final or not (model / "config.json").is_file() or (folder / "README.md").is_file():
        return
    if accelerator.is_main_process:
        release(model, folder)
    accelerator.wait_for_everyone()
    _measure(folder, recipe.evaluate.final, True, [out, folder], accelerator)
    if recipe.evaluate.modes:
        _measure_modes(folder, recipe.evaluate.modes, folder, accelerator)
    if accelerator.is_main_process:
        write_card(folder, [out])


def _measure(model: Path, clips: int, blind: bool, folders: list[Path], accelerator: Accelerator) -> None:
    """Ask about held-out clips, which the processes share, and write the evaluation into the folders."""
    share = (accelerator.process_index, accelerator.num_processes)
    asked = _together(evaluate.run(evaluate.Answerer(model), clips, blind=blind, share=share), accelerator)
    if accelerator.is_main_process:
        command = f"python -m finetune evaluate MODEL --clips {clips}{'' if blind else ' --no-blind'}"
        about = {"command": command, "clips": clips, "seed": 0}
        for folder in folders:
            evaluate.write_evaluation(asked, about, folder)
    accelerator.wait_for_everyone()


def _together(own: list[_T], accelerator: Accelerator) -> list[_T]:
    """What all processes have, in the order of the processes."""
    everything = [own]
    if accelerator.num_processes > 1:
        everything = [[] for _ in range(accelerator.num_processes)]
        dist.all_gather_object(everything, own)
    return [one for several in everything for one in several]


def _write(path: Path, content: dict[str, Any]) -> None:
    scratch = path.with_suffix(".part")
    scratch.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    os.replace(scratch, path)


def run(recipe: Recipe, out: Path, begin: str | None = None, store: Path | None = None) -> Path:
    """Run a recipe to its end, with as many processes as it asks for where no launcher has started them.

    Returns the folder of the last model. Raises Stopped when the user ends it, FinetuneError with what to do."""
    launched = "WORLD_SIZE" in os.environ
    if int(os.environ.get("RANK", "0")) == 0:
        recipe = drawn(recipe, out, store)
        prepare(recipe, out, begin)
    else:
        recipe = drawn_elsewhere(recipe, out)
    if launched or recipe.processes == 1:
        return execute(recipe, out, store)
    spawn(execute, recipe, out, store)
    ended = [stage for stage in recipe.stages if any(step.done for step in steps_of(stage, out))]
    return outcome(out / ended[-1].name)
