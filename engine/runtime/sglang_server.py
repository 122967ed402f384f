"""A server of our own: starts SGLang, watches it, starts it again when it crashes, and leaves no process behind."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx

from engine.errors import EngineError
from engine.runtime.base import Status
from engine.runtime.endpoint import Endpoint, trusted
from engine.runtime.sglang_log import PORT_TAKEN, ServerLog
from engine.runtime.sglang_options import Plan, plan_server
from engine.runtime.source import resolve_model
from engine.sglang_plugin import ROOT, environment

VENV = ROOT / ".venv-sglang"
_START_SECONDS = 3600.0  # to be ready: 8 billion parameters from a slow disk
_POLL_SECONDS = 0.25
_HEALTH_SECONDS = 30.0  # for one token
_WATCH_SECONDS = 5.0
_DEAF = 6  # times in a row that nobody listened on the port although the process lives
_CRASHES = 4  # within _CRASH_SPAN; then it is given up
_CRASH_SPAN = 600.0
_STOP_SECONDS = 8.0  # until nothing is left of a server
_POLITE_SECONDS = 2.0  # it would wait ten for answers that nobody reads any more


class Supervisor:
    """Owns one server process group. `options` are SGLang's own; without `port` a free one is taken, without `api_key`
    a random one. `echo` gets every line of the server's log."""

    def __init__(
        self,
        model: str | None = None,
        *,
        device: str | None = None,
        options: Sequence[str] = (),
        host: str = "127.0.0.1",
        port: int | None = None,
        api_key: str | None = None,
        echo: Callable[[str], None] | None = None,
    ) -> None:
        self.api_key = api_key or secrets.token_hex(32)
        self._model, self._device, self._options = model, device, tuple(options)
        self._host, self._port, self._echo = host, port, echo
        self._status = Status("starting", "Waiting to start SGLang.")
        self._endpoint: Endpoint | None = None
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[str] | None = None
        self._epoch = 0
        self.start_seconds: float | None = None  # from starting the process to being ready, the last time
        # What the server writes aside (videos that came with requests) goes with it, however it ends.
        self._scratch = tempfile.TemporaryDirectory(prefix="keye-", ignore_cleanup_errors=True)

    # -- for the runtime ----------------------------------------------------------------------------------------

    def start(self) -> None:
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="sglang", daemon=True)
                self._thread.start()

    def status(self) -> Status:
        return self._status

    def endpoint(self, wait_seconds: float | None = None) -> Endpoint | None:
        """Where the server answers. Waits until it is ready, at most `wait_seconds`; None if it is not by then.

        Raises EngineError, with the reason, if it will not be."""
        self.start()
        with self._changed:
            self._changed.wait_for(lambda: self._status.state != "starting", wait_seconds)
            if self._status.state == "failed":
                raise EngineError(self._status.message)
            return self._endpoint if self._status.state == "ready" else None

    @property
    def pid(self) -> int | None:
        """The process that leads the server's group; None while there is none."""
        process = self._process
        return process.pid if process is not None else None

    @property
    def model(self) -> str | None:
        """What it was made for: a folder, a hub id, or None for keye-nano."""
        return self._model

    def on(self, model: str | None) -> Supervisor:
        """Another server with the same options and key for another model (None: the same), not started yet. A port
        that was asked for is free for it once this one is closed."""
        return Supervisor(
            self._model if model is None else model,
            device=self._device,
            options=self._options,
            host=self._host,
            port=self._port,
            api_key=self.api_key,
            echo=self._echo,
        )

    def close(self) -> None:
        """Stop the server and wait until its processes are gone."""
        self._closing.set()
        self._end_group()
        if self._thread is not None:
            self._thread.join(_STOP_SECONDS)
        self._scratch.cleanup()
        with self._changed:
            if self._status.state != "failed":
                self._set(Status("failed", "SGLang was stopped."))

    # -- life ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            folder = resolve_model(self._model, self._report)
            self._report("Checking the model", None)
            plan_server(folder, self._device, self._host, self._port or 0, self._options)  # before minutes of waiting
            self._install()
            self._keep_alive(folder)
        except EngineError as error:
            self._fail(str(error))
        except Exception as error:  # a thread must not die silently: whatever it was, the user is told
            self._fail(f"SGLang could not be started ({type(error).__name__}: {error}); run python -m engine serve.")
        finally:
            self._end_group()

    def _install(self) -> None:
        self._report("Installing SGLang; a few minutes, only the first time", None)
        shell = shutil.which("sh") or "sh"
        script = [shell, str(ROOT / "scripts" / "setup_sglang.sh"), str(VENV)]
        try:
            done = subprocess.run(
                script,
                env={"PYTHON": sys.executable, **os.environ},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
        except OSError as error:
            raise EngineError(f"SGLang cannot be installed here ({error.strerror}); run make setup-sglang.") from error
        if done.returncode:
            lines = [line for line in done.stdout.splitlines() if line.strip()]
            raise EngineError(
                f"SGLang could not be installed ({lines[-1] if lines else 'no reason given':.300}); "
                "run make setup-sglang to see why."
            )

    def _keep_alive(self, folder: Path) -> None:
        crashes: list[float] = []
        was_ready = False
        while not self._closing.is_set():
            port = self._port if self._port is not None else _free_port()
            _check_free(self._host, port)
            plan = plan_server(folder, self._device, self._host, port, self._options)
            log = ServerLog()
            process = self._spawn(plan, log)
            began = time.monotonic()
            if self._wait_ready(process, port):
                was_ready, self.start_seconds = True, time.monotonic() - began
                self._ready(plan, port)
                self._watch(process, port)
            self._end_group()
            if self._closing.is_set():
                return
            reason = log.cause(process.poll())
            crashes = [t for t in crashes if time.monotonic() - t < _CRASH_SPAN] + [time.monotonic()]
            # Its processes meet on ports that it has chosen itself, and another program may have been faster.
            if not was_ready and reason != PORT_TAKEN:
                raise EngineError(reason)
            if len(crashes) >= _CRASHES:
                raise EngineError(f"{reason} It ended {len(crashes)} times in a row and is not started again.")
            pause = 2.0 ** (len(crashes) - 1)
            self._report(f"SGLang ended and is started again. {reason}", None)
            self._closing.wait(pause)

    def _spawn(self, plan: Plan, log: ServerLog) -> subprocess.Popen[str]:
        self._report("Starting SGLang", None)
        env = {**os.environ, **environment(plan.architecture), "KEYE_SGLANG_API_KEY": self.api_key}
        env |= {"KEYE_SGLANG_GUARD": "1", "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "TMPDIR": self._scratch.name}
        if plan.info.device == "cpu":
            # Its three processes would otherwise each take every core, and then wait for each other.
            env.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 2) // 2)))
        process = subprocess.Popen(
            [str(VENV / "bin" / "python"), "-m", "engine.sglang_plugin.launch", *plan.options],
            env=env,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._process = process
        threading.Thread(target=self._read, args=(process, log), name="sglang-log", daemon=True).start()
        return process

    def _read(self, process: subprocess.Popen[str], log: ServerLog) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if self._echo is not None:
                self._echo(line)
            stage = log.add(line)
            if stage is not None and self._status.state == "starting" and process is self._process:
                self._report(*stage)

    def _wait_ready(self, process: subprocess.Popen[str], port: int) -> bool:
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None and not self._closing.is_set():
            if time.monotonic() > deadline:
                raise EngineError("SGLang was not ready within an hour; run python -m engine serve to see its log.")
            if self._ask(port, "/health") == 200:
                return True
            self._closing.wait(_POLL_SECONDS)
        return False

    def _watch(self, process: subprocess.Popen[str], port: int) -> None:
        """Return when the server is no longer of use. Slow answers of a busy server are no reason, deafness is."""
        deaf = 0
        asked = time.monotonic()
        while process.poll() is None and not self._closing.is_set() and deaf < _DEAF:
            self._closing.wait(_POLL_SECONDS)
            if time.monotonic() - asked >= _WATCH_SECONDS:
                deaf = deaf + 1 if self._ask(port, "/ready") is None else 0
                asked = time.monotonic()

    def _ask(self, port: int, path: str) -> int | None:
        """The HTTP status, 0 when it took too long, None when nobody listens.

        /health makes the model write a token, /ready asks the server alone and costs nothing."""
        url = f"http://{_reachable(self._host)}:{port}{path}"
        headers = {"Authorization": f"Bearer {self.api_key}"}
        try:
            return httpx.get(url, headers=headers, timeout=_HEALTH_SECONDS, verify=trusted()).status_code
        except httpx.ConnectError:
            return None
        except httpx.HTTPError:
            return 0

    def _end_group(self) -> None:
        process = self._process
        if process is None:
            return
        for number, patience in ((signal.SIGTERM, _POLITE_SECONDS), (signal.SIGKILL, _STOP_SECONDS)):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
            deadline = time.monotonic() + patience
            while _group_lives(process) and time.monotonic() < deadline:
                time.sleep(0.05)
        process.poll()
        if process.stdin is not None:
            process.stdin.close()

    # -- what is told -------------------------------------------------------------------------------------------

    def _ready(self, plan: Plan, port: int) -> None:
        with self._changed:
            self._epoch += 1
            self._endpoint = Endpoint(
                url=f"http://{_reachable(self._host)}:{port}",
                api_key=self.api_key,
                info=plan.info,
                users=plan.users,
                same_disk=True,
                epoch=self._epoch,
            )
            self._set(Status("ready"))

    def _report(self, sentence: str, fraction: float | None) -> None:
        with self._changed:
            self._set(Status("starting", sentence, fraction))

    def _fail(self, sentence: str) -> None:
        with self._changed:
            self._set(Status("failed", sentence))

    def _set(self, status: Status) -> None:
        self._status = status
        self._changed.notify_all()


def _group_lives(process: subprocess.Popen[str]) -> bool:
    process.poll()  # a zombie leader would look alive
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _check_free(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise EngineError(f"{host}:{port} cannot be used ({reason}); take another port with --port.") from error


def _reachable(host: str) -> str:
    """Where this machine reaches what listens on `host`."""
    if host in ("0.0.0.0", "::", ""):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
