"""Subtitle files: what is read, what is refused, and what is written is read by another program."""

from __future__ import annotations

from pathlib import Path

import pysubs2
import pytest

from engine.errors import EngineError
from engine.sound import load_subtitles, write_vtt
from engine.timed import Timed

CUES = (
    Timed(0.5, 1.75, "Hello <b>there</b> & you"),
    Timed(3661.001, 3662.0, "an --> arrow"),
    Timed(4000.0, 4001, "你好"),
)


def test_what_is_written_is_read_by_another_program() -> None:
    text = write_vtt(CUES)
    assert text.startswith("WEBVTT\n\n00:00:00.500 --> 00:00:01.750\nHello &lt;b&gt;there&lt;/b&gt; &amp; you\n")
    assert "01:01:01.001 --> 01:01:02.000\nan --&gt; arrow\n" in text and text.count("-->") == 3
    events = pysubs2.SSAFile.from_string(text, format_="vtt").events
    assert [(event.start, event.end) for event in events] == [
        (500, 1750), (3661001, 3662000), (4000000, 4001000)
    ]  # fmt: skip
    assert events[2].plaintext == "你好"


def test_a_file_of_each_kind_and_coding(tmp_path: Path) -> None:
    srt = "1\n00:00:01,000 --> 00:00:02,500\n<i>Hello</i>\nthere\n"
    for name, raw in (
        ("a.srt", srt.encode()),
        ("b.SRT", srt.replace("\n", "\r\n").encode("utf-8-sig")),
        ("c.srt", srt.encode("utf-16")),
        ("d.vtt", b"WEBVTT\n\n00:01.000 --> 00:02.500\nHello there\n"),
    ):
        (tmp_path / name).write_bytes(raw)
        assert load_subtitles(tmp_path / name) == (Timed(1.0, 2.5, "Hello there"),), name


@pytest.mark.parametrize(
    ("name", "raw", "told"),
    [
        ("a.txt", b"hello", "no subtitle file"),
        ("a.srt", b"", "no line with a time"),
        ("a.srt", b"hello\n" * 9, "no line with a time"),
        ("a.vtt", b"WEBVTT\n\n\xff\xfe\xfd", "UTF-8"),
        ("a.srt", b"\x00" * 99, "no line with a time"),
        ("a.srt", b"1\n" * (9 << 20), "too large"),
    ],
)
def test_what_is_none_is_a_sentence(tmp_path: Path, name: str, raw: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(EngineError, match=told):
        load_subtitles(tmp_path / name)
    with pytest.raises(EngineError, match="cannot be read"):
        load_subtitles(tmp_path / "gone.srt")
