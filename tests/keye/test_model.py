"""What the model promises beyond the recorded figures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AttentionInterface

from engine.errors import EngineError
from engine.keye import KeyeForConditionalGeneration, KeyeVL1_5Config, KeyeVL1_5ForConditionalGeneration
from engine.keye.vision import plan_segments
from tests.keye.helpers import inputs_of, tensors, tiny_config

GREEDY: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None, "eos_token_id": -1}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["model_a", "model_b"])
def test_items_never_see_each_other(name: str, attention: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    case = tensors(f"{name[-1].upper()}/mixed")
    pixels, grid = case["pixel_values_videos"], case["video_grid_thw"]
    model.set_attn_implementation(attention)
    with torch.no_grad():
        together = model.encode_visual(pixels, grid)
        sizes = grid.prod(1).tolist()
        for part, row, item in zip(pixels.split(sizes), grid, together, strict=True):
            torch.testing.assert_close(model.encode_visual(part, row[None])[0], item, atol=1e-5, rtol=0)
        pixels = pixels.clone()
        pixels[: sizes[0]] = 0.9  # another first clip leaves the second as it was
        assert torch.equal(model.encode_visual(pixels, grid)[1], together[1])
    model.set_attn_implementation("sdpa")


def test_frames_of_a_clip_see_each_other_in_preview_and_not_in_1_5() -> None:
    torch.manual_seed(0)
    pixels = torch.randn(2 * 16, 3, 14, 14)
    changed = pixels.clone()
    changed[16:] += 1
    grid = torch.tensor([[2, 4, 4]])
    for cls, config, apart in (
        (KeyeForConditionalGeneration, tiny_config(), False),
        (KeyeVL1_5ForConditionalGeneration, tiny_config(KeyeVL1_5Config), True),
    ):
        model = cls(config).eval()
        with torch.no_grad():
            a, b = model.encode_visual(pixels, grid)[0], model.encode_visual(changed, grid)[0]
        assert torch.equal(a[:4], b[:4]) is apart
        assert not torch.allclose(a[4:], b[4:])


def test_segments_of_mixed_lengths_come_back_in_order(model_a: Any) -> None:
    torch.manual_seed(1)
    grid = torch.tensor([[1, 4, 4], [1, 2, 4], [1, 4, 4], [1, 2, 2], [1, 4, 2]])
    pixels = torch.randn(int(grid.prod(1).sum()), 3, 14, 14)
    with torch.no_grad():
        together = model_a.encode_visual(pixels, grid)
        for part, row, item in zip(pixels.split(grid.prod(1).tolist()), grid, together, strict=True):
            torch.testing.assert_close(model_a.encode_visual(part, row[None])[0], item, atol=1e-5, rtol=0)


def test_flash_attention_is_given_packed_segments(model_a: Any) -> None:
    """No kernel runs here: a stand-in with the kernel's contract, [1, heads, patches, dim] and cumulative lengths."""

    def stand_in(module: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **kwargs: Any) -> Any:
        bounds = kwargs["cu_seq_lens_q"]
        assert bounds.dtype == torch.int32 and bounds is kwargs["cu_seq_lens_k"] and bounds[-1] == q.shape[2]
        assert kwargs["max_length_q"] == kwargs["max_length_k"] == bounds.diff().max()
        assert kwargs["is_causal"] is False and kwargs["attention_mask"] is None
        outputs = []
        for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            scores = q[:, :, start:stop] @ k[:, :, start:stop].mT * kwargs["scaling"]
            outputs.append((scores.softmax(-1) @ v[:, :, start:stop]).transpose(1, 2))
        return torch.cat(outputs, dim=1), None

    case = tensors("A/mixed")
    AttentionInterface.register("flash_stand_in", stand_in)
    vision = model_a.config.vision
    vision._attn_implementation_internal = "flash_stand_in"
    try:
        with torch.no_grad():
            seen = torch.cat(model_a.encode_visual(case["pixel_values_videos"], case["video_grid_thw"]))
    finally:
        vision._attn_implementation_internal = "sdpa"
    torch.testing.assert_close(seen, case["video_projector_out"], atol=1e-4, rtol=0)


def test_a_thousand_pictures_need_no_square_of_memory(model_a: Any) -> None:
    """1000 pictures of 16 patches: a mask over all would be 256 million entries; what is made stays near the input."""
    grid = torch.tensor([[1, 4, 4]]).expand(1000, 3)
    shapes: list[int] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            shapes.append(out.numel() if isinstance(out, torch.Tensor) else 0)
            return out

    with torch.no_grad(), Watch():
        model_a.visual(torch.zeros(16000, 3, 14, 14), grid)
    assert max(shapes) <= 16000 * 3 * 14 * 14


def test_plan_groups_equal_lengths() -> None:
    segments, order = plan_segments([3, 1, 3], torch.device("cpu"))
    assert segments.runs == ((1, 1), (2, 3)) and segments.longest == 3
    assert segments.cu_seqlens.tolist() == [0, 1, 4, 7]
    assert order is not None and order.tolist() == [3, 0, 1, 2, 4, 5, 6]
    assert plan_segments([2] * 1000, torch.device("cpu"))[0].runs == ((1000, 2),)


def test_one_tower_pass_for_pictures_and_clips(model_a: Any) -> None:
    calls = []
    handle = model_a.visual.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        model_a(**inputs_of(tensors("A/mixed")))
    handle.remove()
    assert len(calls) == 1


def test_features_in_place_of_pixels(model_a: Any) -> None:
    case = tensors("A/mixed")
    inputs = inputs_of(case)
    pixels, clips = inputs.pop("pixel_values"), inputs.pop("pixel_values_videos")
    with torch.no_grad():
        images = model_a.encode_visual(pixels, inputs["image_grid_thw"])
        videos = model_a.encode_visual(clips, inputs["video_grid_thw"])
        assert [len(item) for item in images] == (inputs["image_grid_thw"].prod(1) // 4).tolist()
        logits = model_a(**inputs, image_embeds=images, video_embeds=torch.cat(videos)).logits
        made = model_a.generate(
            **inputs, image_embeds=images, video_embeds=videos, max_new_tokens=8, suppress_tokens=None, **GREEDY
        )
    torch.testing.assert_close(logits, case["logits"], atol=1e-4, rtol=0)
    assert torch.equal(made[:, -8:], case["gen_ids"])
    with pytest.raises(EngineError, match="Both pixels and image_embeds"):
        model_a(**inputs, pixel_values=pixels, image_embeds=images, video_embeds=videos)


def test_two_interleaved_conversations(model_a: Any) -> None:
    """Decoding step by step without positions, taking turns, gives what each gave alone."""
    cases = [tensors("A/mixed"), tensors("A/one_image"), tensors("A/batch2_left")]
    caches, tokens = [], []
    with torch.no_grad():
        for case in cases:
            output = model_a(**inputs_of(case), use_cache=True)
            caches.append(output.past_key_values)
            tokens.append(output.logits[:, -1:].argmax(-1))
        masks = [case["attention_mask"] for case in cases]
        answers = [[token] for token in tokens]
        for _ in range(7):
            for i in range(len(cases)):
                masks[i] = torch.cat((masks[i], torch.ones_like(tokens[i])), dim=1)
                output = model_a(input_ids=tokens[i], attention_mask=masks[i], past_key_values=caches[i])
                tokens[i] = output.logits[:, -1:].argmax(-1)
                answers[i].append(tokens[i])
    for case, answer in zip(cases, answers, strict=True):
        assert torch.equal(torch.cat(answer, dim=1), case["gen_ids"])
    assert not [name for name in vars(model_a) if "delta" in name]


@pytest.mark.parametrize("way", ["beams", "samples"])
def test_several_answers_to_a_video(way: str, model_a: Any) -> None:
    inputs = inputs_of(tensors("A/batch2_left"))
    if way == "beams":
        options: dict[str, Any] = GREEDY | {"num_beams": 3}
    else:
        options = GREEDY | {"do_sample": True, "top_k": 1}  # one token to choose from: every sample is the greedy one
    made = model_a.generate(**inputs, num_return_sequences=3, max_new_tokens=5, suppress_tokens=None, **options)
    assert made.shape[0] == 6
    greedy = tensors("A/batch2_left")["gen_ids"][:, :5]
    if way == "samples":
        assert torch.equal(made[:, -5:], greedy.repeat_interleave(3, 0))
    else:
        # The best beam is at least as likely as the greedy answer.
        width = inputs["input_ids"].shape[1]
        assert (
            _log_likelihood(model_a, made[::3], width)
            .ge(_log_likelihood(model_a, torch.cat((inputs["input_ids"], greedy), 1), width) - 1e-4)
            .all()
        )


def _log_likelihood(model: Any, ids: torch.Tensor, width: int) -> torch.Tensor:
    inputs = inputs_of(tensors("A/batch2_left"))
    mask = torch.cat((inputs["attention_mask"], torch.ones(len(ids), ids.shape[1] - width, dtype=torch.long)), 1)
    with torch.no_grad():
        scores = model(**{**inputs, "input_ids": ids, "attention_mask": mask}).logits.log_softmax(-1)
    return scores[:, width - 1 : -1].gather(2, ids[:, width:, None]).sum((1, 2))


def test_a_conversation_goes_on_in_its_cache(model_a: Any) -> None:
    """A second turn with a new picture on the first turn's cache equals reading everything anew."""
    case = tensors("A/two_images")
    inputs = inputs_of(case)
    cut = int((inputs["input_ids"][0] == 503).nonzero()[0]) + 1  # after the first picture
    first = int(inputs["image_grid_thw"][0].prod())
    with torch.no_grad():
        head = model_a(
            input_ids=inputs["input_ids"][:, :cut],
            pixel_values=inputs["pixel_values"][:first],
            image_grid_thw=inputs["image_grid_thw"][:1],
            use_cache=True,
        )
        tail = model_a(
            input_ids=inputs["input_ids"][:, cut:],
            pixel_values=inputs["pixel_values"][first:],
            image_grid_thw=inputs["image_grid_thw"][1:],
            past_key_values=head.past_key_values,
        )
    logits = torch.cat((head.logits, tail.logits), dim=1)
    torch.testing.assert_close(logits, case["logits"], atol=1e-4, rtol=0)
    assert torch.equal(tail.rope_deltas, case["rope_deltas"])
    with torch.no_grad():  # and through generate, given the whole conversation and all its pictures
        again = model_a(
            input_ids=inputs["input_ids"][:, :cut],
            pixel_values=inputs["pixel_values"][:first],
            image_grid_thw=inputs["image_grid_thw"][:1],
            use_cache=True,
        )
        options = GREEDY | {"max_new_tokens": 4, "suppress_tokens": None}
        on_cache = model_a.generate(**inputs, past_key_values=again.past_key_values, **options)
        assert torch.equal(on_cache, model_a.generate(**inputs, **options))


@pytest.mark.parametrize("options", [{"use_cache": False}, {"cache_implementation": "static"}])
def test_generation_without_and_with_another_cache(model_a: Any, options: dict[str, Any]) -> None:
    case = tensors("A/mixed")
    made = model_a.generate(**inputs_of(case), max_new_tokens=8, suppress_tokens=None, **options, **GREEDY)
    assert torch.equal(made[:, -8:], case["gen_ids"])


def test_a_prompt_that_ends_in_a_picture(model_a: Any) -> None:
    """The answer goes on after the largest coordinate of the picture, not after its last token's time."""
    grid = torch.tensor([[1, 4, 8]])
    ids = torch.tensor([[7, 502] + [505] * 8])
    pixels = torch.randn(32, 3, 14, 14)
    with torch.no_grad():
        made = model_a.generate(ids, pixel_values=pixels, image_grid_thw=grid, max_new_tokens=3, **GREEDY)
        whole = model_a(made[:, :-1], pixel_values=pixels, image_grid_thw=grid).logits
    # suppress_tokens of the loaded model holds the placeholders, so they are left out of the comparison
    whole[..., [505, 506]] = -torch.inf
    assert torch.equal(made[:, -3:], whole[:, -3:].argmax(-1))


def test_placeholders_are_never_generated(model_a: Any) -> None:
    assert {505, 506} <= set(model_a.generation_config.suppress_tokens)
    with torch.no_grad():
        bias = torch.zeros(512)
        bias[505] = 1e4
        handle = model_a.lm_head.register_forward_hook(lambda _m, _i, out: out + bias)
        made = model_a.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=3, **GREEDY)
        handle.remove()
    assert not (made == 505).any()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"pixel_values": None}, "more image|placeholders"),
        ({"image_grid_thw": None}, "image_grid_thw|more image"),
        ({"image_grid_thw": torch.tensor([[1, 4, 2]])}, "placeholder"),
        ({"image_grid_thw": torch.tensor([[1, 3, 8]])}, "odd|placeholder|in a row"),
    ],
)
def test_inputs_that_do_not_belong_together(model_a: Any, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(EngineError, match=sentence):
        model_a(**{**inputs_of(tensors("A/one_image")), **change})


def test_packed_sequences_equal_single_ones(model_a: Any) -> None:
    """Two samples in one row, told apart by restarting positions alone."""
    a, b = tensors("A/one_image"), tensors("A/video_2fps")
    with torch.no_grad():
        logits = model_a(
            input_ids=torch.cat((a["input_ids"], b["input_ids"]), 1),
            position_ids=torch.cat(
                [torch.cat((torch.arange(c["input_ids"].shape[1])[None, None], c["position_ids"])) for c in (a, b)],
                dim=-1,
            ),
            pixel_values=a["pixel_values"],
            image_grid_thw=a["image_grid_thw"],
            pixel_values_videos=b["pixel_values_videos"],
            video_grid_thw=b["video_grid_thw"],
            use_cache=False,
        ).logits
    torch.testing.assert_close(logits, torch.cat((a["logits"], b["logits"]), 1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("cls", [KeyeForConditionalGeneration, KeyeVL1_5ForConditionalGeneration])
def test_training_reaches_every_parameter(cls: Any) -> None:
    config = tiny_config(cls.config_class, tie_word_embeddings=True)
    torch.manual_seed(0)
    model = cls(config)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    inputs = inputs_of(tensors("A15/one_image"))
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] >= 500, -100)
    model.train()
    loss = model(**inputs, labels=labels).loss
    logits = model(**inputs).logits[:, :-1]
    by_hand = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
    torch.testing.assert_close(loss, by_hand)
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    plain = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    model.gradient_checkpointing_enable()
    model(**inputs, labels=labels).loss.backward()
    assert model.is_gradient_checkpointing
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, plain[name], atol=1e-6, rtol=1e-4)


def test_bfloat16_answers_like_float32(model_a: Any) -> None:
    """Rotary angles stay float32 whatever the weights are; bfloat16's 8 bits leave about 1 % of the logits' range."""
    from engine.keye import load_model
    from tests.keye.helpers import GOLDEN

    half = load_model(GOLDEN / "A", torch.bfloat16)
    case = tensors("A/video_2fps")
    with torch.no_grad():
        logits = half(**inputs_of(case)).logits.float()
    spread = case["logits"].max() - case["logits"].min()
    assert (logits - case["logits"]).abs().max() < 0.03 * spread


def test_hidden_states_and_attentions_are_recorded(model_a: Any) -> None:
    model_a.set_attn_implementation("eager")
    with torch.no_grad():
        output = model_a(**inputs_of(tensors("A/one_image")), output_hidden_states=True, output_attentions=True)
    model_a.set_attn_implementation("sdpa")
    assert len(output.hidden_states) == 3 and output.attentions[0].shape == (1, 4, 18, 18)
    torch.testing.assert_close(output.hidden_states[-1], tensors("A/one_image")["last_hidden"], atol=1e-4, rtol=0)
