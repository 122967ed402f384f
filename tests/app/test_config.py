"""Flags, the environment, and refusing to listen openly without a password."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from app.__main__ import main
from app.config import AppConfig
from app.errors import AppError


def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYE_STUDIO_PORT", "9000")
    monkeypatch.setenv("KEYE_STUDIO_MODEL", "/models/a")
    config = AppConfig.from_flags(["--port", "9001"])
    assert (config.port, config.model, config.host) == (9001, "/models/a", "127.0.0.1")


def test_nonsense_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AppError, match="Port 70000"):
        AppConfig.from_flags(["--port", "70000"])
    with pytest.raises(AppError, match="more than 0"):
        AppConfig.from_flags(["--max-upload-gb", "-1"])
    monkeypatch.setenv("KEYE_STUDIO_PORT", "many")
    with pytest.raises(AppError, match="not a number"):
        AppConfig.from_flags([])


def test_other_machines_need_a_password_and_it_is_never_printed() -> None:
    with pytest.raises(AppError, match="password"):
        AppConfig.from_flags(["--host", "0.0.0.0"])
    assert "secret" not in str(AppConfig.from_flags(["--host", "0.0.0.0", "--password", "secret"]))


def test_a_taken_port_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["--port", str(taken.getsockname()[1])]) == 2
    told = capsys.readouterr().err
    assert "cannot be used" in told and "PORT=" in told and "Traceback" not in told


def test_what_was_started_with_is_told_whatever_the_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    wanted = str((tmp_path / "model").resolve())
    assert AppConfig(model="model").started_with == AppConfig(model=wanted + "/").started_with == wanted
    assert AppConfig().started_with.endswith("assets/keye-nano")
    assert AppConfig(model="Kwai-Keye/Keye-VL-8B-Preview").started_with == "Kwai-Keye/Keye-VL-8B-Preview"
    assert AppConfig(runtime="http://host:30000").started_with == "http://host:30000"
