"""Time of a step with an aggregator beside the plain sum, in one process.

    python benchmarks/aggregators.py [--model bert-base] [--calls "cagrad()" "upgrad()" "pcgrad()"] [--rounds 9]

Three tasks, random weights, dropout on, AdamW. A round computes the tasks' gradients once, which all variants share,
and then an update with each, beside one of the sum A: A B A C, then C A B A. A step is the gradients and the update.
Each variant has a state of its own. `--calls all` takes every aggregator with its default options.
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

Pair = tuple[float, float]
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
    rows = summary(*measure({"tiny": TINY, **SIZES}[given.model], given))
    for row in rows:
        print(f"{row['call']}: update {row['update_seconds']:.4f} s, step {row['ratio_to_sum']:.3f} of the sum's")
    if given.out:
        settings = {name: value for name, value in vars(given).items() if name != "out"}
        document = {"machine": machine(), "settings": settings, "rows": rows}
        given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def measure(sizes: dict[str, int], given: argparse.Namespace) -> tuple[list[float], dict[str, list[Pair]]]:
    """Seconds of the gradients in every round, and of every update by its call, with those of the sum beside it."""
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
    gradients: list[float] = []
    updates: dict[str, list[Pair]] = {call: [] for call in calls if call != SUM}
    for number in range(given.rounds + 1):
        since = time.perf_counter()
        grads, terms = jax.block_until_ready(steps[SUM].all_gradients(states[SUM], batches))
        gradients.append(time.perf_counter() - since)
        for call in updates if number % 2 else reversed(updates):
            pair = {}
            for one in (SUM, call) if number % 2 else (call, SUM):
                since = time.perf_counter()
                states[one], _ = jax.block_until_ready(steps[one].update(*states[one].parted(), grads, terms))
                pair[one] = time.perf_counter() - since
            updates[call].append((pair[call], pair[SUM]))
    return gradients[1:], {call: of[1:] for call, of in updates.items()}  # the first round compiles


def summary(gradients: list[float], updates: dict[str, list[Pair]]) -> list[dict[str, Any]]:
    """Medians: seconds of an update, of the sum's beside it, of the gradients; and what a step takes of the sum's."""
    rows = []
    common = statistics.median(gradients)
    for call, of in updates.items():
        more = [own - plain for own, plain in of]
        plain = statistics.median(plain for _, plain in of)
        rows.append(
            {
                "call": call,
                "gradients_seconds": common,
                "update_seconds": statistics.median(own for own, _ in of),
                "update_seconds_of_sum": plain,
                "ratio_to_sum": 1 + statistics.median(more) / (common + plain),
                "quartiles_of_ratio": [
                    1 + float(value) / (common + plain) for value in np.quantile(more, (0.25, 0.75))
                ],
            }
        )
    return rows


if __name__ == "__main__":
    main()
