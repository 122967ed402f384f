"""Videos, conversations and answers behind the page."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from app.config import AppConfig
from app.errors import AppError
from app.library import Library, disk_problem
from app.studio import ClipChoice, Limits, Studio
from engine.errors import EngineError
from engine.video import Frames
from tests.app.conftest import ScriptedRuntime
from tests.media import make_clip

Wait = Callable[[Studio, str], None]


def test_a_question_and_its_answer_are_kept_with_where_they_came_from(studio: Studio, clip: Path, wait: Wait) -> None:
    sha, info = studio.add_video(clip, clip.name)
    assert info.frame_count == 75
    conversation, _ = studio.ask(None, " What happens? ", ClipChoice(sha, 0.5, 2.0), Limits(max_frames=4))
    wait(studio, conversation)
    (turn,) = studio.turns(conversation)
    assert turn.question.text == "What happens?" and (turn.question.start, turn.question.end) == (0.5, 2.0)
    answer = turn.answer
    assert answer is not None
    assert (answer.text, answer.finish) == ("A red circle moves left at 0:01.", "stop")
    assert (answer.model, answer.checkpoint, answer.mode) == ("scripted", "/models/scripted", "auto")
    assert answer.frames is not None and len(answer.frames["times"]) == 4
    assert all(0.5 <= time <= 2.0 for time in answer.frames["times"])
    assert turn.span == (0.5, 2.0)
    assert [title for _, title, _ in studio.conversations()] == ["What happens?"]


def test_the_question_is_on_the_disk_before_the_answer_begins(
    studio: Studio, runtime: ScriptedRuntime, clip: Path, tmp_path: Path, wait: Wait
) -> None:
    runtime.gate = threading.Event()
    sha, _ = studio.add_video(clip, clip.name)
    conversation, _ = studio.ask(None, "Kept?", ClipChoice(sha), Limits())
    other = Studio(AppConfig(data=tmp_path / "data"), runtime)  # what another process would see
    assert [t.question.text for t in other.turns(conversation)] == ["Kept?"]
    studio.job(conversation).stop()  # type: ignore[union-attr]
    runtime.gate.set()
    wait(studio, conversation)


def test_a_follow_up_sends_the_clip_once_and_a_new_range_again(
    studio: Studio, runtime: ScriptedRuntime, clip: Path, wait: Wait
) -> None:
    sha, _ = studio.add_video(clip, clip.name)
    conversation = None
    for text, choice in (("One?", ClipChoice(sha)), ("Two?", ClipChoice(sha)), ("Three?", ClipChoice(sha, 1.0, None))):
        conversation, _ = studio.ask(conversation, text, choice, Limits())
        wait(studio, conversation)
    heard = runtime.heard[-1]
    assert [m.role for m in heard] == ["user", "assistant", "user", "assistant", "user"]
    kinds = [[type(p) for p in m.parts] for m in heard if m.role == "user"]
    assert kinds == [[Frames, str], [str], [Frames, str]]
    assert heard[1].parts == ("A red circle moves left at 0:01.",)


def test_a_stopped_answer_stays_stopped_with_its_text(
    studio: Studio, runtime: ScriptedRuntime, clip: Path, wait: Wait
) -> None:
    runtime.gate = threading.Event()
    sha, _ = studio.add_video(clip, clip.name)
    conversation, job = studio.ask(None, "Go on", ClipChoice(sha), Limits())
    runtime.gate.set()
    for now in job.watch():
        if now.text:
            break
    job.stop()
    runtime.gate.set()
    wait(studio, conversation)
    answer = studio.turns(conversation)[0].answer
    assert answer is not None and (answer.finish, answer.text) == ("stopped", "A red circle ")


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (EngineError("The memory ran out: lower the budget."), "The memory ran out: lower the budget."),
        (OSError(errno.ENOSPC, "No space left on device", "/data"), "is full; free some space"),
        (KeyError("oops"), "Something went wrong on our side (KeyError); the question is kept, ask again."),
    ],
)
def test_a_failure_is_a_sentence_and_the_question_stays(
    studio: Studio, runtime: ScriptedRuntime, clip: Path, wait: Wait, failure: Exception, words: str
) -> None:
    runtime.failure = failure
    sha, _ = studio.add_video(clip, clip.name)
    conversation, _ = studio.ask(None, "Why?", ClipChoice(sha), Limits())
    wait(studio, conversation)
    (turn,) = studio.turns(conversation)
    assert turn.answer is not None and turn.answer.finish == "error" and words in (turn.answer.error or "")
    runtime.failure = None
    studio.ask(conversation, "Why?", ClipChoice(sha), Limits())
    wait(studio, conversation)
    assert [t.answer.finish for t in studio.turns(conversation) if t.answer] == ["error", "stop"]


def test_what_cannot_be_asked_is_refused(studio: Studio, runtime: ScriptedRuntime, clip: Path, wait: Wait) -> None:
    sha, _ = studio.add_video(clip, clip.name)
    with pytest.raises(AppError, match="Write a question"):
        studio.ask(None, " \n", ClipChoice(sha), Limits())
    with pytest.raises(AppError, match="8000"):
        studio.ask(None, "a" * 8001, ClipChoice(sha), Limits())
    with pytest.raises(AppError, match="no longer on the disk"):
        studio.ask(None, "What?", ClipChoice("0" * 64), Limits())
    runtime.gate = threading.Event()
    conversation, job = studio.ask(None, "First", ClipChoice(sha), Limits())
    with pytest.raises(AppError, match="still being written"):
        studio.ask(conversation, "Second", ClipChoice(sha), Limits())
    job.stop()
    runtime.gate.set()
    wait(studio, conversation)


def test_deleting_a_conversation_deletes_its_video_unless_another_needs_it(
    studio: Studio, clip: Path, wait: Wait
) -> None:
    sha, _ = studio.add_video(clip, clip.name)
    first, _ = studio.ask(None, "One?", ClipChoice(sha), Limits())
    wait(studio, first)
    second, _ = studio.ask(None, "Two?", ClipChoice(sha), Limits())
    wait(studio, second)
    studio.delete(first)
    assert studio.library.find(sha) is not None and studio.turns(first) == []
    studio.delete(second)
    assert studio.library.find(sha) is None and studio.conversations() == []
    assert clip.exists()  # the user's own file is never touched


def test_the_same_video_is_kept_once_whatever_its_name(studio: Studio, clip: Path, tmp_path: Path) -> None:
    copy = tmp_path / "other name.MP4"
    copy.write_bytes(clip.read_bytes())
    assert studio.add_video(clip, "a")[0] == studio.add_video(copy, "b")[0]
    assert len(list(studio.library.folder.iterdir())) == 1


def test_what_is_no_video_leaves_nothing_behind(studio: Studio, tmp_path: Path) -> None:
    for content in (b"", b"hello", b"#EXTM3U\nfile:///etc/passwd\n"):
        bad = tmp_path / "bad.mp4"
        bad.write_bytes(content)
        with pytest.raises(EngineError):
            studio.add_video(bad, "bad.mp4")
    assert list(studio.library.folder.iterdir()) == []


def test_a_full_disk_while_keeping_is_told_and_cleaned_up(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library(tmp_path / "videos")

    def full(source: Path, target: Path) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("finetune.feedback.videos.link_or_copy", full)
    with pytest.raises(AppError, match="full; free some space"):
        library.keep(clip)
    assert list(library.folder.iterdir()) == []
    assert "permissions" in str(disk_problem(OSError(errno.EACCES, "Permission denied"), tmp_path))


def test_a_copy_for_the_player_is_made_where_the_browser_needs_one(tmp_path: Path) -> None:
    library = Library(tmp_path / "videos")
    plain, hevc = tmp_path / "plain.mp4", tmp_path / "hevc.mp4"
    make_clip(plain, frames=10)
    make_clip(hevc, frames=10, codec="libx265")
    sha, _ = library.keep(plain)
    assert library.player_file(sha) == library.find(sha)
    sha, _ = library.keep(hevc)
    assert library.player_file(sha) is None
    copy = library.make_player_file(sha)
    assert copy is not None and copy == library.player_file(sha)
    import av

    with av.open(str(copy)) as file:
        assert file.streams.video[0].codec_context.name == "h264"
    library.remove(sha)
    assert library.find(sha) is None and not copy.exists()
