"""Run folders of finished runs, without any training."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtbert_jax import trees
from mtbert_jax.config import Config, TaskConfig, save_config
from mtbert_jax.config.schema import to_dict
from mtbert_jax.data.predictions import prediction_file, write_predictions
from mtbert_jax.data.readers import read_task
from mtbert_jax.encoders.hub import load_pretrained, save_description
from mtbert_jax.results.write import write_results
from mtbert_jax.tasks import averages, kind_of, task_scores
from mtbert_jax.training.checkpoint import Checkpoints, Progress
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.setup import Setup
from mtbert_jax.training.state import TrainState
from mtbert_jax.types import Params


def labels_of(config: Config, task: TaskConfig) -> np.ndarray:
    """The dev labels of a task, as a dataset has them."""
    return np.array([e.label for e in read_task(task, "dev", config.data_dir)], np.float32).astype(np.float64)


def guesses(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Predictions for all dev files that are right more often than not."""
    rng, predicted = np.random.default_rng(seed), {}
    for task in (task for task in config.tasks if task.dev):
        labels = labels_of(config, task)
        classes = len(kind_of(task).classes(task))
        if not classes:
            predicted[task.name] = labels + rng.normal(size=len(labels))
        else:
            other = rng.integers(0, classes, len(labels)).astype(float)
            predicted[task.name] = np.where(rng.random(len(labels)) < 0.5, labels, other)
    return predicted


def finish(config: Config, out: Path, predicted: dict[str, np.ndarray] | None = None, **extra: Any) -> RunFolder:
    """Makes `out` the folder of a finished run that predicted so; `extra` replaces parts of its results."""
    folder, config = RunFolder(out), dataclasses.replace(config, out=str(out))
    predicted = guesses(config, config.seed) if predicted is None else predicted
    scores: dict[str, Any] = {}
    for task in config.tasks:
        if task.name in predicted:
            scores[task.name] = task_scores(task, predicted[task.name], labels_of(config, task))
            ids = [example.id for example in read_task(task, "dev", config.data_dir)]
            write_predictions(folder.predictions / prediction_file(task, "dev"), task, ids, predicted[task.name])
    scores |= averages(scores, [task for task in config.tasks if task.name in scores])
    out.mkdir(parents=True, exist_ok=True)
    save_config(config, folder.config)
    results = {"config": to_dict(config), "seed": config.seed, "step": 6, "dev": scores}
    results |= {"seconds": 61.0 + config.seed, "peak_memory_bytes": 2**30 + config.seed}
    results |= {"device": "1 × abacus, 2 CPU cores", "versions": {"jax": "0.10.0", "mtbert_jax": "0.1.0"}}
    folder.results.write_text(json.dumps({**results, **extra}))
    return folder


def lively_params(setup: Setup) -> Params:
    """Random parameters, with kernels so large that every text gets other logits, whatever its head reads."""

    def louder(path: Any, leaf: jax.Array) -> jax.Array:
        return 10 * leaf if trees.path_of(path).endswith("kernel") else leaf

    encoder = jax.tree_util.tree_map_with_path(louder, load_pretrained(setup.config.encoder)[1])
    return setup.initial_params(encoder)


def checkpointed(config: Config) -> RunFolder:
    """Makes `config.out` the folder of a run that ended at step 2 with a checkpoint of random heads.

    Where the teacher is evaluated, the student is another one.
    """
    folder, setup = RunFolder(Path(config.out)), Setup.load(config, Path(config.encoder))
    folder.path.mkdir(parents=True)
    save_config(config, folder.config)
    save_description(folder.encoder, setup.encoder_config, setup.tokenizer)
    params = lively_params(setup)
    state = TrainState.create(params, optax.identity(), jax.random.key(0), step=2)
    if config.evaluate == "teacher":
        state = state._replace(params=jax.tree.map(lambda leaf: 1.5 * leaf + jnp.float32(0.1), params), teacher=params)
    with Checkpoints(folder.checkpoints, to_dict(config)) as checkpoints:
        checkpoints.save(state, Progress(stage_done=True, average=0.5))
    write_results(folder, config)
    return folder
