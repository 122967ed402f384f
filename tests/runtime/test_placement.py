"""Where a checkpoint runs, and where it comes from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from engine.errors import EngineError
from engine.runtime import placement
from engine.runtime.placement import parameter_count, place
from engine.runtime.source import NANO, resolve_model

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
EIGHT_BILLION = 8_000_000_000


def test_parameters_are_counted_from_the_headers() -> None:
    weights = load_file(GOLDEN / "A" / "model.safetensors")
    assert parameter_count(GOLDEN / "A") == sum(tensor.numel() for tensor in weights.values())


def with_memory(monkeypatch: pytest.MonkeyPatch, gigabytes: float, parameters: int = EIGHT_BILLION) -> Any:
    monkeypatch.setattr(placement, "parameter_count", lambda folder: parameters)
    monkeypatch.setattr(placement.psutil, "virtual_memory", lambda: SimpleNamespace(available=int(gigabytes * 1e9)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return place(Path("Keye-VL-8B-Preview"))


@pytest.mark.parametrize(
    ("gigabytes", "dtype", "four_bit"),
    [(64, torch.float32, False), (24, torch.bfloat16, False), (12, torch.bfloat16, True)],
)
def test_the_widest_type_that_fits_is_taken(
    monkeypatch: pytest.MonkeyPatch, gigabytes: float, dtype: torch.dtype, four_bit: bool
) -> None:
    where = with_memory(monkeypatch, gigabytes)
    assert (where.device, where.dtype, where.four_bit) == ("cpu", dtype, four_bit)
    assert "minutes" in where.note  # the user is told what to expect of 8 billion on a processor


def test_what_does_not_fit_at_all_is_told_with_both_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match=r"needs about \d+ GB .* \d+ GB are free"):
        with_memory(monkeypatch, 4)


def test_a_small_model_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert with_memory(monkeypatch, 8, parameters=3_000_000).note == ""


def test_a_missing_gpu_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match="No CUDA device"):
        place(GOLDEN / "A", device="cuda")


@pytest.mark.parametrize("content", [b"", b"\x00" * 8, b"\xff" * 16, b"\x05\x00\x00\x00\x00\x00\x00\x00hello"])
def test_weights_that_are_none_are_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(EngineError):
        parameter_count(tmp_path)


def test_nothing_named_is_nano_and_folders_are_taken_as_they_are() -> None:
    assert resolve_model(None) == NANO
    assert resolve_model(str(GOLDEN / "A")) == GOLDEN / "A"


@pytest.mark.parametrize("model", ["/nowhere/at/all", "no-such-folder", "../x/../y/z", "a/b/c", "https://x.example/m"])
def test_a_missing_folder_is_told_and_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: pytest.fail("the network was asked"))
    with pytest.raises(EngineError, match="There is no model folder"):
        resolve_model(model)


def test_a_file_or_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"config\.json"):
        resolve_model(str(tmp_path))
    (tmp_path / "f").touch()
    with pytest.raises(EngineError, match="is a file"):
        resolve_model(str(tmp_path / "f"))


def test_a_hub_id_is_downloaded_with_progress_and_never_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def download(hub_id: str, allow_patterns: list[str], tqdm_class: Any) -> str:
        asked.update(hub_id=hub_id, patterns=allow_patterns)
        with tqdm_class(total=2_000_000_000, unit="B", disable=False) as bar:
            bar.update(500_000_000)
            bar.update(1_500_000_000)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    told: list[tuple[str, float | None]] = []
    assert resolve_model("Kwai-Keye/Keye-VL-8B-Preview", lambda s, f: told.append((s, f))) == tmp_path
    assert asked["hub_id"] == "Kwai-Keye/Keye-VL-8B-Preview"
    assert not any(pattern.endswith((".py", ".bin", ".pt", "*")) for pattern in asked["patterns"])
    assert [fraction for _, fraction in told] == [None, 0.25, 1.0]


def test_a_download_that_fails_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(EngineError, match="could not be downloaded"):
        resolve_model("Kwai-Keye/Keye-VL-8B-Preview")
