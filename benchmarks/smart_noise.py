"""How adversarial is SMART's noise? R_s after K = 0, 1, 3 steps of ascent, and how far the noise moved.

K = 0 is random noise of the same size, so a preset whose K = 1 equals its K = 0 does not search at all. Dropout off, a
batch of 16 dev examples per task, on a pretrained encoder with fresh heads, or on the best checkpoint of a run.

    python benchmarks/smart_noise.py --data-dir path/to/cs224n [--encoder weights/minilm | --run RUN] [--out FILE.json]
"""

import argparse
import dataclasses
import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp

from mtbert_jax.config import SmartConfig, load_config
from mtbert_jax.encoders.hub import load_pretrained
from mtbert_jax.inference import MultitaskModel
from mtbert_jax.regularizers.smart import CleanPass, adversarial_noise
from mtbert_jax.tasks import kind_of
from mtbert_jax.training.setup import Setup
from mtbert_jax.types import Batch

ROWS = {
    "paper": SmartConfig(preset="paper"),
    "smart_pytorch": SmartConfig(preset="smart_pytorch"),
    "mtdnn": SmartConfig(preset="mtdnn"),
    **{
        f"ball of {radius}": SmartConfig(preset="paper", radius=radius, noise_std=radius, step_size=radius)
        for radius in (0.01, 0.1, 0.5)
    },
}
STEPS = (0, 1, 3)


def main() -> None:
    """Prints a table and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="examples/data")
    parser.add_argument("--encoder", default="weights/minilm")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.run:
        model = MultitaskModel.from_checkpoint(given.run, data_dir=given.data_dir)
        setup, params = model.setup, model.params
    else:
        config = dataclasses.replace(load_config("configs/minilm_pcgrad.toml"), data_dir=given.data_dir)
        setup = Setup.load(config, Path(given.encoder))
        params = setup.initial_params(load_pretrained(given.encoder)[1])
    stage = dataclasses.replace(setup.config.resolved_stages()[0], steps=1, batch_size=16, order="round_robin")
    batches = setup.batches(0, stage, setup.datasets("dev"))[0]
    results = []
    for task, batch in batches.items():
        kind = kind_of(setup.tasks[task])
        mask = jnp.asarray(batch.attention_mask)
        embeddings = setup.model.embed(params, batch)
        logits_fn = jax.jit(partial(_logits, setup, params, task, batch))
        clean = logits_fn(embeddings)
        at = CleanPass(logits_fn, clean, embeddings, mask, kind, jnp.ones(len(clean)))
        for name, smart in ROWS.items():
            noises = [
                adversarial_noise(at, jax.random.key(0), dataclasses.replace(smart, steps=steps)) for steps in STEPS
            ]
            row = {
                "task": task,
                "noise": name,
                "smoothness": [float(kind.divergence(logits_fn(embeddings + n), clean).mean()) for n in noises],
                "cosine_to_random": [_cosine(noises[0], noise) for noise in noises],
            }
            results.append(row)
            print(f"{task:5} {name:14} R_s", *(f"{value:.2e}" for value in row["smoothness"]), end="  ")
            print("cosine to K = 0", *(f"{value:.4f}" for value in row["cosine_to_random"]))
    if given.out:
        source = f"best checkpoint of {given.run.name}" if given.run else f"{Path(given.encoder).name}, fresh heads"
        document = {"steps": STEPS, "params": source, "examples": 16, "rows": results}
        given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _logits(setup: Setup, params: dict, task: str, batch: Batch, embeddings: jax.Array) -> jax.Array:
    return setup.model.logits_of_embeddings(params, task, embeddings, batch)


def _cosine(one: jax.Array, other: jax.Array) -> float:
    return float(jnp.vdot(one, other) / jnp.linalg.norm(one) / jnp.linalg.norm(other))


if __name__ == "__main__":
    main()
