"""From a run's result to what is served: compared blind with what answers, promoted, rolled back; on its own, so that
whoever started it may look away.

serving = Serving(store, make_runtime("local"), started_with="assets/keye-nano", folder=Path("data/trials"))
serving.served                                   # the runtime that answers, with what was promoted last
serving.compare(Path("runs/evening/sft"), Source(world=12))
serving.state()                                  # how far it is
serving.judge(trial.id, 0, "candidate")
serving.promote(trial.id)                        # serving.roll_back() takes it back"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from engine.errors import EngineError
from engine.runtime.adapters import alike, base_of, check_adapter
from engine.runtime.base import ModelInfo, Runtime, speaker
from engine.runtime.local import LocalRuntime
from engine.runtime.served import Choice, Served
from engine.video import Cancelled
from engine.video.cache import FrameCache
from finetune.bench.open_runtime import requests_in_flight
from finetune.errors import FinetuneError
from finetune.feedback.promotions import Promotion
from finetune.feedback.runs import Runs
from finetune.feedback.store import Store
from finetune.feedback.trials import Pair, Party, Trial, TrialVerdict
from finetune.loop.trial import HeldOut, Item, answer, draw, make, of_lessons, of_world
from finetune.loop.trial_preferences import as_preference

_log = logging.getLogger(__name__)
_CACHE_BYTES = 64 << 20  # frames kept until the second model is asked about them

Doing = Literal["", "compare", "promote", "roll_back"]
Lessons = Callable[[Store], Sequence[HeldOut]]


@dataclass(frozen=True)
class Source:
    """How many questions are asked: of the held-out lessons and of the generated world."""

    yours: int = 0
    world: int = 0


@dataclass(frozen=True)
class State:
    """What goes on. `done` of `total` answers are there; `trial` is the comparison they belong to."""

    doing: Doing = ""
    stopping: bool = False
    trial: str | None = None
    done: int = 0
    total: int = 0
    error: str = ""


@dataclass(frozen=True)
class Result:
    """What a run made, to choose from."""

    run: str
    label: str
    folder: str


class Serving:
    """What answers, over the `runtime` that was `started_with` a model, and what was promoted over that.

    The world's clips are kept in `folder`. `lessons` reads what the store teaches; `busy` says in a sentence why what
    is served must stay as it is, if it must. Any thread may call every method; one thing is done at a time."""

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        started_with: str,
        folder: Path,
        *,
        lessons: Lessons = lambda store: (),
        busy: Callable[[], str] = lambda: "",
    ) -> None:
        self._store, self._base, self.folder, self._lessons, self._busy = store, started_with, folder, lessons, busy
        now = store.promotions.now(started_with)
        promoted = None if now is None or now.is_base else Choice(_path(now.model), _path(now.adapter))
        self.served = Served(runtime, promoted)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._state = State()

    # -- looking ------------------------------------------------------------------------------------------------

    def state(self) -> State:
        return self._state

    def held_out(self) -> int:
        """How many held-out questions of one's own there are."""
        return len(of_lessons(self._lessons(self._store)))

    def results(self) -> list[Result]:
        """What runs have made and what is still there, the newest first."""
        runs = Runs(self._store.path)
        try:
            found = []
            for run in runs.list():
                for stage in reversed(runs.stages(run.id)):
                    folder = Path(stage.folder).parent if stage.folder else None
                    if stage.status == "done" and folder is not None and _inside(folder):
                        label = f"{run.name} · {stage.name} · {stage.updated[:16].replace('T', ' ')}"
                        found.append(Result(run.id, label, str(folder)))
            return found
        finally:
            runs.close()

    def promotion(self) -> Promotion | None:
        """What is in force; None where what was started answers, and nothing was ever promoted over it."""
        return self._store.promotions.now(self._base)

    def history(self) -> list[Promotion]:
        return self._store.promotions.history(self._base)

    def serves(self, trial: Trial) -> bool:
        """Whether a comparison's candidate is what answers now."""
        return self.served.current() == Choice(_path(trial.model), _path(trial.adapter))

    def pauses(self, folder: Path) -> bool:
        """Whether questions on the page have to wait while this is compared or promoted."""
        choice = self.choice(folder)
        return not self.served.fits_beside(choice.model, choice.adapter)

    def choice(self, folder: Path) -> Choice:
        """What a folder holds: a model, an adapter, or the stage of a run that wrote one of them. The adapter is taken
        where it stands beside what is served, since that is exchanged at once. FinetuneError for anything else."""
        folder = folder.expanduser().absolute()
        for known, inner in ((folder, ""), (folder / "adapter", "adapter"), (folder / "model", "model")):
            if (known / "adapter_config.json").is_file():
                base, now = base_of(known), self.served.current()
                at_home = base is not None and base.resolve() == Path(self.served.info().path).resolve()
                if not inner or at_home or not (folder / "model" / "config.json").is_file():
                    return Choice(now.model if at_home or base is None else base, known)
            elif (known / "config.json").is_file():
                return Choice(known)
        raise FinetuneError(f"{folder} holds no model and no adapter; give the folder of one, or of a run's stage.")

    # -- doing --------------------------------------------------------------------------------------------------

    def compare(self, folder: Path, source: Source, run: str | None = None, seed: int | None = None) -> None:
        """Begin to ask both what `source` says. Raises FinetuneError or EngineError where that makes no sense, or
        something else is still going on."""
        choice = self.choice(folder)
        if choice.adapter is not None:
            check_adapter(choice.adapter)
        seed = secrets.randbelow(2**31) if seed is None else seed
        items = draw(of_lessons(self._lessons(self._store)), source.yours, seed) if source.yours > 0 else []
        items += of_world(source.world, seed, self.folder) if source.world > 0 else []
        if not items:
            raise FinetuneError(
                "There are no held-out questions to ask; keep some videos for measuring under Data, or ask about the "
                "generated world."
            )
        self._begin("compare", lambda: self._compare(choice, draw(items, len(items), seed), seed, run))

    def promote(self, trial: str) -> None:
        """Begin to serve a comparison's candidate."""
        chosen = self._store.trials.one(trial)
        choice = Choice(_path(chosen.model), _path(chosen.adapter))
        self._begin("promote", lambda: self._promote(choice, chosen.run, trial))

    def roll_back(self) -> None:
        """Begin to serve again what was served before. FinetuneError if nothing was promoted."""
        before = self._store.promotions.before(self._base)
        choice = Choice(_path(before.model), _path(before.adapter)) if before is not None else Choice()
        self._begin("roll_back", lambda: self._roll_back(choice))

    def stop(self) -> None:
        """End a comparison within a token; what was answered stays."""
        with self._lock:
            self._stop.set()
            if self._state.doing == "compare":
                self._state = replace(self._state, stopping=True)

    def join(self, timeout: float | None = None) -> None:
        """Wait until nothing goes on."""
        if self._thread is not None:
            self._thread.join(timeout)

    def close(self) -> None:
        self.stop()
        self.join(30.0)

    def judge(self, trial: str, position: int, verdict: TrialVerdict | None) -> Pair:
        """Keep what a person says of a pair; of a stored question it is kept as a preference too.

        FinetuneError where there is nothing to choose between."""
        with self._store.transaction():
            pair = self._store.trials.judge(trial, position, verdict)
            return as_preference(self._store, self._store.trials.one(trial), pair)

    # -- inside -------------------------------------------------------------------------------------------------

    def _begin(self, doing: Doing, work: Callable[[], None]) -> None:
        if sentence := self._busy():
            raise FinetuneError(sentence)
        with self._lock:
            if self._state.doing:
                raise FinetuneError("Another model is being loaded or compared; wait until that has ended.")
            self._stop = threading.Event()
            self._state = State(doing=doing)
            self._thread = threading.Thread(target=self._run, args=(work,), name="serving", daemon=True)
            self._thread.start()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (FinetuneError, EngineError) as error:
            self._failed(str(error))
        except Exception as error:  # our own defect: the user is told, the details are in the log
            _log.exception("exchanging or comparing models failed")
            self._failed(f"Something went wrong on our side ({type(error).__name__}); what is served has not changed.")
        finally:
            self._set(doing="", stopping=False)

    def _failed(self, sentence: str) -> None:
        self._set(error=sentence)
        if self._state.trial is not None:
            try:
                self._store.trials.ended(self._state.trial, sentence)
            except FinetuneError:
                _log.exception("a comparison's end could not be kept")

    def _set(self, **changes: Any) -> None:
        with self._lock:
            self._state = replace(self._state, **changes)

    def _compare(self, choice: Choice, items: list[Item], seed: int, run: str | None) -> None:
        trials = self._store.trials
        cache = FrameCache(_CACHE_BYTES)
        with self.served.held() as runtime:
            base = runtime.info()
            trial = trials.begin(
                [item.asked() for item in items],
                seed=seed,
                base=_speaker(base),
                candidate={},
                model=_text(choice.model),
                adapter=_text(choice.adapter),
                run=run,
            )
            self._set(trial=trial.id, total=2 * len(items))
            probe = _probe(runtime)
            self._ask(trial, "base", runtime, base, items, cache)
        if self._stop.is_set():
            return trials.ended(trial.id, "It was stopped before both had answered.")
        with self.served.candidate(choice.model, choice.adapter) as runtime:
            info = runtime.info()
            trials.spoken(trial.id, _speaker(info))
            other = _probe(runtime)
            if probe is not None and other is not None and alike(probe, other):
                raise FinetuneError(f"{info.name} answers exactly as what is served; there is nothing to compare.")
            self._ask(trial, "candidate", runtime, info, items, cache)
        if self._stop.is_set():
            trials.ended(trial.id, "It was stopped before both had answered.")

    def _ask(
        self, trial: Trial, party: Party, runtime: Runtime, info: ModelInfo, items: list[Item], cache: FrameCache
    ) -> None:
        def one(position: int) -> None:
            if self._stop.is_set():
                return
            item = items[position]
            try:
                make(item)
                said = answer(runtime, info, item, cache, self._stop)
            except Cancelled:
                return
            except (EngineError, FinetuneError) as error:
                said = {"text": "", "error": str(error)}
            if said is not None:
                self._store.trials.answered(trial.id, position, party, said)
                with self._lock:
                    self._state = replace(self._state, done=self._state.done + 1)

        with ThreadPoolExecutor(requests_in_flight(runtime), "trial") as pool:
            for future in [pool.submit(one, position) for position in range(len(items))]:
                future.result()

    def _promote(self, choice: Choice, run: str | None, trial: str | None) -> None:
        replaced = _named(self._name())
        self.served.serve(choice.model, choice.adapter)
        self._store.promotions.promote(
            self._base,
            model=_text(choice.model),
            adapter=_text(choice.adapter),
            name=_named(self.served.info()),
            replaced=replaced,
            run=run,
            trial=trial,
        )

    def _roll_back(self, choice: Choice) -> None:
        self.served.serve(choice.model, choice.adapter)
        self._store.promotions.roll_back(self._base, name=_named(self.served.info()))

    def _name(self) -> ModelInfo | None:
        try:
            return self.served.info()
        except EngineError:  # what is served cannot answer; it can still be replaced
            return None


def _named(info: ModelInfo | None) -> str:
    return speaker(info.name, info.adapter) if info is not None else "nothing"


def _speaker(info: ModelInfo) -> dict[str, Any]:
    return {
        "model": info.name,
        "checkpoint": info.path,
        "adapter": info.adapter,
        "runtime": info.runtime,
        "decoding": {**asdict(info.decoding), "greedy": True},
    }


def _probe(runtime: Runtime) -> torch.Tensor | None:
    """What tells models apart where both are in this process; a server makes sure of its adapters itself."""
    return runtime.first_token() if isinstance(runtime, LocalRuntime) else None


def _inside(folder: Path) -> bool:
    return (folder / "model" / "config.json").is_file() or (folder / "adapter" / "adapter_config.json").is_file()


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
