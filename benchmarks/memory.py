"""The estimate of memory beside what XLA reserves for the compiled programs, and beside arrays spread over 8 devices.

    python benchmarks/memory.py [--models minilm bert-base] [--lengths 64] [--out FILE]

Nothing trains: programs are compiled, and XLA is asked. Its peak of a step is the state, the gradients of the tasks
before, and the largest program's own outputs and work space.
"""

import argparse
import dataclasses
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from step import SIZES
from step_jax import synthetic
from workers import machine

from mtbert_jax.config import Config, HeadConfig, ParallelConfig, SmartConfig, TaskConfig
from mtbert_jax.data.dataset import Dataset
from mtbert_jax.data.tokens import Tokens
from mtbert_jax.encoders.bert import BertConfig, BertEncoder
from mtbert_jax.encoders.hub import save_pretrained
from mtbert_jax.encoders.tokenizer import load_tokenizer
from mtbert_jax.parallel import ALONE, Layout
from mtbert_jax.training.active import first_state
from mtbert_jax.training.memory import estimate
from mtbert_jax.training.plan import Plan, make_plans
from mtbert_jax.training.setup import Setup
from mtbert_jax.training.step import make_train_step

TASKS = (
    TaskConfig("sst", "classification", num_classes=5, train="-"),
    TaskConfig("para", "binary", text=("a", "b"), train="-"),
    TaskConfig("sts", "regression", text=("a", "b"), train="-"),
)


def main() -> None:
    """Prints a line per cell, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SIZES, default=["minilm", "bert-base"])
    parser.add_argument("--lengths", nargs="+", type=int, default=[64])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", 8)
    cells = []
    for model, length, smart in itertools.product(given.models, given.lengths, (0.0, 0.02)):
        with tempfile.TemporaryDirectory() as folder:
            cells.append({"model": model, "length": length, "smart": smart, **cell(Path(folder), model, length, smart)})
        print(json.dumps(cells[-1]), flush=True)
    if given.out:
        given.out.write_text(json.dumps({"machine": machine(), "cells": cells}, indent=1) + "\n", encoding="utf-8")


def cell(folder: Path, model: str, length: int, smart: float) -> dict[str, Any]:
    """One size and method: bytes estimated, and bytes that XLA and the arrays tell."""
    setup, plan = describe(folder, model, length, smart)
    told = estimate(setup, plan, ALONE)
    params = setup.abstract_params()
    state = jax.eval_shape(lambda params: first_state(setup, plan, params, 0), params)
    step = make_train_step(setup.model, setup.tasks, plan.tx, plan.spec(0))
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), synthetic(0, 16, length))
    program = step.programs[0].lower(np.int32(0), state.params, None, batch, state.key, state.step).compile()  # type: ignore[attr-defined]
    analysis = program.memory_analysis()
    spread = Layout.build(ParallelConfig(data=1, fsdp=8))
    over_8 = estimate(dataclasses.replace(setup, layout=spread), plan, spread)
    shapes = jax.tree.leaves(spread.described(state))
    return {
        "estimated": told._asdict(),
        "program_work_space": analysis.temp_size_in_bytes,
        "program_outputs": analysis.output_size_in_bytes,
        "program_arguments": analysis.argument_size_in_bytes,
        "estimated_over_8": over_8._asdict(),
        "state_over_8": sum(
            int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * 4 for leaf in shapes if leaf.dtype == jnp.float32
        ),
    }


def describe(folder: Path, model: str, length: int, smart: float) -> tuple[Setup, Plan]:
    """A run of random weights over synthetic tokens."""
    bert = BertConfig(**SIZES[model])
    encoder = BertEncoder(bert)
    shapes = jax.eval_shape(lambda: encoder.init(jax.random.key(0), jnp.ones((1, 1), jnp.int32)))["params"]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(100))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    tokenizer = load_tokenizer(folder)
    save_pretrained(folder, bert, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes), tokenizer)
    config = Config(tasks=TASKS, head=HeadConfig(), lengths=(length,), max_length=length, batch_size=16, steps=10)
    config = dataclasses.replace(config, smart=SmartConfig(weight=smart, preset="smart_pytorch"))
    setup = Setup.load(config, folder)
    tokens = Tokens(np.ones(32 * length, np.int32), np.arange(33) * length, np.full(32, length, np.int32))
    labels = np.zeros(32, np.float32)
    train = {task.name: Dataset([], [], tokens, labels, True, []) for task in TASKS}
    return setup, make_plans(setup, train)[0]


if __name__ == "__main__":
    main()
