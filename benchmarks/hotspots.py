"""Where the processor's time of a step goes: shares of a sampling profile, by what the code is.

    python benchmarks/hotspots.py [--model minilm] [--length 64] [--methods pcgrad smart_pcgrad] [--seconds 8]

It needs Linux and `perf`, which may ask for `sysctl kernel.perf_event_paranoid=1`. Samples are of all threads of a
worker of step.py that takes steps all the while. XLA's kernels have names; the code that it generates for whatever is
computed element by element (LayerNorm, softmax, GELU, dropout, the update) has none, and is one row.
"""

import argparse
import json
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from step import OURS, SIZES, worker
from workers import machine, parse

KINDS = {
    "matrix products": ("::dot_", "run_dot", "dot_impl", "dot_kernel"),
    "packing for products": ("packer", "interleave", "transpose"),
    "sums and products of vectors": ("ynn::",),
    "dividing work among threads": ("slinky::", "Slinky", "ThreadPool", "RunQueue", "EigenEnvironment"),
}
"""Kinds of named code, by parts of its symbols; the first that fits counts."""
GENERATED, SYSTEM, MEMORY, REST = "generated code", "operating system", "C library: memory", "the rest"


def main() -> None:
    """Profiles, prints a table, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SIZES, default="minilm")
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--methods", nargs="+", default=["pcgrad", "smart_pcgrad"])
    parser.add_argument("--sides", nargs="+", choices=OURS, default=list(OURS))
    parser.add_argument("--seconds", type=float, default=8.0, help="of steps that are sampled")
    given = parse(parser, render)
    if shutil.which("perf") is None:
        raise SystemExit("perf is not installed: it is in Debian's package linux-perf")
    spec = {"sizes": SIZES[given.model], "length": given.length, "batch": 16, "pooling": "mean"}
    rows = [profile(method, side, spec, given.seconds) for method in given.methods for side in given.sides]
    settings = {"model": given.model, "length": given.length, "seconds": given.seconds}
    document = {"machine": machine(), "settings": settings, "rows": rows}
    print(render(document))
    if given.out:
        given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def profile(method: str, side: str, spec: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Shares of the samples of some seconds of steps."""
    one = worker(method, side, {**spec, "method": method})
    for _ in range(2):
        one.step()
    one.seconds.clear()
    with tempfile.TemporaryDirectory() as folder:
        samples = Path(folder) / "samples"
        command = ["perf", "record", "--quiet", "--freq", "499", "--pid", str(one.pid), "--output", str(samples)]
        with subprocess.Popen(command) as recorder:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                one.step()
            recorder.send_signal(signal.SIGINT)
        report = [
            "perf",
            "report",
            "--stdio",
            "--input",
            str(samples),
            "--sort",
            "dso,symbol",
            "--field-separator",
            "|",
        ]
        told = subprocess.run(report, capture_output=True, text=True, check=True).stdout
    one.end()
    shares: Counter[str] = Counter()
    for line in told.splitlines():
        if line.strip() and not line.startswith("#"):
            share, library, symbol = line.split("|", 2)
            shares[kind_of(library.strip(), symbol)] += float(share.strip(" %"))
    steps = {"steps": len(one.seconds), "median_seconds": statistics.median(one.seconds)}
    return {"method": method, "side": side, **steps, "percent": {name: round(x, 1) for name, x in shares.most_common()}}


def kind_of(library: str, symbol: str) -> str:
    """What a row of the profile is."""
    if library.startswith("[JIT]"):
        return GENERATED
    if library.startswith("[kernel"):
        return SYSTEM
    if library.startswith("libc."):
        return MEMORY
    return next((kind for kind, parts in KINDS.items() if any(part in symbol for part in parts)), REST)


def render(document: dict[str, Any]) -> str:
    """The table, as Markdown."""
    rows = document["rows"]
    kinds = [*KINDS, GENERATED, MEMORY, SYSTEM, REST]
    lines = [
        f"| share of a step, {document['settings']['length']} tokens | "
        + " | ".join(f"{row['method']}, {row['side']}" for row in rows)
        + " |",
        "|---|" + "---|" * len(rows),
    ]
    for kind in kinds:
        lines.append(f"| {kind} | " + " | ".join(f"{row['percent'].get(kind, 0):.0f} %" for row in rows) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
