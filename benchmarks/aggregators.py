"""Time of a whole step with an aggregator beside the plain sum, in one process and in turn: A B C D, D C B A.

    python benchmarks/aggregators.py [--model bert-base] [--calls "cagrad()" "upgrad()" "pcgrad()"] [--rounds 9]

Three tasks, random weights, dropout on, AdamW. All variants share the gradients' programs, so that only the update
differs, and each has a state of its own. `--calls all` takes every aggregator with its default options.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from step import SIZES
from step_jax import synthetic
from workers import machine

from mtbert_jax.config import HeadConfig, TaskConfig
from mtbert_jax.encoders.bert import BertConfig
from mtbert_jax.machine import keep_freed_memory
from mtbert_jax.model import EncoderWithHeads
from mtbert_jax.optim.chain import build_chain, chain_context
from mtbert_jax.optim.registry import AGGREGATORS
from mtbert_jax.training.state import TrainState
from mtbert_jax.training.step import make_train_step

SUM = "sum_tasks()"
OF_ANOTHER = {"smoothed": "smoothed(cagrad())"}
TINY = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 30522,
}


def main() -> None:
    """Times all variants, prints a line for each, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["tiny", *SIZES], default="bert-base")
    parser.add_argument("--calls", nargs="+", default=["cagrad()", "upgrad()", "pcgrad()"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    keep_freed_memory()
    seconds = measure({"tiny": TINY, **SIZES}[given.model], given)
    rows = summary(seconds)
    for row in rows:
        print(f"{row['call']}: {row['median_seconds']:.4f} s, {row['ratio_to_sum']:.3f} of the sum")
    if given.out:
        settings = {name: value for name, value in vars(given).items() if name != "out"}
        document = {"machine": machine(), "settings": settings, "rows": rows}
        given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def measure(sizes: dict[str, int], given: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of every step of every variant, by its call."""
    head = HeadConfig(pooling="cls")
    tasks = (
        TaskConfig("sst", "classification", num_classes=5, head=head),
        TaskConfig("para", "binary", head=head),
        TaskConfig("sts", "regression", head=head),
    )
    model = EncoderWithHeads.build(BertConfig(**sizes), tasks)
    batches = {task.name: synthetic(number, given.batch, given.length) for number, task in enumerate(tasks)}
    init = lambda key: {  # noqa: E731
        "encoder": model.encoder.init(key, np.ones((1, 1), np.int32))["params"],
        "heads": model.init_heads(key),
    }
    params = jax.jit(init)(jax.random.key(0))
    every = [OF_ANOTHER.get(name, f"{name}()") for name in AGGREGATORS]
    calls = list(dict.fromkeys((SUM, *(every if given.calls == ["all"] else given.calls))))
    context = chain_context(lambda _: 1e-5, params, len(tasks))
    chains = {call: build_chain((call, "adamw(lr)"), context) for call in calls}
    steps = {call: make_train_step(model, {task.name: task for task in tasks}, tx) for call, tx in chains.items()}
    states = {
        call: TrainState.create(jax.tree.map(jnp.copy, params), tx, jax.random.key(0)) for call, tx in chains.items()
    }
    del params
    seconds: dict[str, list[float]] = {call: [] for call in calls}
    for number in range(given.rounds + 1):
        for call in calls if number % 2 else reversed(calls):
            since = time.perf_counter()
            states[call], _ = jax.block_until_ready(steps[call](states[call], batches))
            seconds[call].append(time.perf_counter() - since)
    return {call: of[1:] for call, of in seconds.items()}  # the first round compiles


def summary(seconds: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Medians, and those of the ratios to the sum's step of the same round."""
    plain = seconds[SUM]
    ratios = {call: [a / b for a, b in zip(of, plain, strict=True)] for call, of in seconds.items()}
    return [
        {
            "call": call,
            "median_seconds": statistics.median(of),
            "ratio_to_sum": statistics.median(ratios[call]),
            "quartiles_of_ratio": [float(value) for value in np.quantile(ratios[call], (0.25, 0.75))],
        }
        for call, of in seconds.items()
    ]


if __name__ == "__main__":
    main()
