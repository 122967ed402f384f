"""Real SGLang servers: what is tested here is compared with the local runtime, never with a stand-in."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.keye import KeyeProcessor
from engine.keye.configuration import KeyeConfig, KeyeVL1_5Config
from engine.runtime.base import Message
from engine.runtime.local import LocalRuntime
from engine.runtime.sglang import SGLangRuntime
from engine.runtime.sglang_server import Supervisor
from engine.video import Clip, Frames, sample
from tests.keye.conftest import processor, processor15, template, tokenizer  # noqa: F401  # fixtures
from tests.keye.helpers import GOLDEN, save_tiny
from tests.media import make_clip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in Path(str(item.fspath)).parents:
            item.add_marker(pytest.mark.sglang)


@dataclass(frozen=True)
class Served:
    """A running server and the same checkpoint in this process."""

    supervisor: Supervisor
    runtime: SGLangRuntime
    folder: Path

    @property
    def url(self) -> str:
        endpoint = self.supervisor.endpoint()
        assert endpoint is not None
        return endpoint.url

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.supervisor.api_key}"}


def serve(folder: Path | None, *more: str) -> Iterator[Served]:
    # float32 so that figures can be compared; on a GPU as well.
    options = ["--dtype", "float32", "--random-seed", "1", *more]
    if torch.cuda.is_available():
        options += ["--attention-backend", "triton"]  # the default kernels there take 16 bits only
    log: list[str] = []
    supervisor = Supervisor(str(folder) if folder else None, options=options, echo=log.append)
    runtime = SGLangRuntime(supervisor)
    try:
        info = runtime.info()
    except Exception:
        sys.stderr.writelines(log[-60:])
        raise
    try:
        yield Served(supervisor, runtime, Path(info.path))
    finally:
        runtime.close()


@pytest.fixture(scope="session")
def nano() -> Iterator[Served]:
    yield from serve(None)


@pytest.fixture(scope="session")
def local() -> LocalRuntime:
    runtime = LocalRuntime(device="cpu")
    runtime.start()
    return runtime


def _tiny(folder: Path, name: str, processor: KeyeProcessor, cls: type[KeyeConfig]) -> Path:  # noqa: F811
    """The recorded weights under a tokenizer whose ids fit into their vocabulary."""
    save_tiny(folder, processor, cls)
    shutil.copy(GOLDEN / name / "model.safetensors", folder)
    return folder


@pytest.fixture(scope="module")
def tiny_a(tmp_path_factory: pytest.TempPathFactory, processor: KeyeProcessor) -> Iterator[Served]:  # noqa: F811
    """Spread over two processes where the machine has two cores: tensor parallelism must not show."""
    folder = _tiny(tmp_path_factory.mktemp("a"), "A", processor, KeyeConfig)
    cores = sorted(os.sched_getaffinity(0))
    split = not torch.cuda.is_available() and len(cores) > 1
    with pytest.MonkeyPatch.context() as patch:
        if split:
            patch.setenv("SGLANG_CPU_OMP_THREADS_BIND", f"{cores[0]}|{cores[1]}")  # which core each process has
        yield from serve(folder, *(("--tp", "2") if split else ()))


@pytest.fixture(scope="module")
def tiny_a15(tmp_path_factory: pytest.TempPathFactory, processor15: KeyeProcessor) -> Iterator[Served]:  # noqa: F811
    yield from serve(_tiny(tmp_path_factory.mktemp("a15"), "A15", processor15, KeyeVL1_5Config))


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight seconds in which grey and colour alternate, so that 1.5 finds slow and fast frames."""

    def colour(index: int) -> tuple[int, int, int]:
        return (235, 235, 235) if index // 50 % 2 == 0 else (230, 30, 30)

    return make_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", frames=200, fps=25, size=(168, 112), colour=colour)


@pytest.fixture(scope="session")
def pictures() -> list[np.ndarray]:
    noise = np.random.default_rng(0)
    return [noise.integers(0, 256, size, np.uint8) for size in ((59, 79, 3), (112, 90, 3))]


Ask = Callable[..., list[Message]]


@pytest.fixture(scope="session")
def shapes(pictures: list[np.ndarray]) -> Callable[[Frames], dict[str, list[Message]]]:
    """The kinds of conversations that have to read the same everywhere."""

    def shapes(frames: Frames) -> dict[str, list[Message]]:
        one, two = pictures
        return {
            "text": [Message("user", ("What do you know?",))],
            "system": [Message("system", ("Be brief.",)), Message("user", ("Hello",))],
            "image": [Message("user", (one, "What is this?"))],
            "two images": [Message("user", (one, two, "Compare them."))],
            "video": [Message("user", (frames, "How many shapes are there?"))],
            "one clip twice": [Message("user", (frames, "and", frames, "Are they the same?"))],
            "mixed": [Message("user", (one, frames, "and", two, "in one."))],
            "conversation": [
                Message("user", (frames, "What happens?")),
                Message("assistant", ("A red circle moves.",)),
                Message("user", ("Where?",)),
            ],
            "begun turn": [
                Message("user", (frames, "What happens?")),
                Message("assistant", ("<think>closer: ", one, " a<|im_end|> I see")),
            ],
            "typed control tokens": [Message("user", (frames, "a <|video_pad|><|im_end|>\n<|im_start|> 中文 b"))],
        }

    return shapes


def frames_of(path: Path, runtime: Any, **limits: Any) -> Frames:
    return sample(
        Clip(path, limits.pop("start", None), limits.pop("end", None)), runtime.info().sampling.with_limits(**limits)
    )
