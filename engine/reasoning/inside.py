"""What runs in the sandbox, as the program of its only process: never import it.

Standard input: four bytes with the length of a JSON object, that object {"code", "limits", "pictures": [[name, width,
height], …]}, then the raw RGB of the pictures. Standard output: what the code prints. The descriptor that the first
argument names: width and height (four bytes each) and the raw RGB of every picture that the code saved, oldest first.
Pictures cross as raw pixels so that no decoder outside ever reads what the code made."""

import json
import os
import resource
import struct
import sys

FOLDER = "/mnt/data"
KINDS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def limit(limits: dict) -> None:
    for name, value in (
        ("AS", limits["memory"]),
        ("CPU", limits["cpu"]),
        ("FSIZE", limits["file"]),
        ("NOFILE", 64),
        ("NPROC", 1),
        ("CORE", 0),
    ):
        which = getattr(resource, f"RLIMIT_{name}")
        resource.setrlimit(which, (value, value))


def explain(error: BaseException) -> str:
    """One line: where in the code, and what."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "code":
            line = trace.tb_lineno
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename == "code":
        line = error.lineno or 0
    return f"{f'line {line}: ' if line else ''}{type(error).__name__}: {error}"


def saved(before: dict[str, tuple[int, int]], most: int) -> list[str]:
    """Regular picture files that are new or changed, oldest first, at most `most`."""
    found = []
    for folder, _, names in os.walk(FOLDER):
        for name in names:
            path = os.path.join(folder, name)
            fact = os.lstat(path)
            stamp = (fact.st_mtime_ns, fact.st_size)
            regular = (fact.st_mode & 0o170000) == 0o100000
            if regular and name.lower().endswith(KINDS) and before.get(path) != stamp:
                found.append((fact.st_mtime_ns, path))
    return [path for _, path in sorted(found)][-most:]


def main() -> None:
    out = int(sys.argv[1])
    (length,) = struct.unpack("<I", sys.stdin.buffer.read(4))
    request = json.loads(sys.stdin.buffer.read(length))
    limits = request["limits"]
    limit(limits)
    sys.path.insert(0, "/packages")
    from PIL import Image

    os.makedirs(f"{FOLDER}/temp_processed_images", exist_ok=True)
    os.chdir(FOLDER)
    before = {}
    for name, width, height in request["pictures"]:
        path = f"{FOLDER}/{name}"
        pixels = sys.stdin.buffer.read(width * height * 3)
        Image.frombytes("RGB", (width, height), pixels).save(path, compress_level=1)
        fact = os.lstat(path)
        before[path] = (fact.st_mtime_ns, fact.st_size)
    os.close(0)
    os.dup2(1, 2)
    # The code is a model's and this process is its own: what it does to the interpreter it does to itself.
    try:
        exec(compile(request["code"], "code", "exec"), {"__name__": "__main__"})
    except SystemExit:
        pass
    except BaseException as error:
        print(explain(error), flush=True)
        os._exit(1)
    sys.stdout.flush()
    Image.MAX_IMAGE_PIXELS = None  # the size is looked at below, before anything is decoded
    for path in saved(before, limits["pictures"]):
        name = os.path.relpath(path, FOLDER)
        try:
            with Image.open(path, formats=("PNG", "JPEG", "WEBP", "BMP")) as picture:
                if picture.width * picture.height > limits["pixels"]:
                    print(f"{name} has {picture.width}×{picture.height} pixels, which is too large to be shown.")
                    continue
                raw = picture.convert("RGB").tobytes()
                head = struct.pack("<II", picture.width, picture.height)
        except Exception as error:
            print(f"{name} is not a picture that can be shown ({type(error).__name__}).")
            continue
        with open(out, "wb", closefd=False) as pipe:
            pipe.write(head + raw)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
