"""Escapes from the sandbox, tried and held. Each test runs hostile code and looks at this machine, not at what the code
says of itself, wherever that is possible."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from engine.reasoning import sandbox
from engine.reasoning.sandbox import Limits, Output, run_code, unavailable

pytestmark = pytest.mark.skipif(bool(unavailable()), reason=unavailable() or "there is a sandbox")

ROOMY = Limits(seconds=600, cpu_seconds=300)  # a busy machine decides nothing
PICTURE = np.arange(40 * 60 * 3, dtype=np.uint32).reshape(40, 60, 3).astype(np.uint8)


def run(code: str, limits: Limits = ROOMY, **pictures: np.ndarray) -> Output:
    return run_code(code, {f"{name}.png": image for name, image in pictures.items()}, limits)


def attempt(*lines: str) -> Output:
    """Code of which every line is tried; it prints `held` or `ESCAPED` for each."""
    code = "import os, socket, sys\n"
    for line in lines:
        code += (
            f"try:\n    exec({line!r})\nexcept BaseException as error:\n    print('held', type(error).__name__)\n"
            f"else:\n    print('ESCAPED', {line!r})\n"
        )
    output = run(code)
    assert not output.problem, output
    return output


def held(output: Output, times: int) -> None:
    assert "ESCAPED" not in output.text, output.text
    assert output.text.count("held") == times, output.text


# -- what it is for ---------------------------------------------------------------------------------------------


def test_code_crops_its_picture_as_in_the_report() -> None:
    output = run(
        "from PIL import Image\n"
        "part = Image.open('frame_1.png').crop((10, 5, 30, 25)).resize((40, 40), Image.NEAREST)\n"
        "path = '/mnt/data/temp_processed_images/part_4821.png'\n"
        "part.save(path)\nprint(path)",
        frame_1=PICTURE,
    )
    assert output.text == "/mnt/data/temp_processed_images/part_4821.png\n" and not output.problem
    (image,) = output.pictures
    assert np.array_equal(image, PICTURE[5:25, 10:30].repeat(2, 0).repeat(2, 1))


def test_an_error_is_one_line_that_says_where() -> None:
    output = run("x = 1\n\ny = x + nothing")
    assert output.text == "line 3: NameError: name 'nothing' is not defined\n" and output.problem == "The code failed."
    assert run("def f(:\n").text.startswith("line 1: SyntaxError")


def test_inputs_are_not_results_and_only_the_newest_pictures_come_back() -> None:
    code = "from PIL import Image\nfor i in range(6):\n    Image.new('RGB', (i + 1, 1)).save(f'{i}.png')"
    assert [p.shape[1] for p in run(code, frame_1=PICTURE).pictures] == [3, 4, 5, 6]
    assert run("print(1)", frame_1=PICTURE).pictures == ()


# -- files ------------------------------------------------------------------------------------------------------


def test_nothing_outside_can_be_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")
    here = Path(__file__).resolve()
    for path in (secret, here, here.parents[2] / "engine" / "errors.py", Path("/etc/passwd"), Path("/etc/hostname")):
        held(attempt(f"print(open({str(path)!r}).read())"), 1)
    listed = run("import os\nprint(sorted(os.listdir('/')))").text
    assert {"home", "root", "tmp", "var", "proc", "dev", "sys", "run"}.isdisjoint(eval_list(listed) - {prefix_root()})


def eval_list(text: str) -> set[str]:
    return {name.strip(" '[]\n") for name in text.split(",")}


def prefix_root() -> str:
    """The first folder on the way to the interpreter, which is there, but with nothing else in it."""
    import sys

    return Path(sys.base_prefix).resolve().parts[1]


def test_on_the_way_to_the_interpreter_there_is_nothing_else() -> None:
    import sys

    prefix = Path(sys.base_prefix).resolve()
    if prefix == Path("/usr"):
        pytest.skip("the interpreter is the system's")
    output = run(f"import os\nprint(os.listdir({str(Path('/') / prefix.parts[1])!r}))")
    assert output.text.strip() == str([prefix.parts[2]])


def test_nothing_outside_can_be_written(tmp_path: Path) -> None:
    target = tmp_path / "written"
    lines = [f"open({path!r}, 'w').write('x')" for path in (str(target), "/x", "/usr/lib/x", "/inside.py", "/mnt/x")]
    held(attempt(*lines, "os.mkdir('/tmp')", "os.remove('/inside.py')", "os.chmod('/inside.py', 0o777)"), 8)
    assert list(tmp_path.iterdir()) == []


def test_symlinks_and_hard_links_lead_nowhere(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    output = run(
        f"import os\nos.symlink({str(secret)!r}, 'a.png')\nos.symlink('/inside.py', 'b.png')\n"
        "os.symlink('/', 'c')\nos.symlink('a.png', 'a2.png')\n"
        "os.mkfifo('pipe.png')\nos.mkdir('folder.png')\nprint('made')"
    )
    assert output.text == "made\n" and output.pictures == () and not output.problem
    held(attempt(f"os.link({str(secret)!r}, 'd')", "os.link('/inside.py', 'e')"), 2)


def test_there_is_no_proc_and_no_dev() -> None:
    lines = [f"open({p!r}).read()" for p in ("/proc/self/environ", "/proc/1/root/etc/passwd", "/proc/self/mem")]
    lines += ["os.listdir('/proc')", "os.listdir('/dev')", "os.listdir('/sys')", "open('/dev/mem')"]
    lines += ["os.mknod('disk', 0o60660, os.makedev(8, 0))"]
    held(attempt(*lines), len(lines))


# -- what is inherited ------------------------------------------------------------------------------------------


def test_the_environment_is_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_SECRET", "hunter2")
    names = eval_list(run("import os\nprint(sorted(os.environ))").text)
    assert names <= {"OPENBLAS_NUM_THREADS", "LC_ALL", "PYTHONHASHSEED", "PWD"}


def test_descriptors_are_not_inherited(tmp_path: Path) -> None:
    secret = tmp_path / "open.txt"
    secret.write_text("the secret")
    with secret.open() as file:
        os.set_inheritable(file.fileno(), True)
        code = (
            "import os\nfor n in range(200):\n    try:\n        print(n, os.fstat(n).st_mode & 0o170000 == 0o10000)\n"
        )
        code += "    except OSError:\n        pass"
        lines = run(code).text.split("\n")[:-1]
    # Standard output, standard error (the same pipe) and the pipe of the pictures.
    assert len(lines) == 3 and all(line.endswith("True") for line in lines), lines


# -- network ----------------------------------------------------------------------------------------------------


def test_no_tcp_no_udp_no_dns() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        server.settimeout(0)
        datagrams.bind(("127.0.0.1", 0))
        datagrams.settimeout(0)
        tcp, udp = server.getsockname()[1], datagrams.getsockname()[1]
        lines = [
            f"socket.create_connection(('127.0.0.1', {tcp}), 2)",
            f"socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {udp}))",
            "socket.getaddrinfo('localhost.localdomain', 80)[99]",
            "socket.gethostbyname('example.com')",
            "socket.socket(socket.AF_INET6)",
            "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
            "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        ]
        held(attempt(*lines), len(lines))
        with pytest.raises(BlockingIOError):
            server.accept()
        with pytest.raises(BlockingIOError):
            datagrams.recv(1)


def test_no_unix_sockets(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as abstract:
        server.bind(str(tmp_path / "s"))
        server.listen()
        name = f"\0keye-{os.getpid()}"
        abstract.bind(name)
        abstract.listen()
        lines = [
            f"socket.socket(socket.AF_UNIX).connect({str(tmp_path / 's')!r})",
            f"socket.socket(socket.AF_UNIX).connect({name!r})",
            "socket.socketpair()",
        ]
        held(attempt(*lines), 3)


# -- processes --------------------------------------------------------------------------------------------------


def test_there_are_no_further_processes_or_threads() -> None:
    lines = [
        "os.fork()",
        "import subprocess; subprocess.run(['/usr/bin/true'])",
        "os.system('true') and 1 / 0",
        "os.posix_spawn('/inside.py', ['x'], {})",
        "import threading; threading.Thread(target=print).start()",
        "import multiprocessing; multiprocessing.Process(target=print).start()",
        "os.forkpty()",
    ]
    held(attempt(*lines), len(lines))


def test_a_fork_bomb_makes_no_process() -> None:
    before = len(psutil.pids())
    tries = "for _ in range(10000):\n    try:\n        os.fork()\n        n += 1\n    except OSError:\n        pass"
    output = run(f"import os\nn = 0\n{tries}\nprint(n)")
    assert output.text == "0\n"
    assert len(psutil.pids()) < before + 200


def test_nobody_outside_can_be_signalled() -> None:
    got: list[int] = []
    old = signal.signal(signal.SIGUSR1, lambda *_: got.append(1))
    try:
        run(
            f"import os, signal\nfor pid in ({os.getpid()}, os.getppid(), -1, 0, {os.getppid()}):\n    try:\n"
            "        os.kill(pid, signal.SIGUSR1)\n    except OSError:\n        pass"
        )
        run("import os, signal\nos.kill(-1, signal.SIGKILL)\nos.kill(1, signal.SIGKILL)")
        time.sleep(0.05)
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert got == []


def test_namespaces_mounts_and_tracing_are_refused() -> None:
    calls = {
        "unshare": 272,
        "mount": 165,
        "ptrace": 101,
        "setns": 308,
        "bpf": 321,
        "keyctl": 250,
        "io_uring_setup": 425,
    }
    calls |= {
        "io_uring_setup": 425,
        "memfd_create": 319,
        "chroot": 161,
        "clone3": 435,
        "userfaultfd": 323,
        "process_vm_readv": 310,
    }
    if os.uname().machine != "x86_64":
        pytest.skip("the numbers are x86_64's")
    code = "import ctypes, errno\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    code += f"for name, number in {calls}.items():\n    ctypes.set_errno(0)\n"
    code += "    r = libc.syscall(number, 0, 0, 0, 0, 0, 0)\n"
    code += "    print(name, r, errno.errorcode.get(ctypes.get_errno()))\n"
    lines = run(code).text.splitlines()
    assert lines == [f"{name} -1 EPERM" for name in calls]


def test_what_closes_its_pipes_and_goes_on_is_ended() -> None:
    began = set(psutil.Process().children(recursive=True))
    closing = "for n in range(64):\n    try:\n        os.close(n)\n    except OSError:\n        pass"
    output = run(f"import os\n{closing}\nwhile True: pass", Limits(seconds=2, cpu_seconds=30))
    assert "ended" in output.problem
    assert gone(began)


def gone(began: set[psutil.Process]) -> bool:
    """Whether every process that was started since has ended (a killed one may take a moment to be cleared away)."""
    for _ in range(200):
        if not set(psutil.Process().children(recursive=True)) - began:
            return True
        time.sleep(0.02)
    return False


# -- too much ---------------------------------------------------------------------------------------------------


def test_memory_is_limited() -> None:
    output = run("x = []\nwhile True:\n    x.append(bytes(50_000_000))", replace(ROOMY, memory_bytes=1 << 29))
    assert "MemoryError" in output.text or "ended" in output.problem


def test_a_file_and_all_files_are_limited() -> None:
    one = run(
        "f = open('big', 'wb')\nfor _ in range(100):\n    f.write(bytes(1 << 20))\n    f.flush()\nprint('ESCAPED')"
    )
    assert "ESCAPED" not in one.text and one.problem
    limits = replace(ROOMY, scratch_bytes=8 << 20)
    many = run(
        "for i in range(100):\n    with open(str(i), 'wb') as f:\n        f.write(bytes(1 << 20))\nprint('ESCAPED')",
        limits,
    )
    assert "No space left" in many.text and many.problem == "The code failed."


def test_endless_work_and_endless_waiting_end() -> None:
    began = set(psutil.Process().children(recursive=True))
    assert "ended" in run("while True: pass", Limits(seconds=600, cpu_seconds=1)).problem
    assert "1 seconds" in run("import time\ntime.sleep(1000)", Limits(seconds=1)).problem
    deaf = (
        "for s in range(1, 32):\n    try:\n        signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError):"
    )
    stubborn = f"import signal\n{deaf}\n        pass\nwhile True: pass"
    assert "ended" in run(stubborn, Limits(seconds=600, cpu_seconds=1)).problem
    assert gone(began)


def test_printing_without_end_ends() -> None:
    output = run("while True: print('x' * 1000)")
    assert "printed more than" in output.problem and len(output.text) <= ROOMY.text_bytes
    assert "printed more than" in run("print('x' * 100_000_000)").problem


def test_stopping_ends_it() -> None:
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    output = run_code("while True: pass", {}, ROOMY, stop)
    assert output.problem == "The code was stopped."


FIND_PIPE = """import os
for n in range(4, 200):
    try:
        os.fstat(n)
        break
    except OSError:
        pass
"""

# -- what comes back --------------------------------------------------------------------------------------------


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(Path("/tmp") / f"unpickled-{os.getpid()}"),)


def test_a_pickle_in_the_result_is_never_loaded() -> None:
    data = pickle.dumps(_Bomb())
    output = run(f"for name in ('a.pkl', 'a.npy', 'a.png'):\n    open(name, 'wb').write({data!r})")
    assert output.pictures == () and "a.png is not a picture" in output.text
    assert not (Path("/tmp") / f"unpickled-{os.getpid()}").exists()


def test_an_image_bomb_is_refused() -> None:
    bomb = (
        "import struct, zlib\n"
        "def chunk(kind, data):\n"
        "    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))\n"
        "head = struct.pack('>IIBBBBB', 60000, 60000, 8, 2, 0, 0, 0)\n"
        "open('bomb.png', 'wb').write(b'\\x89PNG\\r\\n\\x1a\\n' + chunk(b'IHDR', head)"
        " + chunk(b'IDAT', zlib.compress(bytes(1 << 20))) + chunk(b'IEND', b''))\n"
        "from PIL import Image\nImage.new('RGB', (3000, 3000)).save('large.png')"
    )
    output = run(bomb)
    assert output.pictures == () and output.text.count("too large") == 2


@pytest.mark.parametrize(
    "data",
    ["b'junk'", "b'x' * 1000", "b'\\xff' * 8 + b'x' * 100", "bytes(8)", "(9).to_bytes(4, 'little') * 2 + bytes(242)"],
)
def test_what_is_written_to_the_pipe_of_the_pictures_is_checked(data: str) -> None:
    output = run(f"{FIND_PIPE}os.write(n, {data})\nos._exit(0)")
    assert output.pictures == () and output.problem == "The code gave back something that is not a picture."


def test_more_than_fits_the_pipe_of_the_pictures_ends_it() -> None:
    output = run(f"{FIND_PIPE}while True: os.write(n, bytes(1 << 16))", replace(ROOMY, picture_pixels=1 << 16))
    assert output.problem == "The code was ended: it gave back too much."


def test_ending_itself_is_said() -> None:
    assert "ended" in run("import os\nos._exit(7)").problem
    assert not run("raise SystemExit").problem


def test_without_namespaces_code_is_off_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.errors import EngineError

    sandbox.unavailable.cache_clear()
    monkeypatch.setattr(sandbox, "_run", lambda *_: Output("", problem="The code failed."))
    try:
        assert "does not permit" in unavailable()
        with pytest.raises(EngineError, match="not run"):
            run_code("print(1)", {})
    finally:
        sandbox.unavailable.cache_clear()
