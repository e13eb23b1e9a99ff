"""Subprocesses that take steps on demand, so that variants can alternate on one machine: A B A B.

A worker prints one JSON line when it is ready, one for each line "step" that it reads, and one for "end".
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ALLOCATOR = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}
"""Both sides get these: without them a step on a CPU spends its time in page faults, the peers' even more than ours."""


class Worker:
    """One variant in a process of its own."""

    def __init__(self, name: str, script: str, spec: dict[str, Any]) -> None:
        self.name = name
        self.seconds: list[float] = []
        environment = {**os.environ, **ALLOCATOR, "PYTHONPATH": os.pathsep.join([str(HERE.parent), *sys.path])}
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / script), json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.pid = self._process.pid
        self.ready = self._read()

    def step(self) -> None:
        """One step, timed by the worker."""
        self.seconds.append(self._ask("step")["seconds"])

    def end(self) -> dict[str, Any]:
        """Ends the worker; its last words: peak memory, last losses."""
        last = self._ask("end")
        self._process.wait()
        return last

    def _ask(self, word: str) -> dict[str, Any]:
        print(word, file=self._process.stdin, flush=True)
        return self._read()

    def _read(self) -> dict[str, Any]:
        for line in self._process.stdout or ():
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"{self.name}: the worker died with status {self._process.wait()}")


def serve(ready: dict[str, Any], step: Callable[[], None], last: Callable[[], dict[str, Any]]) -> None:
    """A worker's main loop."""
    print(json.dumps(ready), flush=True)
    for line in sys.stdin:
        if line.strip() == "end":
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            print(json.dumps({"peak_memory_bytes": peak, **last()}), flush=True)
            return
        since = time.perf_counter()
        step()
        print(json.dumps({"seconds": time.perf_counter() - since}), flush=True)


def alternate(workers: Sequence[Worker], rounds: int) -> None:
    """Every worker steps once a round, in turn."""
    for _ in range(rounds):
        for worker in workers:
            worker.step()


def ratio(one: Worker, other: Worker) -> dict[str, float]:
    """Median and quartiles of the ratio `one` / `other`, pair by pair."""
    pairs = sorted(a / b for a, b in zip(one.seconds, other.seconds, strict=True))
    low, middle, high = statistics.quantiles(pairs, n=4, method="inclusive") if len(pairs) > 1 else pairs * 3
    return {"median": middle, "low": low, "high": high}


def parse(parser: argparse.ArgumentParser, render: Callable[[dict[str, Any]], str]) -> argparse.Namespace:
    """The arguments, `--out` among them; with `--render` a result's table is printed instead, and that is all."""
    parser.add_argument("--out", type=Path)
    parser.add_argument("--render", type=Path, help="print the table of a result instead")
    given = parser.parse_args()
    if given.render:
        print(render(json.loads(given.render.read_text(encoding="utf-8"))))
        raise SystemExit
    return given


def machine() -> dict[str, Any]:
    """The machine in words, and what runs on it."""
    from importlib import metadata

    names = ("jax", "flax", "optax", "torch", "transformers", "smart-pytorch")
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    cpu = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    flags = next((line.split() for line in _lines("/proc/cpuinfo") if line.startswith("flags")), [])
    units = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    about = {"cpu": cpu, "units": units, "cores": cores}
    return {**about, "python": platform.python_version(), "versions": versions}


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).is_file() else []
