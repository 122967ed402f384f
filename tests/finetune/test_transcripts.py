"""Transcripts in the store: one of each for a video, the newest in use, gone with the video."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.timed import Timed
from finetune.errors import FinetuneError
from finetune.feedback import Store

SHA, OTHER = "a" * 64, "b" * 64
CUES = (Timed(0.5, 1.25, "Hello"), Timed(2.0, 3.0, "你好 \"quoted\" 'n' \\ </b>"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "studio.sqlite")
    for sha in (SHA, OTHER):
        store.add_video(sha, name="v.mp4", path=tmp_path / f"{sha}.mp4", probe={})
    return store


def test_what_is_kept_is_there_after_a_restart(store: Store) -> None:
    assert store.transcripts.of(SHA) is None
    kept = store.transcripts.keep(SHA, CUES, by="whisper-tiny", source="speech", language="en")
    again = Store(store.path)
    assert again.transcripts.of(SHA) == kept and kept.cues == CUES
    assert again.transcripts.heard(SHA, "whisper-tiny") == kept
    assert again.transcripts.heard(SHA, "whisper-large") is None
    assert again.transcripts.of(OTHER) is None


def test_the_last_one_is_in_use_and_one_of_each_is_kept(store: Store) -> None:
    keep = store.transcripts.keep
    keep(SHA, CUES, by="m", source="speech")
    keep(SHA, CUES[:1], by="a.srt", source="file")
    keep(SHA, (), by="m", source="speech")  # heard again: nothing
    found = store.transcripts.of(SHA)
    assert found is not None and (found.by, found.cues) == ("m", ())
    keep(SHA, CUES[1:], by="a.srt", source="file")
    found = store.transcripts.of(SHA)
    assert found is not None and (found.source, found.cues) == ("file", CUES[1:])
    store.transcripts.drop(SHA, "file")
    found = store.transcripts.of(SHA)
    assert found is not None and found.source == "speech"


def test_it_goes_with_its_video(store: Store) -> None:
    talk = store.new_conversation("?")
    store.add_question(talk.id, "?", mode="auto", video=SHA)
    store.transcripts.keep(SHA, CUES, by="m", source="speech")
    store.delete_conversation(talk.id)
    assert store.transcripts.of(SHA) is None
    with pytest.raises(FinetuneError, match="no longer kept"):
        store.transcripts.keep(SHA, CUES, by="m", source="speech")
