"""Our step, as a worker of step.py: synthetic tokens, random weights, dropout on."""

import json
import resource
import sys
import time
from typing import Any

import jax
import numpy as np
import optax
from workers import serve

from mtbert_jax.config import HeadConfig, SmartConfig, TaskConfig
from mtbert_jax.host import keep_freed_memory
from mtbert_jax.nn.bert import BertConfig
from mtbert_jax.nn.multitask import MultitaskBert
from mtbert_jax.optim import pcgrad, sum_tasks
from mtbert_jax.training.objective import Regularizers
from mtbert_jax.training.state import TrainState
from mtbert_jax.training.step import make_train_step
from mtbert_jax.types import Batch


def main(spec: dict[str, Any]) -> None:
    """Compiles, then steps when told to."""
    keep_freed_memory()
    bert = BertConfig(**spec["sizes"])
    head = HeadConfig(pooling=spec["pooling"])
    tasks = (
        TaskConfig("sst", "classification", num_classes=5, head=head),
        TaskConfig("para", "binary", head=head),
        TaskConfig("sts", "regression", head=head),
    )
    model = MultitaskBert.build(bert, tasks, spec["compute_dtype"])
    batches = {task.name: synthetic(number, spec["batch"], spec["length"]) for number, task in enumerate(tasks)}
    params = jax.jit(
        lambda key: {
            "encoder": model.encoder.init(key, batches["sst"].input_ids)["params"],
            "heads": model.init_heads(key),
        }
    )(jax.random.key(0))
    surgery = pcgrad() if "pcgrad" in spec["method"] else sum_tasks()
    tx = optax.chain(surgery, optax.adamw(1e-5))
    smart = SmartConfig(weight=0.02 if "smart" in spec["method"] else 0.0)
    train_step = make_train_step(model, {task.name: task for task in tasks}, tx, (), Regularizers(smart))
    state = TrainState.create(params, tx, jax.random.key(0))

    arguments = (np.int32(0), state.params, None, batches["sst"], state.key, state.step)
    lowered = train_step.programs[0].lower(*arguments)  # type: ignore[attr-defined]
    flops = lowered.compile().cost_analysis()["flops"]
    box = [state]
    since = time.perf_counter()
    box[0], metrics = train_step(box[0], batches)
    jax.block_until_ready(box[0])
    compiled = time.perf_counter() - since

    def step() -> None:
        nonlocal metrics
        box[0], metrics = train_step(box[0], batches)
        jax.block_until_ready(box[0])

    def last() -> dict[str, Any]:
        return {"losses": {name: float(value) for name, value in metrics.losses.items()}}

    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    serve({"first_step_seconds": compiled, "flops_of_a_task": flops, "memory_bytes": start}, step, last)


def synthetic(seed: int, batch: int, length: int) -> Batch:
    """A full batch of random tokens."""
    ids = np.random.default_rng(seed).integers(1000, 30000, (batch, length)).astype(np.int32)
    labels = np.arange(batch, dtype=np.float32) % 2
    return Batch(ids, np.ones_like(ids), np.zeros_like(ids), labels, np.ones(batch, np.float32))  # type: ignore[arg-type]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
