"""What is known of the sound of the kept videos, without the page: measured once and kept beside the file; heard once
by a speech model and kept in the store, or given as a file of subtitles."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from app.config import AppConfig
from app.errors import AppError
from app.library import Library
from engine.errors import EngineError
from engine.sound import Sound, load_subtitles, measure
from engine.sound.speech import SpeechModel
from engine.timed import Timed
from engine.video import Cancelled, probe
from finetune.errors import FinetuneError
from finetune.feedback import Store
from finetune.feedback.transcripts import Transcript

_log = logging.getLogger(__name__)
_GONE = "The video of this conversation is no longer on the disk; drop it again to go on."


@dataclass(frozen=True)
class Listening:
    """How far the transcription of a video is."""

    running: bool = False
    share: float = 0.0  # of its seconds, 0…1
    error: str = ""


class Hearing:
    """Every method may be called from any thread. `speech` is the model that transcribes; None: there is none."""

    def __init__(self, store: Store, library: Library, speech: SpeechModel | None = None) -> None:
        self.store = store
        self.library = library
        self.speech = speech
        self._measuring = threading.Lock()  # one at a time: two tabs with one video measure it once
        self._lock = threading.Lock()
        self._states: dict[str, Listening] = {}
        self._stops: dict[str, threading.Event] = {}
        self._threads: list[threading.Thread] = []
        self._read = lru_cache(maxsize=8)(self._sound)

    # -- how it sounds ------------------------------------------------------------------------------------------

    def sound(self, sha256: str, progress: Callable[[float, float], None] | None = None) -> Sound:
        """Loudness, waveform and spans of a kept video. EngineError or AppError where it cannot be read."""
        sound, video, file = self._measured(sha256, progress), self.store.video(sha256), self.library.find(sha256)
        if video is None or file is None:
            return sound
        return replace(sound, note=sound.note.replace(file.name, video.name))  # a kept file is named by its content

    def _measured(self, sha256: str, progress: Callable[[float, float], None] | None) -> Sound:
        with self._measuring:
            kept = self._kept(sha256)
            if not kept.is_file():
                file = self._file(sha256)
                _write(kept, measure(file, probe(file), progress=progress))
            try:
                return self._read(sha256, kept.stat().st_mtime_ns)
            except (OSError, ValueError, KeyError, TypeError):  # cut off or of an older form: measured anew
                kept.unlink(missing_ok=True)
                sound = measure(self._file(sha256), progress=progress)
                _write(kept, sound)
                return sound

    def _sound(self, sha256: str, changed: int) -> Sound:
        return Sound.from_dict(json.loads(self._kept(sha256).read_text("utf-8")))

    def _kept(self, sha256: str) -> Path:
        return self.library.folder / f"{sha256}.sound.json"

    def _file(self, sha256: str) -> Path:
        file = self.library.find(sha256)
        if file is None:
            raise AppError(_GONE)
        return file

    # -- what is said -------------------------------------------------------------------------------------------

    def transcript(self, sha256: str) -> Transcript | None:
        """The one in use: heard or given last."""
        return self.store.transcripts.of(sha256)

    def cues(self, sha256: str) -> tuple[Timed, ...]:
        found = self.transcript(sha256)
        return found.cues if found is not None else ()

    def give(self, sha256: str, file: Path) -> Transcript:
        """Keep a file of subtitles as what is said. EngineError where it is none, FinetuneError where it cannot be
        kept."""
        return self.store.transcripts.keep(sha256, load_subtitles(file), by=file.name, source="file")

    def state(self, sha256: str) -> Listening:
        with self._lock:
            return self._states.get(sha256, Listening())

    def begin(self, sha256: str) -> None:
        """Have the speech model write down what is said; returns at once. Nothing happens while it does so already;
        what it wrote of this video before is used again.

        AppError where there is no speech model or the video is gone."""
        if self.speech is None:
            raise AppError("There is no speech model; start with --asr and the folder of a Whisper checkpoint.")
        file = self._file(sha256)
        known = self.store.transcripts.heard(sha256, self.speech.name)
        if known is not None:
            self.store.transcripts.keep(
                sha256, known.cues, by=known.by, source=known.source, language=known.language
            )  # now it is the one kept last
            return
        with self._lock:
            if self._states.get(sha256, Listening()).running:
                return
            self._states[sha256] = Listening(running=True)
            self._stops[sha256] = stop = threading.Event()
            thread = threading.Thread(target=self._listen, args=(sha256, file, stop), name="speech", daemon=True)
            self._threads = [old for old in self._threads if old.is_alive()] + [thread]
        thread.start()

    def stop(self, sha256: str) -> None:
        """End a transcription after the half minute it is at; nothing of it is kept."""
        with self._lock:
            if sha256 in self._stops:
                self._stops[sha256].set()

    def close(self) -> None:
        with self._lock:
            threads = list(self._threads)
            for stop in self._stops.values():
                stop.set()
        for thread in threads:
            thread.join(10)

    def _listen(self, sha256: str, file: Path, stop: threading.Event) -> None:
        def told(done: float, total: float) -> None:
            with self._lock:
                self._states[sha256] = Listening(running=True, share=done / max(total, 1e-6))

        error = ""
        try:
            assert self.speech is not None
            heard = self.speech.transcribe(file, progress=told, cancelled=stop.is_set)
            self.store.transcripts.keep(sha256, heard.cues, by=heard.by, source="speech", language=heard.language)
        except Cancelled:
            pass
        except (AppError, EngineError, FinetuneError) as problem:
            error = str(problem)
        except Exception as problem:  # the thread has no one to raise to
            _log.exception("transcription failed")
            error = f"What is said could not be written down ({type(problem).__name__}); try again."
        finally:
            with self._lock:
                self._states[sha256] = replace(Listening(), error=error)


def speech_model(config: AppConfig) -> SpeechModel | None:
    """The model of --asr, looked at now; EngineError where the folder holds none."""
    if config.asr is None:
        return None
    model = SpeechModel(config.asr, config.device)
    model.check()
    return model


def _write(path: Path, sound: Sound) -> None:
    """Whole or not at all. A disk that is full costs only that it is measured again."""
    partial = path.with_suffix(f".{threading.get_ident()}.part")
    try:
        partial.write_text(json.dumps(sound.to_dict(), separators=(",", ":")), "utf-8")
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
