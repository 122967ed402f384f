"""The stages before fine-tuning on a user's own files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from engine.keye import KeyeProcessor, load_model
from engine.pictures import read_picture
from engine.video import Clip, sample, sampling_for
from finetune.errors import FinetuneError
from finetune.nano.shape import new_checkpoint
from finetune.recipe import Recipe, parse_recipe
from finetune.run import run
from finetune.stages import vision
from finetune.stages.reading import Start
from finetune.training.losses import siglip_loss

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "assets" / "demo"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new") / "keye-nano"
    new_checkpoint(folder, seed=5)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    rows = []
    for n, clip in enumerate(sorted(DEMO.glob("*.mp4"))[:3]):
        (folder / clip.name).symlink_to(clip)
        turns = [{"role": "user", "content": "<video>What?"}, {"role": "assistant", "content": f"Number {n}."}]
        rows.append({"messages": turns, "videos": [{"path": clip.name, "max_frames": 2 + n, "budget": 64}]})
    frame = sample(Clip(DEMO / "heart-and-cross.mp4"), sampling_for(ROOT / "assets" / "keye-nano")).images[0]
    Image.fromarray(frame).save(folder / "frame.png")
    turns = [{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "A red heart."}]
    rows.append({"messages": turns, "images": ["frame.png"]})
    rows.append({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]})
    path = folder / "talks.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def recipe(model: Path, data: Path, **stages: dict[str, object]) -> Recipe:
    small = {"steps": 2, "lr": 1e-3, "data": [str(data)], "cache": str(data.parent / "frames")}
    tables = {name: {**small, **table} for name, table in stages.items()}
    return parse_recipe({"model": {"path": str(model)}, "threads": 1, **tables})


def moved(before: Path, after: Path) -> set[str]:
    old, new = (load_file(folder / "model.safetensors") for folder in (before, after))
    return {name.split(".")[0] for name in old if not torch.equal(old[name], new[name])}


def test_every_stage_learns_from_files_what_it_names(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    readers = {"mlp_AR", "model", "lm_head"}
    plan = recipe(
        model,
        data,
        stage0={"kind": "vision"},
        stage1={"kind": "alignment"},
        stage2={"kind": "multitask", "train": ["projector", "decoder"]},
        stage3={"kind": "annealing", "fall": "linear", "a": {}, "b": {"lr": 2e-3}},
    )
    run(plan, out)
    assert moved(model, out / "stage0/model") == {"visual"}
    assert moved(out / "stage0/model", out / "stage1/model") == {"mlp_AR"}
    assert moved(out / "stage1/model", out / "stage2/model") == readers
    assert moved(out / "stage2/model", out / "stage3/model") == {"visual", *readers}
    facts = json.loads((out / "stage0" / "data.json").read_text())
    assert facts["learnt"] == 4 and facts["left_out"]["counts"] == {"does not show one picture or clip": 1}
    assert json.loads((out / "stage2" / "data.json").read_text())["learnt"] == 5


def test_stage_0_sees_the_files_and_reads_their_texts(model: Path, data: Path) -> None:
    (part,) = recipe(model, data, stage0={"kind": "vision"}).stages[0].parts.values()
    loaded, processor = load_model(model, torch.float32), KeyeProcessor.from_pretrained(model)
    work = vision.work(Start(loaded, processor, model, None, "s", 0, 1), part)
    batch = work.source.make(0)
    sampling = sampling_for(model)
    clips = enumerate(sorted(DEMO.glob("*.mp4"))[:3])
    shown = [sample(Clip(clip), sampling.with_limits(max_frames=2 + n, budget=64)).images for n, clip in clips]
    patches = [sum(image.shape[0] * image.shape[1] // 196 for image in images) for images in shown]
    assert sorted(batch.grid.prod(1).tolist()) == sorted([*patches, 64])
    texts = [
        processor.tokenizer.decode([t for t in row if t != processor.tokenizer.pad_token_id]) for row in batch.texts
    ]
    at = texts.index("A red heart.")
    picture = read_picture(data.parent / "frame.png", "frame", "dropped")
    wanted = processor.image_processor(images=[picture], return_tensors="pt")["pixel_values"]
    start = int(batch.grid.prod(1)[:at].sum())
    assert torch.equal(batch.pixels[start : start + len(wanted)], wanted)
    # the loss is SigLIP's on the vectors that the two towers give
    beside = work.objective.beside
    images = beside.images(loaded.visual(batch.pixels, batch.grid), batch.grid)
    value = siglip_loss(images, beside.sentences(batch.texts), beside.scale.exp(), beside.bias)
    assert float(work.objective(batch).loss.detach()) == pytest.approx(
        float(value.detach()) * 4 * part.contrastive, rel=1e-5
    )


def test_dense_questions_need_a_world_that_is_known(model: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match="dense = 0"):
        run(recipe(model, data, stage0={"kind": "vision", "dense": 1.0}), tmp_path / "run")
