"""Figures recorded from the published implementation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from engine.errors import EngineError
from engine.keye import KeyeConfig, KeyeForConditionalGeneration, parity
from engine.keye.positions import PositionRule, frame_times, rope_index
from tests.keye.helpers import GOLDEN, inputs_of, tensors

FOLDERS = ("A", "B", "A15")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("folder", FOLDERS)
def test_every_recorded_case_is_met(folder: str, attention: str) -> None:
    rows = list(parity.compare(GOLDEN / folder, attention))
    assert len(rows) == {"A": 12, "B": 12, "A15": 4}[folder]
    assert [row.case for row in rows if not row.within] == []
    assert any(row.generation is not None for row in rows)


@pytest.mark.parametrize("case", ["mixed", "batch2_left", "video_3fps", "text_only"])
def test_positions_of_generated_tokens(case: str, model_a: Any) -> None:
    recorded = tensors(f"A/{case}")
    seen: list[torch.Tensor] = []
    handle = model_a.model.register_forward_pre_hook(
        lambda _module, _args, kwargs: seen.append(kwargs["position_ids"]), with_kwargs=True
    )
    parity.generate(model_a, inputs_of(recorded), recorded["gen_ids"].shape[1])
    handle.remove()
    # Padded slots of the prompt are masked, and the last token generated is never fed.
    assert torch.equal(torch.cat(seen, dim=-1), recorded["gen_position_ids"])


def test_position_ids_of_all_recorded_cases() -> None:
    cases = json.loads((GOLDEN / "rope_index_cases.json").read_text())
    assert len(cases) == 60
    for case in cases:
        positions, delta = rope_index(
            torch.tensor([case["input_ids"]]),
            PositionRule(505, 506, 2, case["tokens_per_second"]),
            attention_mask=torch.tensor([case["attention_mask"]]),
            image_grid_thw=case["image_grid_thw"],
            video_grid_thw=case["video_grid_thw"],
            second_per_grid_ts=case["second_per_grid_ts"] or None,
        )
        assert positions[:, 0].tolist() == case["position_ids"]
        assert delta.item() == case["rope_delta"]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.5, [0, 1, 2, 3]), (1.0, [0, 2, 4, 6]), (1 / 3, [0, 0, 1, 2, 2, 3, 4]), (0.7, [0, 1, 2, 4, 5, 7, 8])],
)
def test_frame_times_are_truncated_float32(seconds: float, expected: list[int]) -> None:
    assert frame_times(len(expected), seconds, 2).tolist() == expected


RULE = PositionRule(image_token_id=5, video_token_id=6)


def test_a_frame_by_frame_video_by_hand() -> None:
    """1.5: text 9, a 2×4 frame, text 9, a 4×4 frame: each frame starts where the text left off, at time 0."""
    ids = torch.tensor([[9, 6, 6, 9, 6, 6, 6, 6, 9]])
    rule = PositionRule(5, 6, per_frame=True)
    positions, delta = rope_index(ids, rule, video_grid_thw=[[1, 2, 4], [1, 4, 4]])
    assert positions[:, 0].tolist() == [
        [0, 1, 1, 3, 4, 4, 4, 4, 6],
        [0, 1, 1, 3, 4, 4, 5, 5, 6],
        [0, 1, 2, 3, 4, 5, 4, 5, 6],
    ]
    assert delta.tolist() == [[7 - 9]]


def test_a_trailing_vision_start_is_plain_text() -> None:
    positions, delta = rope_index(torch.tensor([[1, 5, 4]]), RULE, image_grid_thw=[[1, 2, 2]])
    assert positions[:, 0].tolist() == [[0, 1, 2]] * 3
    assert delta.item() == 0


def test_a_row_of_padding_only_does_not_crash() -> None:
    ids = torch.tensor([[1, 2], [0, 0]])
    positions, _ = rope_index(ids, RULE, attention_mask=torch.tensor([[1, 1], [0, 0]]))
    assert positions[:, 1].tolist() == [[1, 1]] * 3


@pytest.mark.parametrize(
    ("ids", "images", "videos", "seconds", "sentence"),
    [
        ([1, 5], [], [[1, 2, 2]], None, "more image or video placeholders"),
        ([1, 5], [[1, 2, 2], [1, 2, 2]], [], None, "no placeholder"),
        ([1, 5, 5], [[1, 4, 4]], [], None, "in a row"),
        ([1, 6], [], [[1, 2, 2]], [], "frame intervals"),
        ([1, 6], [], [[0, 2, 2]], None, "empty"),
        ([1, 6], [], [[1, -2, 2]], None, "empty"),
    ],
)
def test_text_and_grids_that_disagree(ids: Any, images: Any, videos: Any, seconds: Any, sentence: str) -> None:
    with pytest.raises(EngineError, match=sentence):
        rope_index(torch.tensor([ids]), RULE, image_grid_thw=images, video_grid_thw=videos, second_per_grid_ts=seconds)


def test_the_published_checkpoint_fits_name_for_name() -> None:
    fields = json.loads((GOLDEN / "keye-vl-8b-preview" / "config.json").read_text())
    published = json.loads((GOLDEN / "keye_vl_8b_preview_state_dict.json").read_text())
    assert len(published) == 854
    unused = {name for name in published if "packing_position_embedding" in name or ".head." in name}
    with torch.device("meta"):
        model = KeyeForConditionalGeneration(KeyeConfig(**fields))
    ours = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert ours == {name: shape for name, shape in published.items() if name not in unused}
    assert len(unused) == 12


def test_the_command_passes_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("config.json", "model.safetensors", "one_image.safetensors"):
        shutil.copy(GOLDEN / "A" / name, tmp_path / name)
    assert parity.main([str(tmp_path)]) == 0
    assert "one_image" in capsys.readouterr().out
    case = tensors("A/one_image")
    case["logits"][0, 3, 7] += 2e-4
    save_file(case, tmp_path / "one_image.safetensors")
    assert parity.main([str(tmp_path)]) == 1
    assert "OVER" in capsys.readouterr().out
    assert parity.main([str(tmp_path / "nothing")]) == 2
