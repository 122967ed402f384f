"""Running recipes on the smallest steps there are: what moves, what is written, what a stop or a kill costs."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from engine.keye import KeyeProcessor, load_model
from finetune.errors import FinetuneError
from finetune.feedback.runs import Runs
from finetune.nano.shape import new_checkpoint
from finetune.packing.batches import Batches, Diet
from finetune.recipe import Evaluation, Part, Recipe, load_recipe, parse_recipe
from finetune.run import run
from finetune.stages import multitask, vision
from finetune.stages.reading import Reading, Start
from finetune.training.merge import average
from finetune.training.trainer import Group, Log, Objective, Result, Stopped, Trainer, Work, rate

ALL = ["tower", "projector", "decoder"]


def recipe(model: Path, **stages: dict[str, object]) -> Recipe:
    small = {"steps": 1, "lr": 1e-3, "muon_lr": 0.01, "dense": 1.0, "media": "pictures", "things": 1}
    return parse_recipe(
        {"model": {"path": str(model)}, "threads": 1, **{name: {**small, **table} for name, table in stages.items()}}
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new") / "keye-nano"
    new_checkpoint(folder, seed=5)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def moved(before: Path, after: Path) -> set[str]:
    old, new = weights(before), weights(after)
    assert set(old) == set(new)
    return {name.split(".")[0] for name in old if not torch.equal(old[name], new[name])}


def test_each_stage_moves_what_it_names_and_nothing_else(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    plan = recipe(
        model,
        stage0={"kind": "vision"},
        stage1={"kind": "alignment"},
        stage2={"kind": "multitask", "steps": 1, "first": {"train": ["projector", "decoder"]}, "second": {}},
        stage3={"kind": "annealing", "fall": "linear", "a": {}, "b": {"mixture": {"colour": 5.0}}},
    )
    last = run(plan, out)
    readers = {"mlp_AR", "model", "lm_head"}
    assert moved(model, out / "stage0/model") == {"visual"}
    assert moved(out / "stage0/model", out / "stage1/model") == {"mlp_AR"}
    assert moved(out / "stage1/model", out / "stage2/first/model") == readers
    assert moved(out / "stage2/first/model", out / "stage2/second/model") == {"visual", *readers}
    assert (out / "stage2/model").resolve() == (out / "stage2/second/model").resolve()
    assert last == out / "stage3/model"
    a, b, both = (weights(out / "stage3" / name) for name in ("a/model", "b/model", "model"))
    assert moved(out / "stage3/a/model", out / "stage3/b/model")
    for name, value in both.items():
        torch.testing.assert_close(value, (a[name] + b[name]) / 2)
    load_model(last)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    names = ["stage0", "stage1", "stage2.first", "stage2.second", "stage3.a", "stage3.b"]
    assert [line["stage"] for line in lines] == names
    assert json.loads((out / "stage1/done.json").read_text())["steps"] == 1
    with pytest.raises(FinetuneError, match=r"stage1 has ended .* \(lr\).*--from stage1"):
        run(recipe(model, stage1={"kind": "alignment", "lr": 0.5}), out)
    with pytest.raises(FinetuneError, match="stage5"):
        run(plan, out, begin="stage5")


def test_stages_that_would_not_be_the_reports_are_refused(model: Path, tmp_path: Path) -> None:
    for name, stage in {
        "alone": {"kind": "alignment", "train": ALL},
        "tower": {"kind": "vision", "train": ALL},
        "fall": {"kind": "annealing"},
    }.items():
        with pytest.raises(FinetuneError, match=name):
            run(recipe(model, stage=stage), tmp_path / name)
    nothing = parse_recipe({"stage1": {"kind": "alignment", "steps": 1}})
    with pytest.raises(FinetuneError, match="--model"):
        run(nothing, tmp_path / "none")


def start(model: Path, seed: str = "s", rank: int = 0, processes: int = 1) -> Start:
    loaded = load_model(model, torch.float32).train()
    return Start(loaded, KeyeProcessor.from_pretrained(model), model, None, seed, rank, processes)


def trainer(model: Path, folder: Path, steps: int, **numbers: object) -> Trainer:
    part = Part(steps=steps, muon_lr=0.01, media="pictures", things=1, warmup=2, dense=1.0, **numbers)  # type: ignore[arg-type]
    work = multitask.work(start(model), part)
    return Trainer("stage2", part, work, folder, Accelerator(cpu=True), Log(folder.parent / "log.jsonl"))


class After:
    """An event that is set after so many looks."""

    def __init__(self, looks: int) -> None:
        self.left = looks

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


def test_a_part_that_was_stopped_goes_on_as_if_it_had_not_been(model: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    whole = trainer(model, tmp_path / "whole", 4)
    whole.run(After(99))  # type: ignore[arg-type]
    first = trainer(model, tmp_path / "parts", 4)
    with pytest.raises(Stopped):
        first.run(After(2))  # type: ignore[arg-type]
    second = trainer(model, tmp_path / "parts", 4)
    assert second.progress.step == 2
    second.run(After(99))  # type: ignore[arg-type]
    assert second.progress.examples == whole.progress.examples
    for name, value in whole.raw.state_dict().items():
        assert torch.equal(value, second.raw.state_dict()[name]), name
    other = Part(steps=4, train=("projector",), media="pictures")
    with pytest.raises(FinetuneError, match="cannot be gone on with"):
        Trainer("x", other, multitask.work(start(model), other), tmp_path / "parts", Accelerator(cpu=True), first.log)


def test_accumulated_batches_are_one_large_batch(model: Path, tmp_path: Path) -> None:
    """Tokens count the same, whichever batch they stand in: the gradient of two unequal batches by hand."""
    begun = start(model)
    source = multitask.work(begun, Part(steps=1, media="pictures", things=1)).source
    batches = [source.make(0), source.make(1)]
    assert source.learnt(batches[0]) != source.learnt(batches[1])
    objective = Reading(begun.model, None, 0.0)
    sums = [objective(batch).loss for batch in batches]
    (sum(sums) / sum(source.learnt(b) for b in batches)).backward()
    wanted = {n: p.grad.clone() for n, p in begun.model.named_parameters() if p.grad is not None}
    taken: dict[str, torch.Tensor] = {}
    part = Part(steps=1, accumulate=2, clip=1e9, media="pictures", things=1, lr=0.0)
    fresh = start(model)
    work = multitask.work(fresh, part)
    loop = Trainer("x", part, work, tmp_path, Accelerator(cpu=True), Log(tmp_path / "log"))
    clip = loop.accelerator.clip_grad_norm_

    def watch(parameters: list[torch.nn.Parameter], norm: float) -> torch.Tensor:
        taken.update({n: p.grad.clone() for n, p in fresh.model.named_parameters() if p.grad is not None})
        return clip(parameters, norm)

    loop.accelerator.clip_grad_norm_ = watch  # type: ignore[method-assign]
    loop.run(After(99))  # type: ignore[arg-type]
    assert set(taken) == set(wanted) and len(wanted) > 100
    for name, value in wanted.items():
        torch.testing.assert_close(taken[name], value, rtol=1e-4, atol=1e-6)


class Slope(Objective):
    """One number w with loss w²·n/2 − n·w·x summed over x; a NaN among the x spoils the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(1, 1, bias=False)

    def forward(self, batch: torch.Tensor) -> Result:
        w = self.inner.weight.squeeze()
        return Result((0.5 * (w - batch) ** 2).sum(), w.new_zeros(()), {})


class Numbers:
    steps = 3

    def __init__(self, batches: list[list[float]]) -> None:
        self.batches = batches

    def make(self, number: int) -> torch.Tensor:
        return torch.tensor(self.batches[number % len(self.batches)])

    def learnt(self, batch: torch.Tensor) -> int:
        return len(batch)

    def size(self, batch: torch.Tensor) -> tuple[int, int]:
        return len(batch), len(batch)


def slope(folder: Path, batches: list[list[float]], part: Part) -> Trainer:
    objective = Slope()
    torch.nn.init.constant_(objective.inner.weight, 1.0)
    work = Work(objective, Numbers(batches), [Group({"inner": objective.inner}, part.lr)], lambda path: None)
    return Trainer("slope", part, work, folder, Accelerator(cpu=True), Log(folder.parent / "log.jsonl"))


def test_a_gradient_that_is_no_number_is_left_out_and_many_in_a_row_end_the_run(tmp_path: Path) -> None:
    loop = slope(tmp_path / "one", [[0.0], [float("nan")], [0.0]], Part(steps=3, lr=0.1))
    progress = loop.run(After(99))  # type: ignore[arg-type]
    assert (progress.step, progress.skipped) == (3, 1)
    assert 0.7 < float(loop.raw.inner.weight) < 0.9  # type: ignore[union-attr]  # two steps of AdamW at 0.1
    bad = slope(tmp_path / "bad", [[float("nan")]], Part(steps=30, lr=0.1))
    with pytest.raises(FinetuneError, match=r"not been a number for 5 steps.*lower slope\.lr"):
        bad.run(After(99))  # type: ignore[arg-type]
    assert float(bad.raw.inner.weight) == 1.0  # type: ignore[union-attr]


def test_epochs_count_the_data_that_ends(tmp_path: Path) -> None:
    assert slope(tmp_path / "a", [[1.0]], Part(epochs=2)).steps == 6
    with pytest.raises(FinetuneError, match="nothing to do"):
        slope(tmp_path / "b", [[1.0]], Part())


def test_a_full_disk_stops_with_the_state_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = slope(tmp_path / "run", [[0.0]], Part(steps=2, lr=0.1))
    loop.save()
    kept = loop.state_file.read_bytes()

    def full(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(FinetuneError, match=r"No space left.*make room.*before it is kept"):
        loop.run(After(99))  # type: ignore[arg-type]
    assert loop.state_file.read_bytes() == kept and not list(tmp_path.glob("run/*.part"))


@pytest.mark.parametrize(
    ("part", "step", "factor"),
    [
        (Part(warmup=50), 0, 0.02),
        (Part(warmup=50), 49, 1.0),
        (Part(), 999, 1.0),
        (Part(fall="linear"), 500, 0.5),
        (Part(fall="linear", floor=0.2), 500, 0.6),
        (Part(fall="cosine"), 250, 0.85355),
        (Part(fall="cosine", floor=0.1), 1000, 0.1),
        (Part(warmup=100, fall="linear"), 49, 0.5 * 0.951),
    ],
)
def test_the_rate_rises_and_falls(part: Part, step: int, factor: float) -> None:
    assert rate(part, step, 1000) == pytest.approx(factor, abs=1e-5)


def test_an_average_is_the_average_and_other_models_are_refused(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    new_checkpoint(other, seed=6)
    a, b = weights(model), weights(other)
    merged = weights(average([model, other], tmp_path / "merged", [0.25, 0.75]))
    for name, value in merged.items():
        torch.testing.assert_close(value, 0.25 * a[name] + 0.75 * b[name])
    with pytest.raises(FinetuneError, match="add up to 1"):
        average([model, other], tmp_path / "x", [0.5, 0.4])
    golden = Path(__file__).parents[1] / "golden" / "A"
    with pytest.raises(FinetuneError, match="differ in"):
        average([model, golden], tmp_path / "x")
    assert not (tmp_path / "x").exists()


COMMAND = [sys.executable, "-m", "finetune", "run"]


def test_a_killed_run_of_two_processes_goes_on_to_the_same_weights(model: Path, tmp_path: Path) -> None:
    """`kill -9` in the middle, then the same command: bit for bit what an undisturbed run gives."""
    path = tmp_path / "two.toml"
    path.write_text(
        'processes = 2\nthreads = 1\n[stage2]\nkind = "multitask"\nmuon_lr = 0.01\nsteps = 6\ndense = 1.0\n'
        'things = 1\n[stage2.pictures]\nmedia = "pictures"\n[stage2.videos]\nsteps = 2\n'
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def command(out: str) -> list[str]:
        store = str(tmp_path / f"{out}.sqlite")
        return [*COMMAND, str(path), "--model", str(model), "--out", str(tmp_path / out), "--store", store]

    subprocess.run(command("whole"), check=True, env=environment, capture_output=True)
    killed = subprocess.Popen(command("killed"), env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    while not (tmp_path / "killed/stage2/pictures/done.json").exists() and killed.poll() is None:
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed/stage2/videos/done.json").exists()
    subprocess.run(command("killed"), check=True, env=environment, capture_output=True)
    whole, again = (weights(tmp_path / name / "stage2/videos/model") for name in ("whole", "killed"))
    for name, value in whole.items():
        assert torch.equal(value, again[name]), name


def test_a_run_that_is_asked_to_stop_saves_first(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "long.toml"
    path.write_text('processes = 2\nthreads = 1\n[stage1]\nkind = "alignment"\nsteps = 5000\nmedia = "pictures"\n')
    store = tmp_path / "studio.sqlite"
    command = [*COMMAND, str(path), "--model", str(model), "--out", str(tmp_path / "run"), "--store", str(store)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    while not (tmp_path / "run/log.jsonl").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130 and "give the same command to go on" in told
    state = torch.load(tmp_path / "run/stage1/state.pt", weights_only=True)
    assert 25 <= state["progress"]["step"] < 5000
    runs = Runs(store)
    (kept,) = runs.list()
    assert kept.status == "stopped" and [stage.name for stage in runs.stages(kept.id)] == ["stage1"]
    assert [m.step for m in runs.metrics(kept.id)][:1] == [25]
    runs.close()


def test_two_processes_take_the_gradient_of_one_with_both_batches(model: Path, tmp_path: Path) -> None:
    """Mixed batches: at one step a process has pictures and the other a clip; at another one has no medium at all.
    Both end with the gradient of the two batches together, and neither waits for ever."""
    torch.multiprocessing.spawn(_member, (str(model), str(tmp_path)), 2)  # type: ignore[no-untyped-call]
    for case in range(2):
        begun = start(model)
        batches = _mixed(begun, case)
        objective = Reading(begun.model, None, 0.0)
        total = sum(int((b.labels != -100).sum()) for b in batches)
        for batch in batches:
            (objective(batch).loss / total).backward()
        for rank in range(2):
            got = torch.load(tmp_path / f"{case}-{rank}.pt", weights_only=True)
            assert set(got) == {n for n, p in begun.model.named_parameters() if p.requires_grad}
            for name, p in begun.model.named_parameters():
                wanted = torch.zeros_like(p) if p.grad is None else p.grad
                assert float((got[name] - wanted).abs().max()) <= 1e-5, (case, rank, name)


def _mixed(begun: Start, case: int) -> list[object]:
    source = Batches(begun.model.position_rule(), begun.processor, "mixed")
    pictures = source.make(3, Diet(still=True, things=1))
    other = (
        source.make(4, Diet(still=False, things=1))
        if case == 0
        else source._talk(random.Random(1), Diet(still=False, things=1))
    )
    return [pictures, other]


def _member(rank: int, model: str, out: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.distributed.init_process_group("gloo", init_method=f"file://{out}/meeting", rank=rank, world_size=2)
    for case in range(2):
        begun = start(Path(model))
        batch = _mixed(begun, case)[rank]
        part = Part(steps=1, clip=1e9, lr=0.0)
        work = multitask.work(begun, part)
        work.source.make = lambda number, batch=batch: batch  # type: ignore[method-assign]
        loop = Trainer("x", part, work, Path(out) / f"{case}", Accelerator(cpu=True), Log(Path(out) / f"log{rank}"))
        assert loop.accelerator.num_processes == 2
        taken: dict[str, torch.Tensor] = {}

        def watch(parameters: object, norm: float, taken: dict = taken, begun: Start = begun) -> torch.Tensor:
            taken.update({n: p.grad.clone() for n, p in begun.model.named_parameters() if p.grad is not None})
            return torch.tensor(1.0)

        loop.accelerator.clip_grad_norm_ = watch  # type: ignore[method-assign]
        loop.run(After(99))  # type: ignore[arg-type]
        torch.save(taken, f"{out}/{case}-{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_stage_0_finds_the_text_of_a_picture(model: Path, tmp_path: Path) -> None:
    """After some steps on the same few pictures each finds its own text, and the folder encodes them alone."""
    begun = start(model)
    part = Part(steps=60, lr=3e-3, muon_lr=0.02, train=("tower",), contrastive=1.0)
    work = vision.work(begun, part)
    batch = work.source.make(1)
    keep = [i for i in range(len(batch.grid)) if not (batch.texts[i] == batch.texts[:i]).all(1).any()]
    assert len(keep) >= 4
    work.source.make = lambda number: batch  # type: ignore[method-assign]
    Trainer("stage0", part, work, tmp_path / "stage0", Accelerator(cpu=True), Log(tmp_path / "log")).run(After(99))  # type: ignore[arg-type]
    work.save(tmp_path / "stage0")
    encoder = vision.load_encoder(tmp_path / "stage0")
    tokenizer = begun.processor.tokenizer
    texts = [tokenizer.decode([t for t in row.tolist() if t != tokenizer.pad_token_id]) for row in batch.texts]
    words = encoder.text_features(texts)
    pieces = batch.pixels.split([int(g.prod()) for g in batch.grid])
    with torch.no_grad():
        features = begun.model.visual(torch.cat(pieces), batch.grid)
        images = work.objective.beside.images(features, batch.grid)  # type: ignore[union-attr]
    torch.testing.assert_close(images.norm(dim=1), torch.ones(len(images)))
    found = (images @ words.T).argmax(1)
    assert sum(texts[f] == texts[i] for i, f in enumerate(found)) >= 0.9 * len(texts)
    pictures = [np.full((56, 84, 3), 90, np.uint8), np.zeros((112, 112, 3), np.uint8)]
    assert encoder.image_features(pictures).shape == (2, 128)
    with pytest.raises(FinetuneError, match="not the folder of a finished stage 0"):
        vision.load_encoder(model)


def test_nano_toml_runs_from_random_weights(tmp_path: Path) -> None:
    """The committed recipe itself, with steps of one."""
    file = Path(__file__).parents[2] / "recipes/nano.toml"
    said = [f"{stage.name}.steps=1" for stage in load_recipe(file).stages]
    last = run(load_recipe(file, [*said, "processes=1", "evaluate.clips=0", "evaluate.final=0"]), tmp_path / "nano")
    assert load_model(last).config.hidden_size == 192


def test_each_stage_is_measured_on_held_out_clips(model: Path, tmp_path: Path) -> None:
    plan = recipe(model, stage1={"kind": "alignment"})
    run(dataclasses.replace(plan, evaluate=Evaluation(clips=1, final=1)), tmp_path / "run")
    released = tmp_path / "run/release"
    assert set(weights(released)) == set(weights(tmp_path / "run/stage1/model"))
    assert {value.dtype for value in weights(released).values()} == {torch.bfloat16}
    assert "| stage1 |" in (released / "README.md").read_text()
    assert (tmp_path / "run/report.html").is_file()
    facts = json.loads((tmp_path / "run/stage1/evaluation.json").read_text())
    assert facts["clips"] == 1 and facts["mean_of_kinds"]["accuracy"] < 0.5 and len(facts["kinds"]) > 8
