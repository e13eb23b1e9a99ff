"""Our step, as a worker of step.py and epoch.py: random weights, dropout on, synthetic tokens or given batches."""

import itertools
import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from workers import serve

from mtbert_jax import trees
from mtbert_jax.config import HeadConfig, LoraConfig, SmartConfig, TaskConfig
from mtbert_jax.encoders.family import FAMILIES
from mtbert_jax.machine import keep_freed_memory, peak_memory, return_freed_memory
from mtbert_jax.model import EncoderWithHeads
from mtbert_jax.optim import pcgrad, sum_tasks
from mtbert_jax.optim.headwise import chain
from mtbert_jax.parallel import Layout
from mtbert_jax.regularizers import Smart
from mtbert_jax.training.evaluate import make_eval_step
from mtbert_jax.training.objective import StageSpec
from mtbert_jax.training.seeds import together
from mtbert_jax.training.state import TrainState
from mtbert_jax.training.step import make_train_step
from mtbert_jax.types import Batch


def main(spec: dict[str, Any]) -> None:
    """Compiles, then steps when told to."""
    keep_freed_memory()
    sizes = {"model_type": "bert", **spec["sizes"]}
    encoder_config = FAMILIES[sizes.pop("model_type")].config(**sizes)
    head = HeadConfig(pooling=spec["pooling"])
    tasks = (
        TaskConfig("sst", "classification", num_classes=5, head=head),
        TaskConfig("para", "binary", head=head),
        TaskConfig("sts", "regression", head=head),
    )
    model = EncoderWithHeads.build(encoder_config, tasks, spec["compute_dtype"])
    model = model.with_lora(LoraConfig(rank=8 if "lora" in spec["method"] else 0))
    if "batches" in spec:
        steps = load_steps(Path(spec["batches"]))
    else:
        steps = [{task.name: synthetic(number, spec["batch"], spec["length"]) for number, task in enumerate(tasks)}]
    params = jax.jit(
        lambda key: {
            "encoder": model.lora.added(model.encoder.init(key, np.ones((1, 1), np.int32))["params"], key),
            "heads": model.init_heads(key),
        }
    )(jax.random.key(0))
    if spec["method"] == "evaluate":
        evaluate(model, params, [batch for step in steps for batch in step.items()])
        return
    surgery = pcgrad() if "pcgrad" in spec["method"] else sum_tasks()
    tx = chain(surgery, optax.adamw(1e-5))
    ball = SmartConfig(weight=1.0, preset="ball")
    smart = Smart(ball if "ball" in spec["method"] else SmartConfig(weight=0.02, preset="smart_pytorch"))
    stage = StageSpec(model.frozen(()), regularizers=(smart,) if "smart" in spec["method"] else ())
    seeds = spec.get("seeds", 0)
    layout = Layout(None, wide=seeds > 0)
    train_step = make_train_step(model, {task.name: task for task in tasks}, tx, stage, layout)
    states = [TrainState.create(params, tx, jax.random.key(seed), stage.frozen) for seed in range(max(seeds, 1))]
    box = [together(states, layout) if seeds else states[0]]
    if seeds:
        stack = partial(jax.tree.map, lambda leaf: np.stack([leaf] * seeds))
        steps = [{task: stack(batch) for task, batch in step.items()} for step in steps]
    trained = trees.count(trees.split(params, stage.frozen)[1])
    told = {"trained_parameters": trained, "optimizer_state_bytes": _bytes(states[0].opt_state)}
    del params, states
    turn = itertools.cycle(steps)

    def step() -> None:
        nonlocal metrics
        begun = time.process_time()
        box[0], metrics = train_step(box[0], next(turn))
        jax.block_until_ready(box[0])
        processor.append(time.process_time() - begun)

    def last() -> dict[str, Any]:
        losses = {name: float(np.mean(value)) for name, value in metrics.losses.items()}
        told = {"losses": losses, "compiled_shapes": train_step.compiled_shapes, "flops_of_a_task": flops()}
        told["median_processor_seconds"] = statistics.median(processor)  # of all cores, whatever else the machine does
        return told if jax.default_backend() == "cpu" else {**told, "peak_memory_bytes": peak_memory()}

    def flops() -> float:
        batch = next(iter(steps[0].values()))
        arguments = (np.int32(0), box[0].params, None, batch, box[0].key, box[0].step)
        return float(train_step.programs[0].lower(*arguments).compile().cost_analysis()["flops"])  # type: ignore[attr-defined]

    metrics: Any = None
    processor: list[float] = []
    since = time.perf_counter()
    for _ in steps:
        step()
    return_freed_memory()  # as the library does after what has compiled
    serve({"first_steps_seconds": time.perf_counter() - since, **told}, step, last)


def _bytes(tree: Any) -> int:
    """Bytes of a tree's numbers, keys aside."""
    leaves = jax.tree.leaves(tree)
    return sum(leaf.nbytes for leaf in leaves if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def evaluate(model: EncoderWithHeads, params: Any, batches: list[tuple[str, Batch]]) -> None:
    """Scores a batch when told to."""
    eval_step = make_eval_step(model)
    turn = itertools.cycle(batches)

    def step() -> None:
        task, batch = next(turn)
        np.asarray(eval_step(params, task, batch))

    since = time.perf_counter()
    for _ in batches:
        step()
    serve({"first_steps_seconds": time.perf_counter() - since}, step, dict)


def load_steps(path: Path) -> list[dict[str, Batch]]:
    """What epoch.py has stored."""
    steps: dict[int, dict[str, dict[str, np.ndarray]]] = {}
    with np.load(path) as arrays:
        for name in arrays:
            number, task, field = name.split("/")
            steps.setdefault(int(number), {}).setdefault(task, {})[field] = arrays[name]
    return [{task: Batch(**fields) for task, fields in steps[number].items()} for number in sorted(steps)]  # type: ignore[arg-type]


def synthetic(seed: int, batch: int, length: int) -> Batch:
    """A full batch of random tokens."""
    ids = np.random.default_rng(seed).integers(1000, 30000, (batch, length)).astype(np.int32)
    labels = np.arange(batch, dtype=np.float32) % 2
    return Batch(ids, np.ones_like(ids), np.zeros_like(ids), labels, np.ones(batch, np.float32))  # type: ignore[arg-type]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
