"""The stages of a run as they will be trained: each with its batches and its optax chain, all checked."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from mtbert_jax import trees
from mtbert_jax.config import Stage, Task
from mtbert_jax.data.batches import TrainBatches
from mtbert_jax.data.dataset import Dataset
from mtbert_jax.errors import InputError
from mtbert_jax.limits import MOST_EPOCHS, MOST_STEPS
from mtbert_jax.model import EncoderWithHeads, param_shapes
from mtbert_jax.nn.heads import Head
from mtbert_jax.optim.chain import build_chain, chain_context, check_chain, check_descent, uses_rate
from mtbert_jax.optim.registry import known_calls
from mtbert_jax.optim.schedules import learning_rate
from mtbert_jax.programs import made_once
from mtbert_jax.regularizers import check_regularizers, stage_regularizers
from mtbert_jax.tasks import kind_of
from mtbert_jax.tasks.kind import TaskKind
from mtbert_jax.training.objective import StageSpec, check_objective
from mtbert_jax.training.setup import Setup, has_dropout
from mtbert_jax.training.update import stack_gradients
from mtbert_jax.types import Batch, FeatureBatch


class Plan(NamedTuple):
    """All that is known of a stage before it begins.

    Attributes:
        number: Its place, from 0.
        stage: Its config, with every field filled in.
        frozen: Paths of what does not train.
        batches: Its batches, by step.
        tx: Its optax chain, checked.
        rate: Its learning rate, by step; None where the chain does not use it.
    """

    number: int
    stage: Stage
    frozen: tuple[str, ...]
    batches: TrainBatches
    tx: optax.GradientTransformation
    rate: optax.Schedule | None

    def spec(self, start: int) -> StageSpec:
        """What of the stage its steps need to know, if it begins at step `start`."""
        return replace(StageSpec.of(self.stage, start, self.batches.num_steps), frozen=self.frozen)

    def describe(self) -> list[str]:
        """The stage in a few words."""
        return [
            f"{self.batches.num_steps} steps",
            self.stage.order,
            *([f"{', '.join(self.stage.freeze)} frozen"] if self.stage.freeze else []),
            *(["features kept"] if self.stage.cache_features else []),
            *(regularizer.describe() for regularizer in stage_regularizers(self.stage)),
        ]


def make_plans(setup: Setup, train: dict[str, Dataset]) -> list[Plan]:
    """All stages of a run, so that what is wrong in a late one shows at once.

    Raises:
        InputError: A chain, what is frozen or a regulariser does not fit the model, or a stage is endless.
    """
    plans = [_make_plan(setup, number, stage, train) for number, stage in enumerate(setup.config.resolved_stages())]
    _check_products(setup, plans)
    return plans


def _make_plan(setup: Setup, number: int, stage: Stage, train: dict[str, Dataset]) -> Plan:
    check_regularizers(stage)
    _check_masks(setup.model, stage)
    batches = setup.batches(number, stage, train)
    steps, epochs = batches.num_steps, batches.num_steps / batches.steps_per_epoch
    if steps > MOST_STEPS or epochs > MOST_EPOCHS:
        most = f"{MOST_STEPS} and {MOST_EPOCHS} are the most"
        raise InputError(f"stage {stage.name}: would take {steps} steps in {epochs:.0f} epochs; {most}")
    frozen = setup.model.frozen(stage.freeze)
    _check_frozen(setup, stage, frozen)
    known = tuple(known_calls().items())
    tx, rate = _checked_chain(setup.model, stage, batches.num_steps, tuple(batches.names(0)), known)
    plan = Plan(number, stage, frozen, batches, tx, rate)
    for name, own in batches.tasks.items() if stage.regularizers else ():
        shapes = _shapes_of(setup.model, name, own[0], stage.cache_features)
        _check_objective(setup.model, setup.tasks[name], kind_of(setup.tasks[name]), plan.spec(0), shapes)
    return plan


def _check_masks(model: EncoderWithHeads, stage: Stage) -> None:
    """Refuses to compare passes under different dropout masks, where the stage has no dropout at all."""
    heads = [model.heads[name] for name in stage.tasks]
    in_heads = any(isinstance(head, Head) and head.hidden_layers and head.dropout for head in heads)
    if in_heads or (has_dropout(model.encoder.config) and not stage.cache_features):
        return
    for regularizer in stage_regularizers(stage):
        if regularizer.needs_dropout:
            remedy = "head.dropout = 0.1" if stage.cache_features else "encoder_dropout = 0.1"
            where = "on kept features the heads have" if stage.cache_features else "encoder and heads have"
            what = f"stage {stage.name}: {regularizer.name} compares passes under different dropout masks"
            raise InputError(f"{what}, and {where} no dropout; set {remedy}, or leave {regularizer.name} out")


def _check_frozen(setup: Setup, stage: Stage, frozen: tuple[str, ...]) -> None:
    """Refuses to freeze what is not there, or everything."""
    params = setup.abstract_params()
    for prefix in stage.freeze:
        if not any(trees.is_below(path, prefix) for path in trees.paths(params)):
            raise InputError(f"freeze: no parameter lies below {prefix!r}; try 'encoder' or 'encoder/embeddings'")
    if not trees.split(params, frozen)[1]:
        raise InputError("freeze: nothing is left to train")


def _check_products(setup: Setup, plans: list[Plan]) -> None:
    """Refuses LoRA where every stage freezes all of its products, under whatever paths."""
    params = setup.abstract_params()
    if setup.model.lora and not any("encoder" in trees.split(params, plan.frozen)[1] for plan in plans):
        raise InputError(
            f"lora: every stage freezes all that LoRA would train (freeze = {list(plans[0].stage.freeze)}, and only "
            "kernels with a product train); set lora.rank = 0, or leave some of them out of freeze"
        )


def _shapes_of(model: EncoderWithHeads, task: str, batch: Batch | FeatureBatch, as_features: bool) -> Any:
    """Shapes of a batch of a task, or of the same examples as a frozen encoder's features."""
    if as_features:
        features = jax.ShapeDtypeStruct((len(batch.labels), model.num_features(task)), np.float32)
        batch = FeatureBatch(features, batch.labels, batch.weights)  # type: ignore[arg-type]
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), batch)


@made_once
def _checked_chain(
    model: EncoderWithHeads, stage: Stage, num_steps: int, names: tuple[str, ...], known: tuple[Any, ...]
) -> tuple[optax.GradientTransformation, optax.Schedule | None]:
    """A stage's chain, and its learning rate if it uses that; `known` are the functions that its call strings can name.

    Raises:
        InputError: The chain does not fit the model.
    """
    del known
    trainable = trees.split(param_shapes(model), model.frozen(stage.freeze))[1]
    rate = learning_rate(stage.lr, stage.schedule, stage.warmup_fraction, num_steps)
    tx = build_chain(stage.optimizer, chain_context(rate, trainable, len(names)))
    encoder = {"encoder": trainable["encoder"]} if "encoder" in trainable else {}
    heads = trainable.get("heads", {})
    grads = {name: encoder | {"heads": {n: h for n, h in heads.items() if n == name}} for name in names}
    check_chain(tx, jax.eval_shape(stack_gradients, trainable, grads), trainable, tuple(grads))
    check_descent(stage.optimizer, rate, trainable, tuple(grads))
    return tx, rate if uses_rate(stage.optimizer) else None


@made_once
def _check_objective(model: EncoderWithHeads, task: Task, kind: TaskKind, stage: StageSpec, batch: Any) -> None:
    """Traces a task's objective for the shapes of a batch; `kind` is the task's, which may be registered anew.

    Raises:
        InputError: A regulariser of the stage fails.
    """
    del kind
    check_objective(model, task, stage, batch, param_shapes(model))
