"""The benchmarks there are. To add one: a file that makes a Benchmark, its tasks in tasks.py, and its name here."""

from __future__ import annotations

from finetune.bench import kc_mmbench, longvideobench, mmvu, tempcompass, video_mme, video_mmmu, world
from finetune.bench.base import Benchmark
from finetune.errors import FinetuneError

BENCHMARKS: dict[str, Benchmark] = {
    module.BENCHMARK.name: module.BENCHMARK
    for module in (kc_mmbench, video_mme, video_mmmu, tempcompass, longvideobench, mmvu, world)
}


def benchmark(name: str) -> Benchmark:
    """The benchmark of this name; FinetuneError where there is none."""
    if name not in BENCHMARKS:
        raise FinetuneError(f"There is no benchmark {name!r}; known are {', '.join(BENCHMARKS)}.")
    return BENCHMARKS[name]
