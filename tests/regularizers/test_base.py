"""The protocol of regularisers, and what cannot be registered."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtbert_jax as mt
from mtbert_jax.errors import InputError
from mtbert_jax.regularizers.base import RECORD_FIELDS, REGULARIZERS, Forward, Share
from mtbert_jax.tasks import KINDS
from mtbert_jax.training.records import SHAPES
from mtbert_jax.types import FeatureBatch


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    before = dict(REGULARIZERS)
    yield
    for name in set(REGULARIZERS) - set(before):
        del REGULARIZERS[name]
    assert before == REGULARIZERS


def make(**names: Any) -> Any:
    """A class of one's own that records `size`, but for what is given."""

    def penalty(self: Any, forward: Any, key: Any) -> dict[str, mt.Penalty]:
        return {"size": mt.Penalty(forward.mean(jnp.square(forward.logits).sum(-1)), self.weight)}

    body = {"titles": {"size": "size of the logits"}, "penalty": penalty, "weight": 1.0, "__module__": __name__}
    body |= {"__annotations__": {"weight": float}}
    return dataclasses.dataclass(frozen=True)(type("Size", (mt.Regularizer,), body | names))


def test_a_registered_class_knows_its_name_and_describes_itself() -> None:
    cls = mt.register_regularizer("size")(make())
    assert REGULARIZERS["size"] is cls
    assert cls(weight=0.5).describe() == "size(weight=0.5)"
    assert (cls.needs_embeddings, cls.needs_teacher, cls.table) == (False, False, False)
    assert cls(0.5).is_on(mt.TaskConfig())


def test_every_regularizer_has_a_key_of_its_own() -> None:
    """SMART's is folded from 1, as it always was; others from their names."""
    one, other = (mt.register_regularizer(name)(make(titles={name: name})) for name in ("one", "other"))
    folds = [cls.key_fold for cls in (REGULARIZERS["smart"], REGULARIZERS["proximal"], one, other)]
    assert folds[0] == 1
    assert len(set(folds)) == 4


@pytest.mark.parametrize(
    ("name", "cls", "message"),
    [
        ("my name", make(), "call strings need a name such as my_name"),
        ("smart", make(), "a regularizer of that name exists"),
        ("size", make(titles={}), "it has no titles"),
        ("size", make(titles={"noise": "n"}), "it records 'noise', as smart does"),
        ("size", make(titles={"loss": "n"}), "it records 'loss', a name that every record has"),
        ("size", make(titles="size"), "its titles must be a dict of titles by name"),
        ("size", make(titles={"size": 5}), "its titles must be a dict of titles by name, both of them strings"),
        ("size", make(key_fold="size"), "key_fold = 'size': must be a whole number from 0 to 2**32 - 1"),
        ("size", make(key_fold=-1), "key_fold = -1: must be"),
        ("size", make(loss_share=2.0), "loss_share = 2.0: must be a number from 0 to 1"),
        ("size", type("Bare", (mt.Regularizer,), {"penalty": None}), "put @dataclasses.dataclass(frozen=True)"),
        ("size", type("Bare", (mt.Regularizer,), {"titles": {"size": "s"}}), "the class lacks penalty"),
        ("size", dataclasses.make_dataclass("Bare", ["weight"]), "it must be a class that extends mt.Regularizer"),
        ("size", lambda forward: 0.0, "it must be a class that extends mt.Regularizer"),
    ],
)
def test_what_cannot_be_registered_is_refused(name: str, cls: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        mt.register_regularizer(name)(cls)
    assert str(caught.value).startswith(f"regularizer {name!r} cannot be registered: {message}")


def test_the_same_file_may_register_again() -> None:
    mt.register_regularizer("size")(make())
    again = mt.register_regularizer("size")(make(titles={"size": "s", "more": "m"}))
    assert REGULARIZERS["size"] is again


def test_names_that_records_have_are_those_that_penalties_cannot_have() -> None:
    assert {name.removesuffix("?") for name in SHAPES["train"]} - {"*"} == set(RECORD_FIELDS)


def forward(batch: FeatureBatch, share: Share) -> Forward:
    nothing: Any = None
    task: Any = KINDS["regression"]
    at = {"key": jax.random.key(0), "task": task, "step": jnp.int32(0), "num_steps": 1, "embeddings": None}
    ways = dict.fromkeys(("logits_of", "logits_again", "teacher_logits"), nothing)
    return Forward(batch=batch, logits=batch.features, share=share, **at, **ways)


def test_means_of_micro_batches_add_up_to_the_batchs() -> None:
    """Of the examples, each counting the same; of the loss, by the examples' weights; fillers count nowhere."""
    rng = np.random.default_rng(0)
    weights = np.array([0.5, 2.0, 1.0, 3.0, 0.0, 1.5], np.float32)
    labels, logits = rng.normal(size=6).astype("f4"), rng.normal(size=(6, 1)).astype("f4")
    real = weights > 0
    values = np.abs(logits[:, 0])
    means, losses = [], []
    for rows in (slice(0, 4), slice(4, 6)):
        share = Share(weights[rows].sum() / weights.sum(), real[rows].sum() / real.sum())
        part = forward(FeatureBatch(*(jnp.asarray(x[rows]) for x in (logits, labels, weights))), share)
        means.append(float(part.mean(jnp.asarray(values[rows]))))
        losses.append(float(part.mean_loss(part.logits)))
    assert sum(means) == pytest.approx(values[real].mean(), rel=1e-6)
    expected = np.average(np.square(logits[:, 0] - labels), weights=weights)
    assert sum(losses) == pytest.approx(expected, rel=1e-6)
