"""How often do tasks conflict, where, and what does PCGrad change in the update? Measured along a training run.

    python benchmarks/conflicts.py --data-dir path/to/cs224n [--config FILE.toml] [--points 9] [--out FILE.json]

The config is one of a single stage, round robin, with "pcgrad()" first in its chain. At evenly spaced points its
training halts, and the tasks' gradients on batches that it will not see are compared: batch by batch, and summed over
all of them, where what a small batch happens to hold has averaged out. The chain is then run with surgery and with a
plain sum from the same state, so that the two updates can be set side by side before and after adam.
"""

import argparse
import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from workers import machine

from mtbert_jax.config import load_config
from mtbert_jax.config.schema import finite
from mtbert_jax.encoders.hub import load_pretrained
from mtbert_jax.optim.aggregators import cosines, gramian, pcgrad_weights, random_orders
from mtbert_jax.optim.chain import build_chain, chain_context
from mtbert_jax.training.active import first_state
from mtbert_jax.training.plan import Plan, make_plans
from mtbert_jax.training.setup import Setup
from mtbert_jax.training.state import TrainState
from mtbert_jax.training.step import TrainStep, make_train_step
from mtbert_jax.training.update import stack_gradients
from mtbert_jax.types import Params

Tree = Any
ROOT = Path(__file__).parents[1]


def main() -> None:
    """Trains, measures at each point, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "minilm_pcgrad.toml")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--points", type=int, default=9)
    parser.add_argument("--batches", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    config = dataclasses.replace(
        load_config(given.config), data_dir=given.data_dir, epochs=given.epochs, seed=given.seed
    )
    setup = Setup.load(config, Path(config.encoder))
    (plan,) = make_plans(setup, setup.datasets("train"))
    state = first_state(setup, plan, setup.initial_params(load_pretrained(config.encoder)[1]), 0)
    train_step = make_train_step(setup.model, setup.tasks, plan.tx, plan.spec(0))
    probe = Probe(setup, plan, train_step, given.batches)
    halts = np.linspace(0, plan.batches.num_steps - 1, given.points).round().astype(int)
    points = []
    for step in range(plan.batches.num_steps):
        if step in halts:
            points.append({"step": step, **probe(state)})
            print(json.dumps({key: value for key, value in points[-1].items() if key != "parts"}), flush=True)
        state, _ = train_step(state, plan.batches[step])
    document = {
        "machine": machine(),
        "config": given.config.name,
        "epochs": given.epochs,
        "seed": given.seed,
        "steps": plan.batches.num_steps,
        "batches": given.batches,
        "batch_size": config.batch_size,
        "points": points,
    }
    if given.out:
        given.out.write_text(json.dumps(finite(document), indent=1) + "\n", encoding="utf-8")


class Probe:
    """Compares gradients and updates at one point of training."""

    def __init__(self, setup: Setup, plan: Plan, train_step: TrainStep, batches: int) -> None:
        self.plan, self.train_step, self.number = plan, train_step, batches
        self.tasks = list(setup.tasks)
        surgery, *rest = plan.stage.optimizer or ()
        if surgery != "pcgrad()":
            raise SystemExit(f'the chain must begin with "pcgrad()", not with {surgery!r}')
        context = chain_context(plan.rate, setup.abstract_params())
        self.without = build_chain(("sum_tasks()", *rest), context)
        self.compare = jax.jit(self._compare)
        self.grams = jax.jit(part_grams)

    def __call__(self, state: TrainState) -> dict[str, Any]:
        """Cosines and conflicts over all of the encoder and by its parts, and how the two updates differ."""
        total: Params = {}
        grams, updates = [], []
        for number in range(self.number):
            batches = self.plan.batches[self.plan.batches.num_steps + number]  # of the epochs that training has not
            own = state._replace(step=state.step + number)  # dropout of its own
            grads, _ = self.train_step.all_gradients(own, batches)
            stacked = stack_gradients(state.params, grads)
            grams.append(jax.device_get(self.grams(stacked["encoder"])))
            updates.append(jax.device_get(self.compare(stacked, state)))
            total = jax.tree.map(jnp.add, total, stacked) if total else stacked
        large = jax.device_get(self.grams(total["encoder"]))
        trained = [name for name in large if large[name].any()]  # nothing reads the pooler of a mean over tokens
        parts = {name: self._pairs([gram[name] for gram in grams], large[name]) for name in trained}
        whole = parts.pop("all")
        surgery = {
            "gradient": _means([surgery_on_gramian(jnp.asarray(gram["all"])) for gram in grams]),
            "update": _means(updates),
            "gradient_of_all_batches": surgery_on_gramian(jnp.asarray(large["all"])),
        }
        return {"pairs": whole, "surgery": surgery, "parts": parts}

    def _pairs(self, grams: list[np.ndarray], large: np.ndarray) -> dict[str, dict[str, float]]:
        found = {}
        of_batches = np.array([cosines(jnp.asarray(gram)) for gram in grams])
        of_all = np.asarray(cosines(jnp.asarray(large)))
        for i, j in itertools.combinations(range(len(self.tasks)), 2):
            single = of_batches[:, i, j]
            found[f"{self.tasks[i]}/{self.tasks[j]}"] = {
                "cosine": float(np.mean(single)),
                "conflict": float(np.mean(single < 0)),
                "cosine_of_all_batches": float(of_all[i, j]),
            }
        return found

    def _compare(self, stacked: Params, state: TrainState) -> dict[str, jax.Array]:
        """The encoder's update with surgery beside that of a plain sum: the cosine, and the ratio of norms."""
        surgery = self.plan.tx.update(stacked, state.opt_state, state.params)[0]
        plain = self.without.update(stacked, state.opt_state, state.params)[0]
        return beside(surgery["encoder"], plain["encoder"])


def part_grams(stacked: Tree) -> dict[str, jax.Array]:
    """The Gramian over each part of the encoder, and over all of it."""
    grams = {part: gramian(jax.tree.leaves(tree)) for part, tree in stacked.items()}
    return {**grams, "all": sum(grams.values())}  # type: ignore[dict-item]


def beside(one: Tree, other: Tree) -> dict[str, jax.Array]:
    """The cosine of two trees, and the norm of the first as a share of the second's."""
    norms = optax.global_norm(one), optax.global_norm(other)
    dot = sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))
    return {"cosine": dot / (norms[0] * norms[1]), "norm": norms[0] / norms[1]}


def surgery_on_gramian(gram: jax.Array) -> dict[str, float]:
    """Surgery beside a plain sum, where only the tasks' inner products are known."""
    orders = random_orders(jax.random.key(0), len(gram), include_self=False)
    weights, ones = pcgrad_weights(gram, orders), jnp.ones(len(gram))
    norms = [float(jnp.sqrt(w @ gram @ w)) for w in (weights, ones)]
    return {"cosine": float(weights @ gram @ ones) / (norms[0] * norms[1]), "norm": norms[0] / norms[1]}


def _means(of_batches: list[dict[str, Any]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in of_batches])) for name in of_batches[0]}


if __name__ == "__main__":
    main()
