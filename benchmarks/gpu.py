"""One call on a GPU: is it right, and how fast is it? Correctness, then sizes × methods beside PyTorch, then seeds.

    python benchmarks/gpu.py --out benchmarks/results/gpu.json
    python benchmarks/gpu.py --models tiny --batches 4 --lengths 16 --seeds 1 2    that it runs, on any machine

Every cell is one process per side, stepping in turn. Utilisation: the operations that the method needs by count, over
those that a large bfloat16 product reached on the same device. A cell that runs out of memory says so. No new cell
begins after `--minutes`.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from step import SIZES, available
from workers import HERE, Worker, alternate, machine, parse, ratio

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
MODELS = {**SIZES, "tiny": {**TINY, "vocab_size": 30522}}
PASSES = {"plain": 3, "pcgrad": 3, "smart": 8, "smart_pcgrad": 8}
"""Forward passes that a method's work amounts to; a backward pass is two, by the input alone one."""
SIDES = {"jax": "jax", "peer": "peer", "compiled": "peer", "tuned": "tuned"}
TOLERANCE = 1e-4


def main() -> None:
    """Checks, measures, prints a table, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(SIZES))
    parser.add_argument("--batches", nargs="+", type=int, default=[16, 64, 256, 512])
    parser.add_argument("--lengths", nargs="+", type=int, default=[32, 128, 512])
    parser.add_argument("--methods", nargs="+", choices=PASSES, default=list(PASSES))
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--seeds", nargs="*", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--compute-dtype", default="bfloat16")
    given = parse(parser, render)
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # sides share the device
    end = time.monotonic() + 60 * given.minutes
    checked = check()
    print(f"on {checked['device']}: largest relative error {max(checked['errors'].values()):.1e}", flush=True)
    if max(checked["errors"].values()) > TOLERANCE:
        raise SystemExit(f"not right, so not timed: {checked['errors']}")
    sides = available(given.sides, SIDES.__getitem__)
    settings = {name: value for name, value in vars(given).items() if name not in ("out", "render")}
    document: dict[str, Any] = {
        "machine": machine(),
        "check": checked,
        "settings": settings,
        "cells": [],
        "seeds": [],
        "skipped": [],
    }
    device = "cuda" if checked["platform"] == "gpu" else "cpu"
    seeds = [count for count in given.seeds if time.monotonic() < end]
    if seeds:
        document["seeds"] = vmapped(given.models[0], seeds, given.rounds, given.compute_dtype)
    for batch, model, length, method in itertools.product(given.batches, given.models, given.lengths, given.methods):
        cell = {"model": model, "batch": batch, "length": length, "method": method}
        if time.monotonic() > end:
            document["skipped"].append(cell)
            continue
        spec = {"sizes": MODELS[model], "pooling": "cls", "compute_dtype": given.compute_dtype, "device": device}
        found = measure({**cell, **spec}, sides, given.rounds, checked["peak_flops"])
        document["cells"].append({**cell, "sides": found})
        print(line(document["cells"][-1]), flush=True)
        if given.out:
            given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(render(document))
    if given.out:
        given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def check() -> dict[str, Any]:
    """What gpu_check.py found, in a process that lets go of the device."""
    command = [sys.executable, str(HERE / "gpu_check.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"gpu_check.py failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(spec: dict[str, Any], sides: list[str], rounds: int, peak: float) -> dict[str, Any]:
    """Each side's median step, examples a second, memory and utilisation; or why there is none."""
    workers, found = {}, {}
    for side in sides:
        own = {**spec, "side": SIDES[side], "compiled": side == "compiled"}
        try:
            workers[side] = Worker(side, "step_jax.py" if side == "jax" else "step_torch.py", own)
        except SystemExit as error:
            found[side] = {"failed": str(error)}
    try:
        alternate(list(workers.values()), 2)
        for worker in workers.values():
            worker.seconds.clear()
        alternate(list(workers.values()), rounds)
    except SystemExit as error:
        return {**found, **{side: {"failed": str(error)} for side in workers}}
    for side, worker in workers.items():
        seconds = statistics.median(worker.seconds)
        found[side] = {
            "median_seconds": seconds,
            "examples_per_second": 3 * spec["batch"] / seconds,
            "utilisation": operations(spec) / seconds / peak,
            **worker.ready,
        }
        if side != "jax" and "jax" in workers:
            found[side]["over_jax"] = ratio(worker, workers["jax"])
    for side, worker in workers.items():
        found[side] |= worker.end()
    return found


def operations(spec: dict[str, Any]) -> float:
    """Floating-point operations of a step over three tasks: the matrix products' alone, the last layer's at [CLS]."""
    sizes, length = spec["sizes"], spec["length"]
    hidden, inner = sizes["hidden_size"], sizes["intermediate_size"]
    attention = 2 * length * (4 * hidden**2) + 4 * length**2 * hidden
    layer = attention + 2 * length * 2 * hidden * inner
    last = 2 * length * 2 * hidden**2 + 2 * 2 * hidden**2 + 4 * length * hidden + 4 * hidden * inner
    return 3.0 * spec["batch"] * PASSES[spec["method"]] * ((sizes["num_hidden_layers"] - 1) * layer + last)


def vmapped(model: str, seeds: list[int], rounds: int, dtype: str) -> list[dict[str, Any]]:
    """The step of several seeds in one program, beside that of one run alone."""
    spec = {"sizes": MODELS[model], "pooling": "cls", "compute_dtype": dtype, "batch": 16, "length": 64}
    spec |= {"method": "pcgrad", "side": "jax"}
    alone = Worker("alone", "step_jax.py", spec)
    rows = []
    for count in seeds:
        try:
            worker = Worker(f"{count} seeds", "step_jax.py", {**spec, "seeds": count})
            alternate([alone, worker], 2)
            alone.seconds.clear()
            worker.seconds.clear()
            alternate([alone, worker], rounds)
        except SystemExit as error:
            rows.append({"seeds": count, "failed": str(error)})
            continue
        median = statistics.median(worker.seconds)
        rows.append({"model": model, "seeds": count, "median_seconds": median, "over_one": ratio(worker, alone)})
        worker.end()
    alone.end()
    return rows


def line(cell: dict[str, Any]) -> str:
    """One row of the table."""
    parts = [cell["model"], str(cell["batch"]), str(cell["length"]), cell["method"]]
    for side in SIDES:
        row = cell["sides"].get(side)
        if row is None or "failed" in row:
            parts.append("" if row is None else "failed")
        elif side == "jax":
            memory = f"{row['peak_memory_bytes'] / 1e9:.1f} GB"
            speed = f"{1000 * row['median_seconds']:.1f} ms, {row['examples_per_second']:.0f} ex/s"
            parts.append(f"{speed}, {row['utilisation']:.0%}, {memory}")
        else:
            over = f"{row['over_jax']['median']:.2f} ×, " if "over_jax" in row else ""
            parts.append(f"{over}{row['peak_memory_bytes'] / 1e9:.1f} GB")
    return f"| {' | '.join(parts)} |"


def render(document: dict[str, Any]) -> str:
    """The tables, as Markdown."""
    lines = [
        f"{document['check']['device']}, bfloat16 peak {document['check']['peak_flops'] / 1e12:.1f} Tflop/s",
        "",
        "| model | batch | length | step | ours | packages ÷ ours | compiled ÷ ours | by hand ÷ ours |",
        "|---|---|---|---|---|---|---|---|",
        *map(line, document["cells"]),
        "",
        "| seeds in one program | ms | ÷ one alone |",
        "|---|---|---|",
    ]
    for row in document["seeds"]:
        over = "failed" if "failed" in row else f"{row['over_one']['median']:.2f}"
        lines.append(f"| {row['seeds']} | {1000 * row.get('median_seconds', 0):.1f} | {over} |")
    if document["skipped"]:
        lines += ["", f"{len(document['skipped'])} cells not measured for want of time"]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
