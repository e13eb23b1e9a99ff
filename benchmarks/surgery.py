"""What gradient surgery adds to a step: PCGrad beside a bare sum, on stacked gradients of an encoder's size, in turn.

    python benchmarks/surgery.py [--model bert-base] [--tasks 3] [--rounds 15] [--step-seconds 7.7]

A whole step is too noisy to show it: with `--step-seconds`, as step.py measured it, the difference is given as a share.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from step import SIZES
from workers import machine

from mtbert_jax.encoders.bert import BertConfig, BertEncoder
from mtbert_jax.machine import keep_freed_memory
from mtbert_jax.optim import pcgrad


def main() -> None:
    """Times both, prints a line, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SIZES, default="bert-base")
    parser.add_argument("--tasks", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--step-seconds", type=float)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    keep_freed_memory()
    encoder = BertEncoder(BertConfig(**SIZES[given.model]))
    shapes = jax.eval_shape(lambda: encoder.init(jax.random.key(0), jnp.ones((1, 1), jnp.int32)))["params"]
    rng = np.random.default_rng(0)
    stacked = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=(given.tasks, *leaf.shape)), jnp.float32), shapes)
    tx = pcgrad()
    state = tx.init(None)  # type: ignore[arg-type]
    programs = {
        "sum": jax.jit(lambda grads: jax.tree.map(lambda leaf: sum(leaf[1:], start=leaf[0]), grads)),
        "pcgrad": jax.jit(lambda grads: tx.update(grads, state)[0]),
    }
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(given.rounds + 1):
        for name, program in programs.items():
            since = time.perf_counter()
            jax.block_until_ready(program(stacked))
            seconds[name].append(time.perf_counter() - since)
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}  # the first compiles
    added = statistics.median(b - a for a, b in zip(seconds["sum"][1:], seconds["pcgrad"][1:], strict=True))
    result = {"median_seconds": medians, "added_seconds": added}
    line = f"{given.model}, {given.tasks} tasks: sum {medians['sum']:.3f} s, PCGrad {medians['pcgrad']:.3f} s"
    line += f"; it adds {added:.3f} s"
    if given.step_seconds:
        result["share_of_step"] = added / given.step_seconds
        line += f", {added / given.step_seconds:.1%} of a step of {given.step_seconds:.2f} s"
    print(line)
    if given.out:
        settings = {name: value for name, value in vars(given).items() if name != "out"}
        given.out.write_text(json.dumps({"machine": machine(), "settings": settings, **result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
