"""The last stage of a config, as a worker of cost.py: steps at evenly spaced ranks of size, compiled before."""

import itertools
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from workers import serve

from mtbert_jax.config import load_config
from mtbert_jax.machine import keep_freed_memory
from mtbert_jax.training.active import first_state
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.prepare import prepare
from mtbert_jax.training.step import make_train_step


def main(spec: dict[str, Any]) -> None:
    """Compiles, then steps when told to."""
    keep_freed_memory()
    config = replace(load_config(Path(spec["config"])), data_dir=spec["data_dir"])
    ready = prepare(config, RunFolder(Path(config.out or "runs/cost")), "overwrite")
    layout, setup, plan = ready.layout, ready.setup, ready.runs[0].plans[-1]
    batches = plan.batches

    def parts(step: int) -> list[tuple[np.ndarray, int]]:
        return [batches.tasks[name].rows(index) for name, index in batches.indices(step).items()]

    def tokens(step: int) -> int:
        return sum(len(rows) * length for rows, length in parts(step))

    ranked = sorted(range(batches.steps_per_epoch), key=tokens)
    count = spec["examples"] // sum(batches.tasks[name].batch_size for name in batches.indices(0))
    places = ((np.arange(count) + 0.5) / count * len(ranked)).astype(int)
    chosen = [ranked[place] for place in np.random.default_rng(1).permutation(places)]
    examples = sum(len(rows) for step in chosen for rows, _ in parts(step))
    steps = itertools.cycle([batches[step] for step in chosen])
    params = ready.runs[0].setup.initial_params(ready.runs[0].origin.encoder)
    del ready
    train_step = make_train_step(setup.model, setup.tasks, plan.tx, plan.spec(0), layout, config.micro_batches)
    box = [layout.place(first_state(setup, plan, params, 0))]
    del params

    def step() -> None:
        box[0], _ = train_step(box[0], next(steps))
        jax.block_until_ready(box[0])

    def last() -> dict[str, Any]:
        return {"compiled_shapes": train_step.compiled_shapes}

    since = time.perf_counter()
    for _ in chosen:
        step()
    told = {"first_steps_seconds": time.perf_counter() - since, "steps": len(chosen), "examples": examples}
    serve(told, step, last)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
