"""The commands `bench` and `score` of python -m finetune."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from finetune.bench.modes import Mode

if TYPE_CHECKING:
    from finetune.bench.judge import Judge
    from finetune.bench.run import Progress

KEY_VARIABLE = "KEYE_STUDIO_JUDGE_KEY"
"""Environment variable with the judge's API key, where it wants one."""

STOPPED = 130  # exit code of a run that was stopped, as shells have it


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `bench` and `score` to the commands of a parser; `act` of their arguments does the work."""
    bench = commands.add_parser("bench", help="run a benchmark; the same command goes on with a run that was stopped")
    bench.add_argument(
        "benchmark",
        help="kc-mmbench, video-mme, video-mmmu, tempcompass, longvideobench, mmvu or world",
    )
    bench.add_argument("--data", type=Path, metavar="DIR", help="the benchmark's folder (world needs none)")
    bench.add_argument("--model", metavar="DIR", help="a model folder or hub id (default: keye-nano)")
    bench.add_argument("--runtime", metavar="R", help="local, sglang or http://host:port (default: as suits)")
    bench.add_argument("--mode", choices=get_args(Mode), help="default: think, as published; for world auto")
    bench.add_argument("--judge", metavar="URL", help=f"OpenAI-compatible judge; its key is read from {KEY_VARIABLE}")
    bench.add_argument("--judge-model", metavar="NAME", help="its model (default: the first it lists)")
    bench.add_argument("--limit", type=int, metavar="N", help="at most N items of each task")
    bench.add_argument("--parallel", type=int, metavar="N", help="requests in flight (default: local 2, a server 8)")
    bench.add_argument("--max-tokens", type=int, default=2048, metavar="N", help="longest answer (default: 2048)")
    bench.add_argument("--fps", type=float, metavar="F", help="frames to take per second of a video")
    bench.add_argument("--max-frames", type=int, metavar="N", help="most frames of a video")
    bench.add_argument("--budget", type=int, metavar="TOKENS", help="most visual tokens of a video")
    bench.add_argument("--out", type=Path, metavar="DIR", help="default: runs/bench/BENCHMARK-MODEL-MODE")
    bench.set_defaults(act=_bench)
    score = commands.add_parser("score", help="score a file of predictions made elsewhere")
    score.add_argument("predictions", type=Path, help="one JSON object a line: task, index, question, answer, output …")
    score.add_argument(
        "--items", type=Path, metavar="FILE", help="also write one line per item with what was extracted"
    )
    score.set_defaults(act=_score)


def _bench(args: argparse.Namespace) -> int:
    from finetune.bench.open_runtime import open_runtime, requests_in_flight
    from finetune.bench.registry import benchmark
    from finetune.bench.report import write_report
    from finetune.bench.run import Plan, run
    from finetune.errors import FinetuneError

    chosen = benchmark(args.benchmark)
    if args.data is None and chosen.needs_data:
        raise FinetuneError(f"Give the folder of {chosen.title} with --data; it must hold {chosen.layout}.")
    judge = judge_from(args.judge, args.judge_model)
    mode = args.mode or chosen.mode
    name = Path(args.model).name if args.model else "keye-nano"
    out = args.out or Path("runs") / "bench" / f"{chosen.name}-{name}-{mode}"
    plan = Plan(
        benchmark=chosen,
        data=args.data or out / "clips",
        mode=mode,
        limit=args.limit,
        max_tokens=args.max_tokens,
        fps=args.fps,
        max_frames=args.max_frames,
        budget=args.budget,
    )
    plan.check()
    runtime = open_runtime(args.model, args.runtime)
    try:
        info = runtime.info()
        print(f"{chosen.title}: {info.name} on {info.device}, {mode}, to {out}", file=sys.stderr)
        stop = threading.Event()
        before = signal.signal(signal.SIGINT, lambda *_: stop.set())  # ends the run between two tokens
        try:
            bar = Bar()
            parallel = requests_in_flight(runtime) if args.parallel is None else args.parallel
            whole = run(plan, runtime, out, parallel=parallel, judge=judge, report=bar.show, stop=stop)
            bar.end()
        finally:
            signal.signal(signal.SIGINT, before)
        facts = write_report(plan, info, out)
    finally:
        runtime.close()
    print(text_table(facts))
    print(f"report: {out / 'report.html'}")
    if not whole:
        print("Stopped; the same command goes on from here.", file=sys.stderr)
        return STOPPED
    return 0


def judge_from(url: str | None, model: str | None) -> Judge | None:
    """The judge at this address with the key of the environment; None where no address is given."""
    from finetune.bench.judge import HttpJudge

    return HttpJudge.at(url, model, os.environ.get(KEY_VARIABLE, "")) if url else None


def _score(args: argparse.Namespace) -> None:
    from finetune.bench.score import notes, score_file

    tally = score_file(args.predictions, args.items)
    for note in notes(tally):
        print(note, file=sys.stderr)
    print(json.dumps(tally.summary(), ensure_ascii=False))


class Bar:
    """A progress bar in a terminal; a line now and then elsewhere."""

    _WIDTH = 30

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._told = -1
        self._last = 0.0

    def show(self, progress: Progress) -> None:
        full = self._WIDTH * progress.done // max(progress.total, 1)
        line = f"{'█' * full}{'░' * (self._WIDTH - full)} {progress_line(progress)}"
        if self._terminal:
            if time.monotonic() - self._last > 0.1 or progress.done == progress.total:
                self._last = time.monotonic()
                print(f"\r{line:<{self._WIDTH + 50}}", end="", file=sys.stderr, flush=True)
        elif full // 3 != self._told:
            self._told = full // 3
            print(line, file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._terminal:
            print(file=sys.stderr)


def progress_line(progress: Progress) -> str:
    """How far a run is, in words: 12 of 40, 0:35 left, 1 failed."""
    words = f"{progress.done:,} of {progress.total:,}"
    if progress.seconds_left is not None and progress.done < progress.total:
        minutes, seconds = divmod(round(progress.seconds_left), 60)
        hours, minutes = divmod(minutes, 60)
        words += f", {hours}:{minutes:02}:{seconds:02} left" if hours else f", {minutes}:{seconds:02} left"
    return words + (f", {progress.failed:,} failed" if progress.failed else "")


def text_table(facts: dict[str, Any]) -> str:
    """The scores for a terminal."""
    lines = [f"{'task':<32} {'items':>6} {'published':>10} {'95 %':>13} {'strict':>8}"]

    def line(name: str, items: int, both: dict[str, Any]) -> str:
        published, strict = both["published"], both["strict"]
        if published["percent"] is None:
            return f"{name:<32} {items:>6} {'–':>10}"
        interval = f"{published['low']:.1f}–{published['high']:.1f}"
        strictly = "–" if strict["percent"] is None else f"{strict['percent']:.2f}"
        return f"{name:<32} {items:>6} {published['percent']:>10.2f} {interval:>13} {strictly:>8}"

    for name, task in facts["tasks"].items():
        lines.append(line(name + ("" if task["comparable"] else " †"), task["published"]["items"], task))
    lines.append(line("mean of tasks", facts["all_items"]["published"]["items"], facts["macro"]))
    if not all(task["comparable"] for task in facts["tasks"].values()):
        lines.append("† not comparable with published scores: no judge, or items without a score")
    if facts["unscored"]:
        lines.append(f"{facts['unscored']} items are unscored; the report names why")
    return "\n".join(lines)
