"""A runtime whose model can be exchanged while it answers.

    served = Served(make_runtime("local"))
    served.serve(Path("runs/evening/sft/model"))            # or serve(None, Path("runs/evening/sft/adapter"))
    with served.candidate(None, other) as second: ...       # another model beside it, or in its place for a while

A new model is made ready beside the one that answers and takes over between answers; what was begun ends with the old
one. Where the memory does not hold both, or a server has to be started again, the old one is closed first, questions
wait, and it comes back where the new one cannot be loaded. On a server with the same checkpoint an adapter is loaded
and unloaded without any of that."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from engine.errors import EngineError
from engine.events import Error, Event, Progress
from engine.keye.loading import check_folder
from engine.runtime.adapters import adapter_name, check_adapter
from engine.runtime.base import Decoding, Message, ModelInfo, Runtime, Status
from engine.runtime.local import LocalRuntime
from engine.runtime.placement import fits_beside
from engine.runtime.sglang import SGLangRuntime
from engine.runtime.source import resolve_model
from engine.runtime.tally import Tally

RESTS = "The model rests while it is fine-tuned; pause the run to ask it, or wait for its end."

_LOOK_SECONDS = 0.2  # how often a waiting request looks whether it was stopped


@dataclass(frozen=True)
class Choice:
    """What can be served: a model folder (None: what the runtime was made with) and the adapter beside it."""

    model: Path | None = None
    adapter: Path | None = None


@dataclass(eq=False)
class _Speaker:
    """One that answers. It is left when it has been replaced and its last answer has ended."""

    runtime: Runtime
    choice: Choice
    leave: Callable[[], None]
    server: SGLangRuntime | None = None  # the one that it speaks through, where it is a server's
    holds: int = field(default=0)
    replaced: bool = field(default=False)


class Served:
    """Holds the runtime that answers. A `first` choice is tried at the start in place of the runtime's own model, which
    answers where that fails, and `note` says so. Every method may be called from any thread."""

    def __init__(self, runtime: Runtime, first: Choice | None = None) -> None:
        self._origin = runtime
        self._now = _speaker(runtime, Choice())
        self._first = first
        self._begun = False
        self._open = first is None  # whether questions are let through to `_now`
        self._changed = threading.Condition()  # guards all of the above and the counts of the speakers
        self._changing = threading.Lock()  # one exchange at a time
        self._coming: Runtime | None = None  # is being loaded
        self._info: ModelInfo | None = None  # of what answered last
        self._adapters: Counter[tuple[int, str]] = Counter()  # how many speakers use an adapter of a server
        self._closed = False
        self._rest: contextlib.ExitStack | None = None  # what ends the rest, while it rests
        self.note = ""  # what the page should say of what is served, one sentence

    # -- as a runtime -------------------------------------------------------------------------------------------

    def start(self) -> None:
        with self._changed:
            begun, self._begun = self._begun, True
        if begun:
            return
        if self._first is None:
            self._origin.start()
        else:
            threading.Thread(target=self._start_first, args=(self._first,), name="served", daemon=True).start()

    def status(self) -> Status:
        with self._changed:
            now, coming = (self._now, None) if self._open else (None, self._coming)
        if now is not None:
            return now.runtime.status()
        if self.resting:
            return Status("starting", RESTS)
        found = coming.status() if coming is not None else None
        return found if found is not None and found.state == "starting" else Status("starting", "Changing the model.")

    def info(self) -> ModelInfo:
        """What answers; while it is exchanged, what answered before."""
        self.start()
        with self._changed:
            self._changed.wait_for(lambda: self._open or self._info is not None or self.resting)
            if not self._open:
                if self._info is None:
                    raise EngineError(RESTS)
                return self._info
            now = self._now
            now.holds += 1  # it must not be closed before it has told
        try:
            info = now.runtime.info()
        finally:
            self._give(now)
        info = replace(info, note=self.note) if self.note else info
        with self._changed:
            if self._now is now:
                self._info = info
        return info

    def stream(self, messages: list[Message], decoding: Decoding, stop: threading.Event) -> Iterator[Event]:
        self.start()
        tally = Tally(time.perf_counter())
        while (speaker := self._take(_LOOK_SECONDS)) is None:
            if self.resting:
                yield Error(RESTS)
                yield tally.done("error", self._info.name if self._info else "")
                return
            yield Progress("loading", self.status().fraction)
            if stop.is_set():
                yield tally.done("stopped", "")
                return
        try:
            yield from speaker.runtime.stream(messages, decoding, stop)
        finally:
            self._give(speaker)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            coming = self._coming
        if coming is not None:
            coming.close()
        self._now.runtime.close()

    @contextmanager
    def held(self) -> Iterator[Runtime]:
        """What answers now, the same to the end of the block whatever is served meanwhile: for an answer of several
        parts. Waits while it is exchanged, EngineError while it rests; do not exchange it from within."""
        self.start()
        while (speaker := self._take(_LOOK_SECONDS)) is None:
            if self.resting:
                raise EngineError(RESTS)
        try:
            yield speaker.runtime
        finally:
            self._give(speaker)

    # -- resting ------------------------------------------------------------------------------------------------

    @property
    def resting(self) -> bool:
        return self._rest is not None

    def rest(self) -> None:
        """Close what answers and give its memory back, until `wake`. What is being answered ends first; what is asked
        meanwhile is told so. Raises EngineError where it is just being exchanged."""
        if self.resting:
            return
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._one_at_a_time())
            self._rest = stack.pop_all()
            self._rest.enter_context(self._alone())
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def wake(self) -> None:
        """Load it again, in the background."""
        rest, self._rest = self._rest, None
        if rest is not None:
            threading.Thread(target=rest.close, name="waking", daemon=True).start()

    # -- exchanging ---------------------------------------------------------------------------------------------

    def current(self) -> Choice:
        """What is served."""
        return self._now.choice

    def fits_beside(self, model: Path | None, adapter: Path | None = None) -> bool:
        """Whether it can be made ready while the other goes on answering. Raises EngineError for a folder that holds
        no model or no adapter."""
        choice, now = Choice(model, adapter), self._now
        if adapter is not None:
            check_adapter(adapter)
        if now.server is not None and self._same_model(choice):
            return True
        folder = self._folder(choice)
        check_folder(folder)  # before anything is closed for it
        if now.server is not None:
            self._made(choice).close()  # a server that is not ours says so now
            return False
        try:
            info = now.runtime.info()
        except EngineError:  # it cannot answer, and whatever it has taken of the memory is not wanted
            return False
        return fits_beside(folder, info.device, info.dtype)

    @property
    def start_seconds(self) -> float | None:
        """How long its server took to start the last time; None where there is none, or it was not ours."""
        return self._now.server.start_seconds if self._now.server is not None else None

    def serve(self, model: Path | None, adapter: Path | None = None) -> None:
        """Answer with this from now on; returns when it does.

        Raises EngineError where it cannot be loaded or changes nothing; what was served before is served then."""
        choice = Choice(model, adapter)
        with self._one_at_a_time():
            if self.fits_beside(model, adapter):
                new = self._opened(choice)
                with self._changed:
                    old, self._now = self._now, new
                    old.replaced, idle = True, old.holds == 0
                if idle:
                    old.leave()
            else:
                with self._alone():
                    new = self._opened(choice)
                    with self._changed:
                        self._now = new
            self.note = ""

    @contextmanager
    def candidate(self, model: Path | None, adapter: Path | None = None) -> Iterator[Runtime]:
        """Another model that answers in the block. Where both do not fit, what is served is away meanwhile, questions
        wait, and it comes back at the end. Raises EngineError as `serve` does."""
        choice = Choice(model, adapter)
        with self._one_at_a_time():
            beside = self.fits_beside(model, adapter)
            with contextlib.nullcontext() if beside else self._alone():
                speaker = self._opened(choice)
                try:
                    yield speaker.runtime
                finally:
                    if beside:
                        speaker.leave()
                    else:
                        speaker.runtime.close()

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        with contextlib.suppress(EngineError):
            self.info()  # what is served must be ready, or have failed, before it is exchanged
        if not self._changing.acquire(blocking=False):
            raise EngineError("Another model is being loaded or compared; wait until that has ended.")
        try:
            yield
        finally:
            self._changing.release()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Without what is served: its answers end, it is closed, and where nothing took its place in the block it
        comes back."""
        old = self._now
        with self._changed:
            self._open = False
            self._changed.wait_for(lambda: old.holds == 0)
        try:
            old.runtime.close()
            yield
        finally:
            if self._now is old and not self._closed:
                self._bring_back(old)
            with self._changed:
                self._open = True
                self._changed.notify_all()

    def _bring_back(self, old: _Speaker) -> None:
        try:
            again = self._opened(old.choice)
        except EngineError:  # no memory, or its folder is gone: its status says why, and so does every answer
            runtime = self._made(old.choice)
            runtime.start()
            again = _speaker(runtime, old.choice)
        with self._changed:
            self._now = again

    def _start_first(self, choice: Choice) -> None:
        try:
            with self._changing:
                new = self._opened(choice, begun=False)
            with self._changed:
                self._now = new
        except EngineError as error:
            self.note = f"What was promoted cannot be loaded, so the model that this was started with answers: {error}"
            self._origin.start()
        finally:
            with self._changed:
                self._open = True
                self._changed.notify_all()

    # -- loading ------------------------------------------------------------------------------------------------

    def _made(self, choice: Choice) -> Runtime:
        """A runtime of the kind that this one was made with, not started; of a server without the adapter."""
        if self._closed:
            raise EngineError("The studio is being closed; start it again to load a model.")
        model = None if choice.model is None else str(choice.model.resolve())  # a path, never taken for a hub id
        if isinstance(self._origin, LocalRuntime):
            return self._origin.on(model, choice.adapter)
        if isinstance(self._origin, SGLangRuntime):
            return self._origin.on(model)
        raise EngineError("The model of this runtime cannot be exchanged; start with a model folder or a server.")

    def _opened(self, choice: Choice, begun: bool = True) -> _Speaker:
        """A choice, loaded and seen to compute something. EngineError where it cannot be."""
        now = self._now
        if now.server is not None and not begun and choice.model is None:
            self._coming = now.server
            try:
                now.server.info()
                return self._adapted(now.server, choice)
            finally:
                self._coming = None
        if now.server is not None and self._open and self._same_model(choice):
            return self._adapted(now.server, choice)
        runtime = self._coming = self._made(choice)
        try:
            runtime.info()
            if isinstance(runtime, LocalRuntime):
                runtime.first_token()
                return _Speaker(runtime, choice, runtime.close)
            assert isinstance(runtime, SGLangRuntime)
            return self._adapted(runtime, choice)
        except BaseException:
            runtime.close()
            raise
        finally:
            self._coming = None

    def _adapted(self, server: SGLangRuntime, choice: Choice) -> _Speaker:
        """One that speaks through a running server, with the choice's adapter, which is loaded if it is not there."""
        if choice.adapter is None:
            return _Speaker(server.speaking(None), choice, lambda: None, server)
        check_adapter(choice.adapter)
        name = adapter_name(choice.adapter)
        if name not in server.adapters():
            server.load_adapter(name, choice.adapter)
        key = (id(server), name)
        with self._changed:
            self._adapters[key] += 1

        def leave() -> None:
            with self._changed:
                self._adapters[key] -= 1
                last = self._adapters[key] == 0
            if last:
                with contextlib.suppress(EngineError):  # the server has lost it already
                    server.unload_adapter(name)

        return _Speaker(server.speaking(name), choice, leave, server)

    def _same_model(self, choice: Choice) -> bool:
        """Whether it is an adapter of the checkpoint that the running server has, or that checkpoint itself."""
        if choice.model is None:
            return self._now.choice.model is None
        try:
            return choice.model.resolve() == Path(self._now.runtime.info().path).resolve()
        except EngineError:
            return False

    def _folder(self, choice: Choice) -> Path:
        if choice.model is not None:
            return resolve_model(str(choice.model.resolve()))  # a path, never taken for a hub id
        if isinstance(self._origin, LocalRuntime | SGLangRuntime):
            return resolve_model(self._origin.model)
        raise EngineError("The model of this runtime cannot be exchanged; start with a model folder or a server.")

    # -- who answers --------------------------------------------------------------------------------------------

    def _take(self, seconds: float | None) -> _Speaker | None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._open, seconds):
                return None
            self._now.holds += 1
            return self._now

    def _give(self, speaker: _Speaker) -> None:
        with self._changed:
            speaker.holds -= 1
            over = speaker.replaced and speaker.holds == 0
            self._changed.notify_all()
        if over:
            speaker.leave()


def _speaker(runtime: Runtime, choice: Choice) -> _Speaker:
    """One without an adapter of its own. A server stays when another one speaks through it: who starts another server
    closes it."""
    if isinstance(runtime, SGLangRuntime):
        return _Speaker(runtime, choice, lambda: None, runtime)
    return _Speaker(runtime, choice, runtime.close)


def hold(runtime: Runtime) -> AbstractContextManager[Runtime]:
    """What a runtime answers with now, to the end of the block (`Served.held`); other runtimes are it themselves."""
    return runtime.held() if isinstance(runtime, Served) else contextlib.nullcontext(runtime)
