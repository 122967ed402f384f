"""What training will take: parameters against the published tensors, operations against torch's own counter, memory
against values worked by hand, and the published recipe against the report."""

from __future__ import annotations

import json
import math
import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from engine.errors import EngineError
from engine.keye import KeyeConfig, KeyeForConditionalGeneration
from engine.keye.loading import load_config
from finetune.__main__ import main
from finetune.errors import FinetuneError
from finetune.nano.shape import nano_config
from finetune.nano.tokenizer import train_tokenizer
from finetune.packing.packed import PackedBatch
from finetune.packing.packed import forward as packed
from finetune.planning.costs import (
    Example,
    Forward,
    Item,
    TextTower,
    forward,
    generated,
    lora_parameters,
    packed_forward,
    parameters,
    roles,
)  # fmt: skip
from finetune.planning.memory import Batch, memory
from finetune.planning.plan import make_plan, plan_text, provenance
from finetune.recipe import Part, load_recipe, parse_recipe

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
PAPER = ROOT / "recipes" / "paper.toml"


@pytest.fixture(scope="module")
def big() -> KeyeConfig:
    return load_config(GOLDEN / "keye-vl-8b-preview")


@pytest.fixture(scope="module")
def nano() -> KeyeForConditionalGeneration:
    fields_ = {k: v for k, v in nano_config(train_tokenizer()).items() if k not in ("model_type", "dtype")}
    config = KeyeConfig(**fields_)
    config._attn_implementation = "eager"  # the counter knows matrix products, but not the processor's fused kernel
    config.vision._attn_implementation = "eager"
    return KeyeForConditionalGeneration(config).float()


# -- parameters -------------------------------------------------------------------------------------------------


def test_parameters_are_those_of_the_854_published_tensors(big: KeyeConfig) -> None:
    shapes = json.loads((GOLDEN / "keye_vl_8b_preview_state_dict.json").read_text("utf-8"))
    assert len(shapes) == 854

    def count(*starts: str) -> int:
        return sum(math.prod(shape) for name, shape in shapes.items() if name.startswith(starts))

    unused = ("visual.vision_model.head.", "visual.vision_model.embeddings.packing_position_embedding.")
    found = parameters(big)
    assert found.published == count("") == 8_696_828_736
    assert found.unused == count(*unused)
    assert found.tower == count("visual.") - count(*unused)
    assert found.projector == count("mlp_AR.")
    assert found.embeddings == count("model.embed_tokens.") and found.output == count("lm_head.")
    assert found.decoder == count("model.") - count("model.embed_tokens.")


@pytest.mark.parametrize("name", ["A", "B", "A15"])
def test_parameters_of_other_sizes_are_those_of_the_built_model(name: str) -> None:
    config = load_config(GOLDEN / name)
    with torch.device("meta"):
        from engine.keye.loading import _CLASSES

        model = _CLASSES[json.loads((GOLDEN / name / "config.json").read_text("utf-8"))["model_type"]][1](config)
    assert parameters(config).built == sum(p.numel() for p in model.parameters())


# -- operations -------------------------------------------------------------------------------------------------


def counted(work: object) -> int:
    assert callable(work)
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@pytest.mark.parametrize("grids", [[(1, 8, 8)], [(8, 8, 8)], [(1, 8, 8), (6, 4, 8), (2, 10, 8)]])
def test_operations_of_a_forward_pass_are_those_that_torch_counts(
    nano: KeyeForConditionalGeneration, grids: list[tuple[int, int, int]]
) -> None:
    config = nano.config
    text = 40
    grid = torch.tensor(grids)
    visual = int(grid.prod(1).sum()) // 4
    ids = torch.randint(0, 900, (1, text + visual))
    ids[0, 4 : 4 + visual] = config.video_token_id
    positions = torch.arange(text + visual).expand(3, 1, -1)
    pixels = torch.randn(visual * 4, 3, 14, 14)
    items = tuple(Item(t, h * w) for t, h, w in grids)
    with torch.no_grad():
        found = counted(
            lambda: nano(
                input_ids=ids, position_ids=positions, pixel_values_videos=pixels, video_grid_thw=grid, use_cache=False
            )
        )
    # all tokens get logits here, and eager attention computes the masked half of the scores
    expected = forward(config, [Example(text, items, text + visual)], causal=False)
    assert expected.total == pytest.approx(found, rel=0.02)


@pytest.mark.parametrize("with_clip", [True, False])
def test_operations_of_a_packed_batch_are_those_that_torch_counts(
    nano: KeyeForConditionalGeneration, with_clip: bool
) -> None:
    clips, rows, row, prefix, patches = 3, 4, 32, 30, 64
    ids = torch.zeros(clips, prefix, dtype=torch.long)
    if with_clip:
        ids[:, 5 : 5 + patches // 4] = nano.config.image_token_id
    labels = torch.full((clips, rows, row), -100)
    labels[:, :, ::3] = 1
    batch = PackedBatch(
        ids,
        torch.arange(prefix).expand(3, clips, -1),
        torch.zeros(clips, rows, row, dtype=torch.long),
        torch.arange(row).expand(clips, rows, -1) + prefix,
        torch.zeros(clips, rows, row, dtype=torch.long),
        labels,
        torch.randn(clips * patches, 3, 14, 14) if with_clip else None,
        torch.tensor([[1, 8, 8]] * clips) if with_clip else None,
        [],
        torch.full((clips, rows, row), -1),
    )
    learnt = int((labels != -100).sum())
    items = [Item(1, patches)] * clips if with_clip else []
    expected = packed_forward(nano.config, items, clips, prefix, rows, row, learnt)
    with torch.no_grad():
        assert expected.total == pytest.approx(counted(lambda: packed(nano, batch)), rel=0.02)


@pytest.mark.parametrize("train", [("tower", "projector", "decoder"), ("projector", "decoder"), ("projector",)])
def test_operations_of_a_step_are_those_that_torch_counts(
    nano: KeyeForConditionalGeneration, train: tuple[str, ...]
) -> None:
    """Forward and backward: what learns, what a gradient only passes through, and what it never reaches."""
    config = nano.config
    modules = {"tower": nano.visual, "projector": nano.mlp_AR, "decoder": nano.model}
    for name, module in modules.items():
        module.requires_grad_(name in train)
    nano.lm_head.requires_grad_("decoder" in train)
    grid = torch.tensor([[4, 8, 8]])
    ids = torch.randint(0, 900, (1, 120))
    ids[0, 4:68] = config.video_token_id
    positions = torch.arange(120).expand(3, 1, -1)
    pixels = torch.randn(256, 3, 14, 14)

    def step() -> None:
        out = nano(input_ids=ids, position_ids=positions, pixel_values_videos=pixels, video_grid_thw=grid)
        out.logits.sum().backward()

    found = counted(step)
    nano.zero_grad(set_to_none=True)
    nano.requires_grad_(True)
    expected = forward(config, [Example(56, (Item(4, 64),), 120)], causal=False).step(*roles(train))
    assert expected == pytest.approx(found, rel=0.02)


def test_a_token_of_training_costs_six_operations_a_weight(big: KeyeConfig) -> None:
    """The usual rule, on a short text, where attention does not count: matrices of the decoder and its output."""
    held = parameters(big)
    tokens = 100
    cost = forward(big, [Example(tokens)]).step(*roles(("tower", "projector", "decoder")))
    assert cost == pytest.approx(6 * (held.decoder + held.output) * tokens, rel=0.01)
    frozen = forward(big, [Example(tokens)]).step("frozen", "trained", "passed")
    assert frozen == pytest.approx(4 * (held.decoder + held.output) * tokens, rel=0.01)


def test_a_clip_costs_the_tower_the_square_of_its_frames_and_in_1_5_does_not() -> None:
    one, eight = (forward(load_config(GOLDEN / "A"), [Example(0, (Item(n, 64),), 0)]) for n in (1, 8))
    assert eight.tower == 8 * one.tower and eight.tower_attention == 64 * one.tower_attention
    one, eight = (forward(load_config(GOLDEN / "A15"), [Example(0, (Item(n, 64),), 0)]) for n in (1, 8))
    assert eight.tower_attention == 8 * one.tower_attention


def test_roles_follow_the_gradient() -> None:
    assert roles(("tower", "projector", "decoder")) == ("trained", "trained", "trained")
    assert roles(("projector",)) == ("frozen", "trained", "passed")
    assert roles(("decoder",)) == ("frozen", "frozen", "trained")
    assert roles(("tower",)) == ("trained", "passed", "passed")


def test_a_sampled_token_costs_two_operations_a_weight(big: KeyeConfig) -> None:
    held = parameters(big)
    found = generated(big, Example(10), 100)
    assert found.decoder == pytest.approx(2 * (held.decoder + held.output) * 100, rel=0.001)
    # by hand: 36 layers, 4 × 4096 for each earlier token: 100 × 10 of the prompt, 100²/2 of the answer
    assert found.decoder_attention == 36 * 4 * 4096 * (100 * 10 + 5000)


def test_the_text_tower_of_stage_0_is_the_one_that_is_trained(nano: KeyeForConditionalGeneration) -> None:
    from finetune.stages.vision import TEXT_TOKENS, Beside

    width, vocabulary = nano.config.vision.hidden_size, nano.config.vocab_size
    beside = Beside(width, nano.config.vision.num_attention_heads, vocabulary, None)
    tower = TextTower(2, 4 * width, vocabulary, TEXT_TOKENS)
    assert tower.parameters(width) == sum(p.numel() for p in beside.parameters())
    features, grid = torch.randn(6 * 64, width), torch.tensor([[1, 8, 8]] * 6)
    beside.text.config._attn_implementation = "eager"
    ids = torch.zeros(6, TEXT_TOKENS, dtype=torch.long)
    with torch.no_grad():
        found = counted(lambda: (beside.images(features, grid), beside.sentences(ids)))
    assert tower.forward(width, 6, 6 * 64) == pytest.approx(found, rel=0.05)


def test_an_adapter_has_as_many_parameters_as_peft_gives_it(nano: KeyeForConditionalGeneration) -> None:
    seven = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    linears = [m for n, m in nano.model.named_modules() if n.rpartition(".")[2] in seven]
    expected = sum(16 * (m.in_features + m.out_features) for m in linears)  # type: ignore[union-attr, operator]
    assert lora_parameters(nano.config, 16) == expected


# -- memory -----------------------------------------------------------------------------------------------------


def test_memory_by_hand(big: KeyeConfig) -> None:
    """8.64 billion parameters, 64 GPUs, a batch of 8192 tokens with 16384 patches and 2000 logits."""
    batch = Batch(patches=16384, tokens=8192, learnt=2000)
    found = memory(big, ("tower", "projector", "decoder"), batch, 64)
    n = 8_643_841_648
    assert found.weights == found.gradients == pytest.approx(2 * n / 64)  # 270 MB each
    assert found.optimizer == pytest.approx(12 * n / 64)
    # A decoder layer keeps 4×4096 + 3×(4096+1024) + 1024 + 4096 + 4×12288 = 86016 values of 2 bytes a token, a tower
    # layer 8×1152 + 2×4304 = 17824 a patch, the projector 3×1152 a patch.
    layers = 36 * 86016 * 2 * 8192
    tower = 27 * 17824 * 2 * 16384
    assert found.activations == layers + tower + 3 * 1152 * 2 * 16384
    # Kept: the input of every layer, and the larger of one whole decoder layer and one whole tower layer.
    least = 36 * 4096 * 2 * 8192 + 27 * 1152 * 2 * 16384 + 3 * 1152 * 2 * 16384 + 86016 * 2 * 8192
    assert found.checkpointed == least
    assert found.logits == 2000 * 151_936 * 10
    assert found.full == pytest.approx(found.state + found.activations + found.logits)


def test_memory_of_what_does_not_learn(big: KeyeConfig) -> None:
    batch = Batch(16384, 8192, 2000)
    alignment = memory(big, ("projector",), batch, 1)
    assert alignment.weights == 2 * 8_643_841_648 and alignment.optimizer == 12 * 40_119_040
    # the frozen tower keeps nothing; through the frozen decoder a gradient must pass
    assert alignment.activations == 36 * 86016 * 2 * 8192 + 3 * 1152 * 2 * 16384
    stage0 = memory(big, ("tower",), Batch(16384, 0, 0), 1, beside=1000, sees_only=True)
    assert stage0.gradients == 2 * (412_987_248 + 1000) and stage0.logits == 0
    assert stage0.activations == 27 * 17824 * 2 * 16384
    adapter = memory(big, ("tower", "projector", "decoder"), batch, 1, lora=16, four_bit=True)
    rank16 = 36 * 16 * (2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 12288))
    assert adapter.gradients == 2 * rank16
    decoder = 6_946_075_648 + 2 * 622_329_856
    assert adapter.weights == 2 * (412_987_248 + 40_119_040) + decoder / 2 + 2 * rank16
    reference = memory(big, ("decoder",), batch, 1, copies=1)
    assert reference.weights == 2 * 2 * 8_643_841_648


# -- the published recipe ---------------------------------------------------------------------------------------

PUBLISHED: dict[str, tuple[str, dict[str, float]]] = {
    # by part: section of arXiv 2507.01949, and what it says
    "stage0": ("3.2", {"tokens": 500e9}),
    "stage1": ("3.2", {}),
    "stage2": ("3.2", {}),
    "stage3.general": ("3.2", {}),
    "stage3.documents": ("3.2", {}),
    "stage3.video": ("3.2", {}),
    "sft": ("4.1.1", {"examples": 5_000_000, "counts.filtered, of 70 000 kinds of task": 200_000}),
    "mpo": (
        "4.1.2",
        {
            "examples": 580_000,
            "counts.open-source multimodal": 400_000,
            "counts.re-constructed": 50_000,
            "counts.self-improvement": 10_000,
            "counts.text only": 90_000,
            "counts.human": 30_000,
        },
    ),
    "cold_start": (
        "4.2.1",
        {
            "counts.non-reasoning": 330_000,
            "counts.reasoning": 230_000,
            "counts.auto-reasoning": 20_000,
            "counts.agentic": 100_000,
            "counts.video, thinking, 16 frames": 24_000,
            "counts.video, thinking, 32 frames": 24_000,
            "counts.video, direct, 16 frames": 80_000,
            "counts.video, direct, 32 frames": 80_000,
        },
    ),
    "rl": ("4.2.2", {"counts.agentic (DeepEyes)": 47_000}),
    "align": ("4.2.3", {}),
}
SIX = {
    "image caption", "OCR and VQA", "grounding and counting", "interleaved", "video understanding", "pure text",
}  # fmt: skip
"""Section 3.1."""


def paper_parts() -> dict[str, Part]:
    recipe = load_recipe(PAPER)
    return {
        stage.name if name == stage.name else f"{stage.name}.{name}": part
        for stage in recipe.stages
        for name, part in stage.parts.items()
    }


def stated(part: Part) -> dict[str, object]:
    """Every number that a part of the file states, the counts one by one."""
    plain = Part()
    skip = ("ours", "counts", "train", "data", "media", "mixture")
    found = {f.name: getattr(part, f.name) for f in fields(Part) if f.name not in skip}
    found = {name: value for name, value in found.items() if value != getattr(plain, name)}
    return found | {f"counts.{name}": value for name, value in part.counts.items()}


def test_every_number_of_the_paper_recipe_is_the_reports_or_named_ours() -> None:
    parts = paper_parts()
    assert list(parts) == list(PUBLISHED)
    for title, part in parts.items():
        _, published = PUBLISHED[title]
        free = {name: value for name, value in stated(part).items() if name not in part.ours}
        assert free == published, title


def test_each_stage_names_its_section_and_gives_reasons() -> None:
    text = PAPER.read_text("utf-8")
    tables = dict(re.findall(r"^\[(\w+)\]\n((?:(?!\[).*\n|$)*)", text, re.MULTILINE))
    before = {name: text[: text.index(f"\n[{name}]")].rsplit("\n\n", 1)[-1] for name in tables if name != "model"}
    for title, (section, _) in PUBLISHED.items():
        stage = title.partition(".")[0]
        assert section in text, title
        assert "#" in tables[stage] or before[stage].startswith("#"), title


def test_sums_of_the_report() -> None:
    parts = paper_parts()
    assert sum(parts["mpo"].counts.values()) == parts["mpo"].examples == 580_000
    pretraining = [part.tokens for title, part in parts.items() if title[:6] in ("stage1", "stage2", "stage3")]
    assert sum(pretraining) == 600e9  # 3.1: more than that
    cold = parts["cold_start"].counts
    assert sum(count for name, count in cold.items() if "video" not in name) == 680_000
    assert sum(cold.values()) == parts["cold_start"].examples == 680_000 + 2 * (24_000 + 80_000)
    for name, shape in parts["cold_start"].shapes.items():
        if name.startswith("video"):
            assert f"{shape['frames']:.0f} frames" in name
    for title in ("stage2", "stage3.general", "stage3.documents", "stage3.video"):
        assert set(parts[title].shapes) == SIX
    assert set(parts["stage1"].shapes) < SIX


def test_the_plan_of_the_paper(big: KeyeConfig) -> None:
    recipe = load_recipe(PAPER)
    assert (ROOT / recipe.model["path"] / "config.json").read_bytes() == (
        GOLDEN / "keye-vl-8b-preview" / "config.json"
    ).read_bytes()
    plan = make_plan(recipe, gpus=512, gpu="h100", mfu=0.4)
    rows = {row.title: row for row in plan.rows}
    for title in ("stage1", "stage2", "stage3.video"):
        assert rows[title].load.tokens == pytest.approx(rows[title].part.tokens, rel=1e-6)
    assert rows["stage0"].load.tokens == pytest.approx(500e9) and rows["stage0"].load.visual == pytest.approx(500e9)
    assert rows["mpo"].load.examples == 580_000 and rows["cold_start"].load.examples == 888_000
    # by hand: a pair is two sequences of 3 forward passes' worth and 1 of the reference, so about 16·N·T in all
    mpo = rows["mpo"].load
    held = parameters(big)
    assert mpo.training == pytest.approx(16 * (held.decoder + 0.4 * held.output) * mpo.tokens, rel=0.25)
    # stage 2 by the usual rule, 6·N·T, within what tower and attention add
    stage2 = rows["stage2"].load
    assert 6 * 8.19e9 * 500e9 < stage2.training < 1.3 * 6 * 8.19e9 * 500e9
    hours = stage2.training / (512 * 989e12 * 0.4) / 3600
    assert rows["stage2"].hours == pytest.approx(hours)
    twice = make_plan(recipe, gpus=1024, gpu="h100", mfu=0.4)
    assert sum(r.hours for r in twice.rows) == pytest.approx(sum(r.hours for r in plan.rows) / 2)
    assert twice.rows[2].memory.state == pytest.approx(plan.rows[2].memory.state / 2)


def test_the_plan_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(PAPER), "--plan", "--gpus", "512", "--gpu", "h200", "--mfu", "0.35"]) == 0
    text = capsys.readouterr().out
    assert "Nothing has been started." in text and "512 × h200 at 35%" in text
    assert all(len(line) <= 120 for line in text.splitlines())
    for words in (
        "stage3.documents",
        "6·N·T",
        "open-source multimodal 400,000",
        "our choice",
        "agentic (DeepEyes) 47,000",
    ):
        assert words in text
    published, ours = provenance(paper_parts()["rl"])
    assert published == ["agentic (DeepEyes) 47,000"] and "short video 40,000" in ours


def test_the_plan_of_steps_on_the_world() -> None:
    pictures = {"media": "pictures", "things": 1}
    data = {
        "processes": 2,
        "model": {"new": "keye-nano"},
        "stage0": {"kind": "vision", "once": {"steps": 10}, "more": {"steps": 30}},
        "stage2": {
            "kind": "multitask",
            "once": {"steps": 10, **pictures},
            "more": {"steps": 10, "accumulate": 3, **pictures},
        },
    }
    plan = make_plan(parse_recipe(data))
    assert (plan.gpus, plan.gpu) == (2, "core")
    for once, more in (plan.rows[:2], plan.rows[2:]):
        assert more.load.training == pytest.approx(3 * once.load.training)
        assert more.load.tokens == pytest.approx(3 * once.load.tokens)
        assert more.load.examples == pytest.approx(3 * once.load.examples)
        assert once.load.known and 0 < once.load.visual <= once.load.tokens
    # a batch of pictures holds 20, each with three rows of 64 tokens behind it, in each of 10 steps of 2 processes
    batch = plan.rows[2].load.batch
    assert batch.tokens >= 20 * 3 * 64 and 20 * 4 * 8 <= batch.patches <= 20 * 4 * 36
    assert "as the mean of 6 that were made" in plan_text(plan)


def test_the_plan_of_files_of_conversations() -> None:
    data = {
        "model": {"path": "recipes/keye-vl-8b-preview"},
        "sft": {"kind": "sft", "data": [], "epochs": 3, "lora": 16},
    }
    unknown = make_plan(parse_recipe(data), gpus=8)
    assert not unknown.rows[0].load.known and "a step" in plan_text(unknown)
    assert unknown.rows[0].load.tokens == 16384
    data["sft"] |= {"steps": 100, "accumulate": 2}  # type: ignore[operator]
    known = make_plan(parse_recipe({**data, "processes": 8}), gpus=8)
    assert known.rows[0].load.tokens == 100 * 2 * 16384 * 8 and known.rows[0].load.known
    data["sft"] |= {"steps": 0, "examples": 1000, "shapes": {"default": {"patches": 1024, "text": 300}}}  # type: ignore[operator]
    counted_ = make_plan(parse_recipe(data), gpus=8)
    assert counted_.rows[0].load.tokens == 3 * 1000 * (256 + 300)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"gpus": 0}, "--gpus must be"),
        ({"gpu": "abacus"}, "--gpu knows no “abacus”; there are a100"),
        ({"mfu": 1.5}, "--mfu is the share"),
    ],
)
def test_senseless_options_are_one_sentence(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(FinetuneError, match=sentence):
        make_plan(load_recipe(PAPER), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("shapes", {"default": {"pixels": 3}}, "knows no “pixels”; there are share, frames"),
        ("shapes", {"default": {"text": -3}}, "makes no sense"),
        ("shapes", {"other": {"text": 3}}, "has neither “pictures” nor “default”"),
        ("effort", {"luck": 3}, "knows no “luck”"),
    ],
)
def test_senseless_shapes_are_one_sentence(field: str, value: object, sentence: str) -> None:
    stage = {"kind": "sft", "counts": {"pictures": 5}, "shapes": {"default": {"text": 100}}, field: value}
    recipe = parse_recipe({"model": {"path": "recipes/keye-vl-8b-preview"}, "sft": stage})
    with pytest.raises(FinetuneError, match=sentence):
        make_plan(recipe)


def test_a_model_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    recipe = parse_recipe({"model": {"path": str(tmp_path)}, "sft": {"kind": "sft", "steps": 1, "data": ["a"]}})
    with pytest.raises(EngineError, match=r"no config\.json"):
        make_plan(recipe)
    with pytest.raises(FinetuneError, match="Say what to train"):
        make_plan(parse_recipe({"sft": {"kind": "sft", "steps": 1}}))


def test_passes_add_up() -> None:
    one = Forward(1, 2, 3, 4, 5)
    assert one + one == one.times(2) and one.times(3, tower=1) == Forward(1, 2, 3, 12, 15)
