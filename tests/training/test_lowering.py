"""Every program of a step can be lowered for a GPU and a TPU. Nothing is compiled, and no device is needed."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbert_jax.config import Config, HeadConfig, LoraConfig, ProximalConfig, SmartConfig
from mtbert_jax.optim import register_aggregator
from mtbert_jax.optim.registry import unregister
from mtbert_jax.parallel import Layout
from mtbert_jax.training.active import first_state
from mtbert_jax.training.evaluate import make_eval_step, make_pooling_step
from mtbert_jax.training.plan import make_plans
from mtbert_jax.training.setup import Setup
from mtbert_jax.training.step import make_train_step
from tests.cases import slow_but_for
from tests.conftest import replace_task

PLATFORMS = ("cuda", "tpu")
SMART = SmartConfig(weight=1.0, preset="paper", radius=0.1, step_size=0.1)
TEACHER: dict[str, Any] = {"proximal": ProximalConfig(weight=1.0), "evaluate": "teacher"}
CASES: dict[str, dict[str, Any]] = {
    "PCGrad": {"optimizer": Config.optimizer},
    "SMART": {"smart": dataclasses.replace(SMART, norm="1")},
    "SMART as smart-pytorch": {"smart": SmartConfig(weight=1.0, preset="smart_pytorch", norm="2")},
    "a teacher": TEACHER,
    "bfloat16": {"compute_dtype": "bfloat16"},
    "several seeds": {"seeds": (0, 1)},
    "micro-batches": {"micro_batches": 2},
    "LoRA": {"lora": LoraConfig(rank=2)},
    "kept features": {"freeze": ("encoder",), "cache_features": True},
    "all at once": {
        **TEACHER,
        "smart": SMART,
        "compute_dtype": "bfloat16",
        "seeds": (0, 1),
        "micro_batches": 2,
        "remat": True,
        "lora": LoraConfig(rank=2, paths=("encoder",)),
        "optimizer": ("pcgrad()", "clip_by_global_norm(1.0)", "adafactor(lr)"),
    },
}


def programs(config: Config) -> Iterator[tuple[str, Callable[..., Any], tuple[Any, ...]]]:
    """Name, jitted function and abstract arguments of every program of a run's first step, and of its evaluation."""
    setup, seeds = Setup.load(config, Path(config.encoder)), len(config.seeds)
    layout = Layout(wide=seeds > 0)
    train = setup.datasets("train")
    (plan,) = make_plans(setup, train)
    params = setup.abstract_params()
    apart = [names[0] for names in setup.model.groups()]  # tasks of one group share their programs
    tokens = jax.eval_shape(lambda: plan.batches[0])
    batches = tokens
    if plan.stage.cache_features:
        kept = {name: np.zeros((len(data.ids), setup.model.num_features(name))) for name, data in train.items()}
        batches = jax.eval_shape(lambda: plan.batches.with_features(kept)[0])
    state = jax.eval_shape(lambda params: first_state(setup, plan, params, 0), params)
    if seeds:
        state, batches = several(state, seeds)._replace(step=state.step), several(batches, seeds)

    step = make_train_step(setup.model, setup.tasks, plan.tx, plan.spec(0), layout, config.micro_batches)
    results = {}
    for task, batch in batches.items():
        args = (state.params, state.teacher, batch, state.key, state.step)
        results[task] = jax.eval_shape(step.gradients[task], *args)
        if task in apart:
            yield f"gradient of {task}", jax.jit(step.gradients[task]), args
    grads, terms = ({task: result[n] for task, result in results.items()} for n in range(2))
    yield "update", step.update, (*state.parted(), grads, terms)

    evaluate, pool = make_eval_step(setup.model, layout), make_pooling_step(setup.model, layout)
    for task in apart:
        logits = jax.jit(lambda params, batch, task=task: evaluate(params, task, batch))
        yield f"logits of {task}", logits, (params, tokens[task])
    yield "features", jax.jit(lambda params, batch: pool(params, "mean", batch)), (params, tokens["sst"])


def several(tree: Any, count: int) -> Any:
    """Shapes of the same arrays for `count` seeds."""
    return jax.eval_shape(lambda tree: jax.tree.map(lambda leaf: jnp.stack([leaf] * count), tree), tree)


def lowered(config: Config) -> dict[str, list[str]]:
    """The programs' texts, one for each platform.

    Raises:
        NotImplementedError: A platform lacks something that a program needs.
    """
    traced = {name: function.trace(*args) for name, function, args in programs(config)}  # type: ignore[attr-defined]
    return {
        name: [program.lower(lowering_platforms=(platform,)).as_text() for platform in PLATFORMS]
        for name, program in traced.items()
    }


QUICK = ("all at once",)
"""Most of the other cases are parts of it."""


@pytest.mark.parametrize("case", slow_but_for(QUICK, CASES))
def test_programs_can_be_lowered(case: str, config: Config) -> None:
    texts = lowered(dataclasses.replace(config, **CASES[case]))
    assert list(texts) == ["gradient of sst", "update", "logits of sst", "features"]
    assert all("func.func public @main" in text for both in texts.values() for text in both)
    assert ("xbf16>" in texts["gradient of sst"][0]) == (CASES[case].get("compute_dtype") == "bfloat16")


def test_programs_of_heads_that_read_other_things_can_be_lowered(config: Config) -> None:
    config = replace_task(config, "para", head=HeadConfig(pooling="both", hidden_layers=2))
    config = replace_task(config, "sts", head=HeadConfig(pooling="mean", hidden_layers=0))
    assert len(lowered(config)) == 3 + 1 + 3 + 1


def test_what_a_platform_lacks_is_found(config: Config) -> None:
    """An aggregator by Schur's decomposition, which XLA has for CPUs only."""

    @register_aggregator("by_schur")
    def by_schur(gramian: jax.Array, state: None, key: jax.Array, losses: jax.Array) -> tuple[jax.Array, None]:
        return jnp.diagonal(jax.scipy.linalg.schur(gramian)[0]), state

    try:
        with pytest.raises(NotImplementedError, match=r"schur.* for platform cuda"):
            lowered(dataclasses.replace(config, optimizer=("by_schur()", "sgd(lr)")))
    finally:
        unregister("by_schur")
