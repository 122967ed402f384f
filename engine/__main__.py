"""The engine from a shell.

    python -m engine probe VIDEO [--json]
    python -m engine hear VIDEO [--asr DIR] [--vtt FILE] [--json]
    python -m engine ask VIDEO "What happens?" [--mode think] [--model DIR] [--runtime local|sglang|URL] [--json]
    python -m engine serve [--model DIR] [--port N] [SGLang's own options, such as --tp 4]

Exit code 0 when it worked, 2 when the user has to change something; the sentence says what."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import EngineError
from engine.events import (
    Analysis,
    Answer,
    Done,
    Error,
    Event,
    Note,
    Progress,
    Queued,
    Retraction,
    Thought,
    ToolCall,
    ToolResult,
)
from engine.timed import Timed
from engine.video import Clip, Sampling, VideoInfo, describe, probe, sample, sampling_for

if TYPE_CHECKING:
    from engine.runtime.base import Runtime


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if arguments.run is _serve:
        arguments.options = rest  # SGLang's own
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return arguments.run(arguments)
    except EngineError as error:
        if arguments.json:
            _emit(Error(str(error)))
            _emit(Done(finish="error", text="", model=""))
        else:
            print(error, file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader (head, a pager) has seen enough
        sys.stderr.close()
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m engine", description="Ask Keye-VL about a video.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    clip = argparse.ArgumentParser(add_help=False)
    clip.add_argument("video", type=Path, help="a video file")
    clip.add_argument("--start", type=float, metavar="S", help="first second of the range")
    clip.add_argument("--end", type=float, metavar="S", help="last second of the range")
    clip.add_argument("--fps", type=float, metavar="F", help="frames to take per second")
    clip.add_argument("--max-frames", type=int, metavar="N", help="most frames to take")
    clip.add_argument("--budget", type=int, metavar="TOKENS", help="most visual tokens the clip may cost")
    clip.add_argument("--model", metavar="DIR", help="a model folder or hub id (default: keye-nano)")
    clip.add_argument("--json", action="store_true", help="print JSON")

    show = commands.add_parser("probe", parents=[clip], help="what a video is and which frames the model would get")
    show.set_defaults(run=_probe)

    ask = commands.add_parser("ask", parents=[clip], help="ask about a video; the answer streams")
    ask.add_argument("question")
    ask.add_argument("--mode", default="auto", help="auto, think, no_think or think_with_image (default: auto)")
    ask.add_argument("--think-budget", type=int, metavar="N", help="most tokens of thought before the answer")
    ask.add_argument("--max-tokens", type=int, metavar="N", help="most tokens of the answer")
    ask.add_argument("--greedy", action="store_true", help="always take the likeliest token")
    ask.add_argument("--seed", type=int, help="draw the same answer again")
    ask.add_argument("--device", help="cpu, cuda, cuda:1 … (default: what is there)")
    ask.add_argument("--runtime", metavar="WHERE", help="local, sglang or http://host:port (default: what is there)")
    ask.set_defaults(run=_ask)

    ask.add_argument("--asr", type=Path, metavar="DIR", help="a Whisper checkpoint: the model is given what is said")
    ask.add_argument("--subtitles", type=Path, metavar="FILE", help="an .srt or .vtt file, given in the same way")

    hear = commands.add_parser("hear", help="how a video sounds, and with a speech model what is said in it")
    hear.add_argument("video", type=Path, help="a video file")
    hear.add_argument("--asr", type=Path, metavar="DIR", help="folder of a Whisper checkpoint")
    hear.add_argument("--language", metavar="CODE", help="what is spoken, such as en or zh (default: it finds out)")
    hear.add_argument("--device", help="cpu, cuda, cuda:1 … (default: what is there)")
    hear.add_argument("--vtt", type=Path, metavar="FILE", help="write what is said as subtitles")
    hear.add_argument("--json", action="store_true", help="print JSON")
    hear.set_defaults(run=_hear)

    serve = commands.add_parser(
        "serve",
        help="serve the model to other programs with SGLang",
        description="Options that are not listed here are SGLang's own and passed on: --tp 4, --quantization fp8 …",
        allow_abbrev=False,
    )
    serve.add_argument("--model", metavar="DIR", help="a model folder or hub id (default: keye-nano)")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, default=30000, help="port to listen on (default: 30000)")
    serve.add_argument("--device", help="cpu, or cuda (default: what is there)")
    serve.set_defaults(run=_serve, json=False)
    return parser


def _sampling(arguments: argparse.Namespace, of_model: Sampling) -> Sampling:
    return of_model.with_limits(fps=arguments.fps, max_frames=arguments.max_frames, budget=arguments.budget)


def _probe(arguments: argparse.Namespace) -> int:
    from engine.runtime.source import resolve_model

    sampling = _sampling(arguments, sampling_for(resolve_model(arguments.model)))
    info = probe(arguments.video)
    facts = describe(sample(Clip(arguments.video, arguments.start, arguments.end), sampling, info=info))
    if arguments.json:
        print(json.dumps(facts, ensure_ascii=False))
    else:
        print(_readable(facts))
    return 0


def _readable(facts: dict[str, Any]) -> str:
    video, sampling = facts["video"], facts["sampling"]
    turned = f", turned {video['rotation']}°" if video["rotation"] else ""
    rate = f"{video['fps']:.4g} fps{' (variable)' if video['variable_rate'] else ''}"
    lines = [
        f"{video['path']}",
        f"  {video['codec']} in {video['container']}, {video['width']}×{video['height']}{turned}, {rate}, "
        f"{video['duration']:.2f} s, {video['audio'] or 'no sound'}",
        f"  {len(facts['frames'])} frames, {facts['tokens']} of {facts['budget']} visual tokens ({sampling['name']})",
    ]
    lines += [
        f"  {frame['time']:8.2f} s  {frame['kind']:4}  {frame['width']}×{frame['height']}  {frame['tokens']} tokens"
        for frame in facts["frames"]
    ]
    lines += [f"  note: {note}" for note in (*video["notes"], *facts["notes"])]
    return "\n".join(lines)


def _hear(arguments: argparse.Namespace) -> int:
    from engine.sound import measure, with_transcript, write_vtt
    from engine.sound.speech import SpeechModel

    if arguments.vtt is not None and arguments.asr is None:
        raise EngineError("--vtt writes what a speech model heard; give its folder with --asr.")
    info = probe(arguments.video)
    cues: tuple[Timed, ...] = ()
    facts: dict[str, Any] = {}
    if arguments.asr is not None:
        heard = SpeechModel(arguments.asr, arguments.device, arguments.language).transcribe(arguments.video, info)
        cues = heard.cues
        facts = {"by": heard.by, "language": heard.language, "said": [[c.start, c.end, c.text] for c in cues]}
    sound = measure(arguments.video, info)
    if cues:
        sound = with_transcript(sound, cues)
    if arguments.vtt is not None:
        try:
            arguments.vtt.write_text(write_vtt(cues), "utf-8")
        except OSError as error:
            raise EngineError(f"{arguments.vtt} cannot be written ({error.strerror}); name another file.") from None
    if arguments.json:
        print(json.dumps({**sound.to_dict(), **facts}, ensure_ascii=False))
        return 0
    if sound.channels:
        print(f"{arguments.video}: {sound.loudness:.1f} dBFS, peak {sound.peak:.1f}")
    if sound.note:
        print(sound.note)
    for span in sound.spans:
        print(f"  {span.start:8.2f} – {span.end:8.2f} s  {span.kind}")
    for cue in cues:
        print(f"  {cue.start:8.2f} – {cue.end:8.2f} s  {cue.text}")
    return 0


def _said(arguments: argparse.Namespace, info: VideoInfo) -> tuple[Timed, ...]:
    """What is said in the video, from the file or the speech model that was named."""
    if arguments.subtitles is not None and arguments.asr is not None:
        raise EngineError("Both --subtitles and --asr say what is said; give one of them.")
    if arguments.subtitles is not None:
        from engine.sound import load_subtitles

        return load_subtitles(arguments.subtitles)
    if arguments.asr is not None:
        from engine.sound.speech import SpeechModel

        return SpeechModel(arguments.asr, arguments.device).transcribe(arguments.video, info).cues
    return ()


def _ask(arguments: argparse.Namespace) -> int:
    from engine.reasoning.modes import mode_of
    from engine.runtime.choose import make_runtime

    mode_of(arguments.mode)  # before the model is loaded: a mode that is none is told at once
    if not arguments.question.strip():
        raise EngineError("The question is empty; write what you want to know about the video.")
    if arguments.max_tokens is not None and arguments.max_tokens < 1:
        raise EngineError(f"--max-tokens is {arguments.max_tokens}; give at least 1.")
    if arguments.think_budget is not None and arguments.think_budget < 1:
        raise EngineError(f"--think-budget is {arguments.think_budget}; give at least 1, or take --mode no_think.")
    info = probe(arguments.video)  # before the model: a bad file is told at once
    cues = _said(arguments, info)
    runtime = make_runtime(arguments.runtime, arguments.model, arguments.device)
    try:
        return _answer(runtime, arguments, info, cues)
    finally:
        runtime.close()


def _answer(runtime: Runtime, arguments: argparse.Namespace, info: VideoInfo, cues: tuple[Timed, ...]) -> int:
    from engine.prompt import interleaved
    from engine.reasoning.loop import reason
    from engine.reasoning.modes import mode_of
    from engine.runtime.base import Message

    runtime.start()
    model = runtime.info()
    if not arguments.json:
        print(f"{model.name} on {model.device} ({model.dtype}). {model.note}".strip(), file=sys.stderr)
    decoding = model.decoding
    if arguments.max_tokens is not None:
        decoding = replace(decoding, max_tokens=arguments.max_tokens)
    decoding = replace(decoding, greedy=decoding.greedy or arguments.greedy, seed=arguments.seed)

    clip = Clip(arguments.video, arguments.start, arguments.end)
    shown = interleaved(clip, cues, _sampling(arguments, model.sampling), info=info)
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())  # Ctrl-C ends the answer, not the program
    code = 0
    question = [Message("user", (*shown, arguments.question))]
    for event in reason(
        runtime, question, decoding, stop, mode_of(arguments.mode), think_budget=arguments.think_budget
    ):
        if arguments.json:
            _emit(event)
        else:
            _print(event)
        if isinstance(event, Error):
            code = 2
    return code


def _serve(arguments: argparse.Namespace) -> int:
    """Runs until it is interrupted; the server's log goes to standard error."""
    from engine.runtime.choose import KEY_VARIABLE
    from engine.runtime.sglang_server import Supervisor

    key = os.environ.get(KEY_VARIABLE)
    if not key and arguments.host not in ("127.0.0.1", "::1", "localhost"):
        raise EngineError(
            f"{arguments.host} lets other machines ask: set {KEY_VARIABLE} to a key that they must bring, "
            "or leave --host out."
        )
    server = Supervisor(
        arguments.model,
        device=arguments.device,
        options=arguments.options,
        host=arguments.host,
        port=arguments.port,
        api_key=key,
        echo=lambda line: print(line, end="", file=sys.stderr, flush=True),
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        endpoint = server.endpoint()
        assert endpoint is not None
        print(f"{endpoint.info.name} answers at {endpoint.url}/v1", flush=True)
        if not key:
            print(f"API key: {server.api_key}", flush=True)
        while server.status().state != "failed":  # a server that is being started again is no end
            time.sleep(0.5)
        raise EngineError(server.status().message)
    finally:
        server.close()


def _emit(event: Event) -> None:
    print(json.dumps(event.to_dict(), ensure_ascii=False), flush=True)


def _print(event: Event) -> None:
    match event:
        case Answer(text):
            print(text, end="", flush=True)
        case Analysis(text) | Thought(text):
            print(text, end="", file=sys.stderr, flush=True)
        case ToolCall(text):
            print(f"\n[call] {text}", file=sys.stderr)
        case ToolResult():
            shown = "" if event.image is None else f"a picture of {event.image.shape[1]}×{event.image.shape[0]} pixels"
            print(f"[result] {' '.join(filter(None, (event.text, shown)))}", file=sys.stderr)
        case Retraction():
            print("\n[this was reasoning; the answer follows]", flush=True)
        case Note(message):
            print(f"\nnote: {message}", file=sys.stderr)
        case Error(message):
            print(message, file=sys.stderr)
        case Queued(position):
            print(f"waiting, {position} before you", file=sys.stderr)
        case Progress(stage, _):
            print(f"{stage} …", file=sys.stderr)
        case Done():
            print(flush=True)
            first = f"{event.first_token_seconds:.2f} s to the first word, " if event.first_token_seconds else ""
            print(
                f"{event.finish} ({event.mode}): {event.visual_tokens} visual tokens, {event.answer_tokens} written, "
                f"{event.thought_tokens} of them in {event.thought_seconds:.2f} s of thought, "
                f"{first}{event.total_seconds:.2f} s in all",
                file=sys.stderr,
            )


if __name__ == "__main__":
    sys.exit(main())
