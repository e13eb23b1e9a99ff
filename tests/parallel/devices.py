"""Run in a process of its own, with eight simulated devices: one update under several layouts, saved for comparison.

python -m tests.parallel.devices SPEC.json
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from mtbert_jax.config import ParallelConfig, load_config
from mtbert_jax.encoders.hub import load_pretrained
from mtbert_jax.optim import pcgrad
from mtbert_jax.parallel import Layout
from mtbert_jax.training.active import ActiveRun, stage_step
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.plan import make_plans
from mtbert_jax.training.setup import Setup
from mtbert_jax.training.state import TrainState


def states(config_file: str, sizes: dict[str, int], steps: int) -> tuple[TrainState, list[dict[str, Any]]]:
    """The state after some steps of a config's only stage under a layout, and the metrics of the steps."""
    config = load_config(config_file)
    layout = Layout.build(ParallelConfig(**sizes))
    setup = Setup.load(config, Path(config.encoder), layout)
    train = setup.datasets("train")
    (plan,) = make_plans(setup, train)
    run = ActiveRun(setup, RunFolder(Path()), [plan], train, {}, None, None, batches=plan.batches)  # type: ignore[arg-type]
    params = setup.initial_params(load_pretrained(config.encoder)[1])
    tx = optax.chain(pcgrad(), optax.clip_by_global_norm(1.0), optax.sgd(0.01, momentum=0.9))  # Adam magnifies rounding
    state = layout.place(TrainState.create(params, tx, jax.random.key(0), plan.frozen, with_teacher=True))
    step = stage_step(setup, plan._replace(tx=tx), 0)
    metrics = []
    for number in range(steps):
        state, told = step(state, run.gather(number))
        metrics.append(jax.device_get(told)._asdict())
    return state, metrics


def flat(state: TrainState) -> dict[str, np.ndarray]:
    """Parameters, teacher and optimizer statistics by path."""
    tree = jax.tree_util.tree_leaves_with_path((state.params, state.teacher, state.opt_state))
    plain = ((path, leaf) for path, leaf in tree if not jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in plain}


def main(spec: dict[str, Any]) -> None:
    """Writes an .npz per layout, and how parameters lie under each."""
    jax.config.update("jax_num_cpu_devices", spec["devices"])
    places = {}
    for name, sizes in spec["layouts"].items():
        state, metrics = states(spec["config"], sizes, spec["steps"])
        losses = np.array([[float(x) for x in one["losses"].values()] for one in metrics])
        np.savez(Path(spec["out"]) / f"{name}.npz", losses=losses, **flat(state))
        kernel = state.params["encoder"]["layer_0"]["intermediate"]["kernel"]
        moments = jax.tree.leaves(state.opt_state)
        places[name] = {
            "kernel": list(kernel.addressable_shards[0].data.shape),
            "bytes": sum(x.addressable_shards[0].data.nbytes for x in moments if x.ndim),
            "whole": sum(x.nbytes for x in moments if x.ndim),
        }
    (Path(spec["out"]) / "places.json").write_text(json.dumps(places))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
