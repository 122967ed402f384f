"""MPO on files of pairs and on the world: the loss before the first step, what is computed once, what it teaches, and
that a stopped run goes on as if it had not been stopped."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from engine.keye import KeyeProcessor, load_model
from finetune.errors import FinetuneError
from finetune.recipe import Part, parse_recipe
from finetune.run import run
from finetune.stages import mpo, preferring
from finetune.stages.preferring import PairBatch, Preferring
from finetune.stages.reading import Start
from finetune.training.trainer import Log, Stopped, Trainer

ROOT = Path(__file__).resolve().parents[2]
NANO, DEMO = ROOT / "assets" / "keye-nano", ROOT / "assets" / "demo"
CLIPS = sorted(clip.name for clip in DEMO.glob("*.mp4"))
LIMITS = {"max_frames": 2, "budget": 24}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [
        {
            "messages": [{"role": "user", "content": f"<video>{question}"}],
            "videos": [{"path": str(DEMO / clip), **LIMITS}],
            "chosen": "Three.",
            "rejected": "Two.",
        }
        for clip in CLIPS[:4]
        for question in ("Which shelf is it on?", "Where do I find this?")
    ]
    rows.append({"messages": [{"role": "user", "content": "Hello there"}], "chosen": "No.", "rejected": "Hello."})
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def part(data: Path, **more: Any) -> Part:
    given = {"lr": 1e-3, "batch_tokens": 400, "cache": str(data.parent / "frames"), "lora": 0, **more}
    return Part(data=(str(data),), **given)


def start(out: Path | None = None, seed: str = "s") -> Start:
    model: Any = load_model(NANO, torch.float32).train()
    return Start(model, KeyeProcessor.from_pretrained(NANO), NANO, None, seed, 0, 1, out)


class After:
    """An event that is set after so many looks."""

    def __init__(self, looks: int) -> None:
        self.left = looks

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


NEVER = threading.Event()


def trainer(folder: Path, numbers: Part) -> Trainer:
    work = mpo.work(start(folder), numbers)
    return Trainer("mpo", numbers, work, folder, Accelerator(cpu=True), Log(folder.parent / "log.jsonl"))


@pytest.mark.parametrize("lora", [0, 4])
def test_before_the_first_step_the_loss_is_known(data: Path, lora: int) -> None:
    """Nothing has moved: preference ln 2, quality 2·ln 2, and the chosen answers' own likelihood, computed here by the
    model's forward on each conversation alone."""
    begun = start()
    plain: Any = load_model(NANO, torch.float32)
    work = mpo.work(begun, part(data, lora=lora, epochs=1.0))
    source: Any = work.source
    seen = 0
    for number in range(source.steps):
        batch: PairBatch = source.make(number)
        result = work.objective(batch)
        rows = [source.rows[i] for i in source._rows_of(number)]
        likelihood = 0.0
        for row in rows:
            chosen, _ = source.conversations.pair(row)
            with torch.no_grad():
                logits = plain(
                    input_ids=chosen.input_ids[None], position_ids=chosen.position_ids[:, None],
                    pixel_values_videos=chosen.pixel_values_videos, video_grid_thw=chosen.video_grid_thw,
                ).logits[0, :-1]  # fmt: skip
            likelihood -= float(torch.nn.functional.cross_entropy(logits, chosen.labels[1:], ignore_index=-100))
        wanted = len(rows) * (0.8 * math.log(2) + 0.2 * 2 * math.log(2)) - likelihood
        assert float(result.loss) == pytest.approx(wanted, rel=1e-4)
        assert batch.learnt == len(rows)
        seen += len(rows)
    assert seen == 9


def test_each_clip_is_decoded_once_and_each_pair_seen_once(data: Path) -> None:
    begun = start()
    patches: list[int] = []
    begun.model.visual.register_forward_hook(lambda module, args, out: patches.append(len(args[0])))
    work = mpo.work(begun, part(data, epochs=1.0))
    source: Any = work.source
    of_reference, once = sum(patches), 0
    patches.clear()
    for number in range(source.steps):
        batch = source.make(number)
        calls = len(patches)
        work.objective(batch)
        assert len(patches) == calls + 1
        once += sum(
            len(source.conversations.pair(source.rows[i])[0].pixel_values_videos)
            for i in source._rows_of(number)
            if source.rows[i].media
        )
    assert sum(n for n in patches if n > 4) == once  # four stand for nothing to see
    assert of_reference in (once, once + 4)
    assert source.conversations.frames.misses == 4  # clips, each asked about twice, by reference and training


def test_what_is_preferred_is_answered(data: Path, tmp_path: Path) -> None:
    loop = trainer(tmp_path / "run", part(data, epochs=8.0, lr=2e-3, batch_tokens=2000))
    source: Any = loop.work.source
    objective = loop.raw
    assert isinstance(objective, Preferring)
    with torch.no_grad():
        before = float(objective(source._make(range(9))).loss) / 9
    loop.run(NEVER)
    with torch.no_grad():
        after = objective(source._make(range(9)))
    assert after.scores["preferred"] == (9, 9)
    assert float(after.loss) / 9 < 0.5 * before


@pytest.mark.parametrize("lora", [0, 4])
def test_a_stopped_part_goes_on_as_if_it_had_not_been(data: Path, tmp_path: Path, lora: int) -> None:
    numbers = part(data, steps=6, lora=lora, accumulate=2)
    whole = trainer(tmp_path / "whole", numbers)
    whole.run(NEVER)
    with pytest.raises(Stopped):
        trainer(tmp_path / "parts", numbers).run(After(3))  # type: ignore[arg-type]
    second = trainer(tmp_path / "parts", numbers)
    assert second.progress.step == 3
    assert float(second.raw.get_buffer("counted")) > 0
    second.run(NEVER)
    for name, value in whole.raw.state_dict().items():
        assert torch.equal(value, second.raw.state_dict()[name]), name
    assert float(whole.raw.get_buffer("total")) != 0


def test_the_shift_is_the_mean_of_all_rewards_so_far() -> None:
    objective = Preferring(torch.nn.Linear(1, 1), 0.1)  # type: ignore[arg-type]
    assert float(objective._shift(torch.tensor([[1.0, -0.5]]), True)) == pytest.approx(0.25)
    assert float(objective._shift(torch.tensor([[2.0, 1.5], [1.0, 1.0]]), False)) == pytest.approx(6.0 / 6)
    assert float(objective._shift(torch.tensor([[4.0, 2.0]]), True)) == pytest.approx(3.0)


def test_the_reference_is_computed_once_and_gone_on_with(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole: Any = mpo.work(start(tmp_path / "whole"), part(data, epochs=1.0)).source
    asked: list[int] = []
    once = preferring._of_rows

    def killed(model: Any, rows: Any, conversations: Any, chosen: list[int]) -> torch.Tensor:
        if len(asked) >= 4 and not again:
            raise KeyboardInterrupt
        asked.extend(chosen)
        return once(model, rows, conversations, chosen)

    again = False
    monkeypatch.setattr(preferring, "_of_rows", killed)
    monkeypatch.setattr(preferring, "SAVE_SECONDS", -1.0)
    with pytest.raises(KeyboardInterrupt):
        mpo.work(start(tmp_path / "parts"), part(data, epochs=1.0))
    again = True
    parts: Any = mpo.work(start(tmp_path / "parts"), part(data, epochs=1.0)).source
    assert sorted(asked) == list(range(9))  # none twice
    assert torch.equal(whole.reference, parts.reference) and bool(whole.reference.isfinite().all())
    asked.clear()
    mpo.work(start(tmp_path / "parts"), part(data, epochs=1.0))
    assert not asked
    with data.open("a") as file:  # other pairs: another reference
        file.write(json.dumps({"messages": [{"role": "user", "content": "Hi"}], "chosen": "A", "rejected": "B"}) + "\n")
    mpo.work(start(tmp_path / "parts"), part(data, epochs=1.0))
    assert sorted(asked) == list(range(10))


def test_a_clip_that_breaks_is_left_out(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.loads(line) for line in data.read_text().splitlines()]
    clip = tmp_path / "broken.mp4"
    clip.write_bytes((DEMO / CLIPS[0]).read_bytes())
    lines[0]["videos"][0]["path"] = str(clip)
    data.write_text("".join(json.dumps(row) + "\n" for row in lines))
    numbers = part(data, epochs=1.0)
    mpo.work(start(), numbers)  # checked and remembered
    clip.write_bytes(b"\0" * 5000)
    (tmp_path / "elsewhere").mkdir()
    source: Any = mpo.work(start(), numbers).source
    batches = [source.make(n) for n in range(source.steps)]
    assert sum(batch.learnt for batch in batches) == 8


def test_the_world_prefers_its_truth_to_what_the_model_says(tmp_path: Path) -> None:
    world = {"steps": 3, "lr": 1e-4, "questions": 2, "samples": 4, "answer_tokens": 12, "modes": ["auto"]}
    world |= {"media": "pictures", "temperature": 2.0}
    recipe = parse_recipe({"model": {"path": str(NANO)}, "threads": 1, "mpo": {"kind": "mpo", **world}})
    last = run(recipe, tmp_path / "run")
    load_model(last)
    told = json.loads((tmp_path / "run" / "mpo" / "data.json").read_text())["rounds"]
    assert told[0]["asked"] == 6
    pairs = json.loads((tmp_path / "run" / "mpo" / "round-0-0.json").read_text())["pairs"]
    assert pairs and len(pairs) + told[0]["same"] == 6
    assert all(pair["chosen"] != pair["rejected"] for pair in pairs)
    with pytest.raises(FinetuneError, match="knows answers and no thoughts"):
        run(
            parse_recipe({"model": {"path": str(NANO)}, "mpo": {"kind": "mpo", **world, "modes": ["think"]}}),
            tmp_path / "x",
        )
