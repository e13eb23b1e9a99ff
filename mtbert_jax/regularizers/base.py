"""What a regulariser is: terms that are added to a task's loss, from one batch; and the registry of all of them.

A regulariser is one frozen dataclass in one file: its fields are its options. Nothing outside of this folder knows one
by name.
"""

import abc
import dataclasses
import zlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from mtbert_jax.config import TaskConfig
from mtbert_jax.config.schema import describe, nearest
from mtbert_jax.errors import InputError
from mtbert_jax.protocols import must_be_name, must_extend, origin
from mtbert_jax.tasks import KINDS, TaskKind, kind_of
from mtbert_jax.tasks.losses import mean_loss, of_places
from mtbert_jax.types import Batch, FeatureBatch

Logits = Float[Array, "batch output"]
Embeddings = Float[Array, "batch seq hidden"]
Scalar = Float[Array, ""]
R = TypeVar("R", bound="type[Regularizer]")
PLACE = ("kind", "stage", "step", "epoch")
"""What every record says of itself, before its numbers."""
RECORD_FIELDS = (
    *(*PLACE, "loss", "cosine", "conflict", "layer_conflict", "weight", "share"),
    *("left_out", "lr", "examples_per_second"),
)
"""What training records hold besides penalties, which cannot have these names."""


class Penalty(NamedTuple):
    """A term of an objective, or a number that is only recorded.

    Attributes:
        value: Its value for the batch, unweighted: what is recorded.
        weight: Its factor in the objective; None for a number that is no term.
    """

    value: Scalar
    weight: Scalar | float | None


class Share(NamedTuple):
    """What a micro-batch is of its batch, so that the objectives of all of them add up to the batch's.

    Attributes:
        weight: Its share of the examples' weights.
        examples: Its share of the examples.
    """

    weight: Scalar | float
    examples: Scalar | float


WHOLE = Share(1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class GroupTask:
    """One task of a group, known on the device only: its loss and comparison, on logits of the group's width.

    Where heads read tokens, `places` are those with a label, over which the values of an example are averaged.
    """

    tasks: tuple[TaskConfig, ...]
    index: Int[Array, ""]
    places: Bool[Array, "batch place"] | None = None

    def loss(self, logits: Logits, labels: Float[Array, "batch *label"]) -> Float[Array, " batch"]:
        """Loss of every example."""
        return self._of_examples(self._chosen("loss", (logits,), (labels,)))

    def batch_loss(
        self, logits: Logits, labels: Float[Array, "batch *label"], weights: Float[Array, " batch"]
    ) -> Scalar:
        """Loss of a batch."""
        return self._chosen("batch_loss", (logits,), (labels, weights))

    def divergence(self, one: Logits, other: Logits, detach: bool = False) -> Float[Array, " batch"]:
        """ℓ_s of every example."""
        return self._of_examples(self._chosen("divergence", (one, other), (), detach))

    def one_sided(self, perturbed: Logits, clean: Logits) -> Float[Array, " batch"]:
        """KL(clean ‖ perturbed) of every example, or the squared difference."""
        return self._of_examples(self._chosen("one_sided", (perturbed, clean), ()))

    def number(self, of: Callable[[TaskConfig], float]) -> Scalar:
        """A number from the task's config."""
        return jnp.array([of(task) for task in self.tasks])[self.index]

    def _of_examples(self, values: Array) -> Float[Array, " batch"]:
        return values if self.places is None else of_places(values, self.places)

    def _chosen(self, name: str, logits: tuple[Logits, ...], rest: tuple[Array, ...], *options: Any) -> Any:
        def branch(task: TaskConfig) -> Callable[..., Array]:
            kind = kind_of(task)
            width, method = kind.num_outputs(task) or None, getattr(kind, name)
            return lambda logits, rest: method(*(one[..., :width] for one in logits), *rest, *options)

        return jax.lax.switch(self.index, [branch(task) for task in self.tasks], logits, rest)


Comparison = TaskKind | GroupTask
"""How two outputs for the same examples are compared: by `divergence`, or `one_sided`."""


def comparison(kind: Comparison | str, logits: Logits, others: Logits, weights: Float[Array, " batch"]) -> Comparison:
    """What compares these outputs, perhaps given by its name.

    Raises:
        InputError: There is no such kind, it compares places and does not know which count, or the arrays, which would
            broadcast, do not fit each other.
    """
    if isinstance(kind, str):
        if kind not in KINDS:
            raise InputError(f"kind = {kind!r} is none of {', '.join(KINDS)}{nearest(kind, KINDS)}")
        kind = KINDS[kind]
    if not isinstance(kind, TaskKind | GroupTask):
        raise InputError(
            f"kind = {describe(kind)}: give a kind's name, or an object of a class that extends mt.TaskKind"
        )
    if isinstance(kind, TaskKind) and kind.has_places:
        raise InputError(f"kind = {kind.name!r} has logits of places, not of whole texts, of which this loss is")
    if jnp.ndim(logits) < 2 or jnp.shape(logits) != jnp.shape(others) or jnp.shape(weights) != jnp.shape(logits)[:1]:
        raise InputError(
            f"logits of shapes {jnp.shape(logits)} and {jnp.shape(others)} with weights of shape {jnp.shape(weights)}: "
            "give both logits as [batch output], and weights as [batch]"
        )
    return kind


@dataclasses.dataclass(frozen=True)
class Forward:
    """What a regulariser may use: one batch of one task, and the forward pass that its loss is of.

    Attributes:
        batch: Token arrays, with as many rows an example as the encoder reads inputs of it (`Batch.flat`); or a frozen
            encoder's features, which have no embeddings to perturb.
        logits: Logits of the pass.
        embeddings: What the encoder's first layer read, rows as those of the token arrays; None on kept features.
        key: Dropout key of the pass.
        task: The task's loss and comparison.
        logits_of: ``(embeddings, key) → logits``: the pass from other embeddings; the same key gives the same dropout
            masks.
        logits_again: ``key → logits``: the whole pass with other dropout masks.
        teacher_logits: ``() → logits``: the pass with the teacher's parameters, under the same dropout masks.
        step: Number of the step in its stage, from 0.
        num_steps: Steps of the stage.
        share: What the batch is of a larger one.
    """

    batch: Batch | FeatureBatch
    logits: Logits
    embeddings: Embeddings | None
    key: PRNGKeyArray
    task: GroupTask
    logits_of: Callable[[Embeddings, PRNGKeyArray], Logits]
    logits_again: Callable[[PRNGKeyArray], Logits]
    teacher_logits: Callable[[], Logits]
    step: Int[Array, ""]
    num_steps: int
    share: Share = WHOLE

    @property
    def real(self) -> Float[Array, " batch"]:
        """1 for an example, 0 for a row that only fills the batch up."""
        return (self.batch.weights > 0).astype(jnp.float32)

    def mean(self, values: Float[Array, " batch"]) -> Scalar:
        """Mean of a value per example, all examples counting the same; those of micro-batches add up to the batch's."""
        return self.share.examples * mean_loss(values, self.real)

    def mean_loss(self, logits: Logits) -> Scalar:
        """Loss of the batch that logits would have, by the examples' weights; micro-batches' add up to the batch's."""
        return self.share.weight * self.task.batch_loss(logits, self.batch.labels, self.batch.weights)


class Regularizer(abc.ABC):
    """Terms that are added to the loss of every batch. Subclasses are frozen dataclasses; their fields are options.

    Attributes:
        name: Name in call strings of a config; `register_regularizer` sets it.
        titles: What it records, by name: the title of its plot.
        needs_embeddings: Whether it perturbs embeddings, and so cannot train on kept features.
        needs_teacher: Whether it compares with the teacher.
        needs_dropout: Whether it compares passes under different dropout masks, and is nothing without dropout.
        table: Whether its options are a table of the config of the same name, in place of a call string.
        loss_share: Share of the task's own loss that stays in the objective; below 1 where a term takes its place.
        key_fold: What is folded into a step's key to make the key of `penalty`; of the name, if not overridden.
    """

    name: ClassVar[str]
    titles: ClassVar[Mapping[str, str]]
    needs_embeddings: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = False
    needs_dropout: ClassVar[bool] = False
    table: ClassVar[bool] = False
    loss_share: ClassVar[float] = 1.0
    key_fold: ClassVar[int]

    @abc.abstractmethod
    def penalty(self, forward: Forward, key: PRNGKeyArray) -> dict[str, Penalty]:
        """Terms and numbers of a batch, by the names of `titles`.

        Args:
            forward: The batch, its logits, and how to compute others.
            key: Key of the regulariser's own in this task and step.
        """

    def is_on(self, task: TaskConfig) -> bool:
        """Whether a task has these terms at all; all tasks do, if not overridden."""
        return True

    def describe(self) -> str:
        """The regulariser in a few words, for the line about its stage."""
        options = (f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self))  # type: ignore[arg-type]
        return f"{self.name}({', '.join(options)})"


REGULARIZERS: dict[str, type[Regularizer]] = {}
"""All regularisers by name: this library's, and those that plugins register."""


def register_regularizer(name: str) -> Callable[[R], R]:
    """A decorator that lets a config's `regularizers` name a class: ``regularizers = ["name(option=1.0)"]``.

    Args:
        name: What call strings are to call it.

    Raises:
        InputError: The name is taken, or is none; the class is no `Regularizer` or no dataclass; or what it records has
            no name of its own.
    """
    must_be_name(name, "register_regularizer", "regularizer ", in_calls=True)

    def register(cls: R) -> R:
        def refuse(why: str) -> None:
            raise InputError(f"regularizer {name!r} cannot be registered: {why}")

        must_extend(cls, Regularizer, f"regularizer {name!r}")
        if name in REGULARIZERS and origin(REGULARIZERS[name]) != origin(cls):
            refuse("a regularizer of that name exists")
        if "__dataclass_fields__" not in vars(cls):
            refuse("put @dataclasses.dataclass(frozen=True) below @register_regularizer")
        if not getattr(cls, "titles", {}):
            refuse("it has no titles, which name what it records")
        if not isinstance(cls.titles, Mapping) or not all(
            isinstance(t, str) for pair in cls.titles.items() for t in pair
        ):
            refuse("its titles must be a dict of titles by name, both of them strings")
        if not isinstance(cls.loss_share, int | float) or not 0 <= cls.loss_share <= 1:
            refuse(f"loss_share = {cls.loss_share!r}: must be a number from 0 to 1")
        others = {
            title: f"as {other} does" for other in REGULARIZERS if other != name for title in REGULARIZERS[other].titles
        }
        taken = {**others, **dict.fromkeys(RECORD_FIELDS, "a name that every record has")}
        for title in cls.titles:
            if title in taken:
                refuse(f"it records {title!r}, {taken[title]}")
        key_fold = vars(cls).get("key_fold", zlib.crc32(name.encode()))
        if not isinstance(key_fold, int) or not 0 <= key_fold < 2**32:
            refuse(f"key_fold = {key_fold!r}: must be a whole number from 0 to 2**32 - 1")
        cls.name, cls.key_fold = name, key_fold
        REGULARIZERS[name] = cls
        return cls

    return register
