"""Everything a run needs before its first step."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import PRNGKeyArray
from tokenizers import Tokenizer

from mtbert_jax import trees
from mtbert_jax.config import Config, LoraConfig, Stage, Task
from mtbert_jax.data.batches import TrainBatches
from mtbert_jax.data.dataset import Dataset, load_datasets
from mtbert_jax.data.lengths import STANDARD, Ladder, ladder
from mtbert_jax.data.readers import Split
from mtbert_jax.data.streams import padded_lengths, stage_batches
from mtbert_jax.encoders.family import Family, encoder_shapes, family_of
from mtbert_jax.encoders.hub import load_matching_config
from mtbert_jax.encoders.sentence import left_out
from mtbert_jax.encoders.tokenizer import read_tokenizer
from mtbert_jax.errors import InputError
from mtbert_jax.limits import MOST_EPOCHS, MOST_STEPS
from mtbert_jax.model import EncoderWithHeads
from mtbert_jax.nn.attention import PLAIN, Choice, choose_kernel
from mtbert_jax.nn.heads import NO_POOLER, Head
from mtbert_jax.nn.layers import EncoderConfig
from mtbert_jax.nn.products import choose_dtype
from mtbert_jax.optim.chain import build_chain, chain_context, check_chain, check_descent, uses_rate
from mtbert_jax.optim.registry import known_calls
from mtbert_jax.optim.schedules import learning_rate
from mtbert_jax.parallel import ALONE, Layout
from mtbert_jax.programs import made_once
from mtbert_jax.regularizers import check_regularizers, stage_regularizers
from mtbert_jax.tasks import kind_of
from mtbert_jax.tasks.kind import TaskKind
from mtbert_jax.tasks.reads import head_reads
from mtbert_jax.training.objective import StageSpec, check_objective
from mtbert_jax.training.update import stack_gradients
from mtbert_jax.types import Batch, FeatureBatch, Params


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


@dataclass(frozen=True, eq=False)
class Setup:
    """A run's config, and what its encoder directory and data files say.

    Attributes:
        config: The run's.
        encoder_config: The encoder's.
        tokenizer: The encoder's.
        model: Encoder and heads.
        layout: Where the arrays of one run lie.
        attention: What computes attention, and why.
        remarks: What of the encoder's directory is left out or probably not meant, a line each.
    """

    config: Config
    encoder_config: EncoderConfig
    tokenizer: Tokenizer
    model: EncoderWithHeads
    layout: Layout = ALONE
    attention: Choice = PLAIN
    remarks: tuple[str, ...] = ()

    @classmethod
    def load(cls, config: Config, encoder: Path, layout: Layout = ALONE) -> "Setup":
        """Reads the encoder's description; of its weights only names, and no data yet.

        Raises:
            InputError: The directory holds no encoder, or the config asks for more than it has.
        """
        own = load_matching_config(encoder)
        family, loaded = family_of(own), read_tokenizer(encoder)
        tokenizer = loaded.tokenizer
        for task, given in zip(config.resolved_tasks(), config.tasks, strict=True):
            _check_task(task, family, own, f"task {task.name}: " if given.max_length else "")
        longest = max(task.max_length for task in config.resolved_tasks())
        remarks = (*left_out(encoder), *loaded.remarks(longest))
        tokens = 1 + max(number for token, number in tokenizer.get_vocab().items() if token)  # "" is a blank line's
        if tokens > own.vocab_size:
            raise InputError(f"{encoder}: the tokenizer has {tokens} tokens, config.json only {own.vocab_size}")
        rates = own if config.encoder_dropout is None else family.with_dropout(own, config.encoder_dropout)
        for task in config.resolved_tasks():
            _check_dropout(task, rates)
        width, dropout = own.hidden_size // own.num_attention_heads, rates.attention_probs_dropout_prob
        dtype = choose_dtype(config.compute_dtype)
        attention = choose_kernel(config.attention, width, dropout, dtype, family.encoder.unfused)
        model = EncoderWithHeads.build(rates, config.resolved_tasks(), dtype, config.remat, attention.kernel)
        return cls(config, own, tokenizer, model.with_lora(config.lora), layout, attention, remarks)

    @property
    def family(self) -> Family:
        """The encoder's family."""
        return family_of(self.encoder_config)

    @property
    def positions(self) -> int:
        """Tokens of the longest input that the encoder takes."""
        return self.family.max_length(self.encoder_config)

    def restored_params(self) -> Params:
        """Shapes of all parameters, with where each is to lie."""
        return self.layout.described(self.abstract_params())

    def with_config(self, config: Config) -> "Setup":
        """The same for a config that differs in nothing that was read: in its seed, its folder."""
        return replace(self, config=config)

    def without_lora(self) -> "Setup":
        """The same for parameters in which LoRA's products are added to their kernels."""
        return replace(self, model=self.model.with_lora(LoraConfig()))

    @property
    def tasks(self) -> dict[str, Task]:
        """The tasks by name."""
        return {task.name: task for task in self.config.resolved_tasks()}

    @property
    def kinds(self) -> tuple[tuple[str, TaskKind], ...]:
        """The tasks' names with their kinds."""
        return tuple((name, kind_of(task)) for name, task in self.tasks.items())

    def kept_width(self, task: str) -> int:
        """How many numbers an evaluation keeps of an example of a task, or of each of its places."""
        outputs, kind = self.model.heads[task].num_outputs, kind_of(self.tasks[task])
        shape = (1, *([1] if kind.has_places else [2] if kind.reads == "texts" else []), outputs)
        labels = np.zeros(shape[:-1] if kind.has_places else (1, *kind.label_shape(self.tasks[task])), np.float32)
        return jax.eval_shape(kind.kept, jax.ShapeDtypeStruct(shape, np.float32), labels).shape[-1]

    def lengths(self, *splits: dict[str, Dataset], alike: bool = False) -> dict[str, Ladder]:
        """The lengths that each task's batches are padded to (see `padded_lengths`)."""
        return padded_lengths(self.config, *splits, alike=alike)

    def fixed_lengths(self, task: str | None = None) -> Ladder:
        """Lengths for texts of a task, or of none, that are not known beforehand: the config's, or else usual ones.

        The last is the task's own limit: it stands in place of the next longer length, and nothing is padded beyond
        what the task can have. A limit that no other task has costs one more program at most. Without a task it is
        the run's, which may be above what the encoder has positions for if every task has its own.
        """
        limit = min(self.config.max_length, self.positions)
        if task is not None:
            limit = self.tasks[task].max_length
        return ladder(self.config.lengths or STANDARD, limit)

    def datasets(self, split: Split, labels: bool = True) -> dict[str, Dataset]:
        """One split of every task that has a file for it; `labels` as in `read_split`."""
        named = [task for task in self.tasks.values() if getattr(task, split)]
        return load_datasets(self.config, named, split, self.tokenizer, labels)

    def initial_params(self, encoder: Params, heads: Params | None = None) -> Params:
        """A pretrained encoder under `heads`; what is missing there is fresh, and depends on the run's seed."""
        key = jax.random.key(self.config.seed)
        fresh = _init_heads(self.model)(key)
        return {"encoder": self.model.lora.added(encoder, key), "heads": {**fresh, **(heads or {})}}

    def abstract_params(self) -> Params:
        """Shapes of all parameters."""
        return jax.tree.map(lambda leaf: leaf, _shapes(self.model))  # trees are dicts: a copy for each caller

    def has_teacher(self, stage: Stage) -> bool:
        """Whether a teacher goes along with the parameters of `stage`."""
        return self.config.evaluate == "teacher" or any(one.needs_teacher for one in stage_regularizers(stage))

    def plans(self, train: dict[str, Dataset]) -> list[Plan]:
        """All stages of the run, so that what is wrong in a late one shows at once.

        Raises:
            InputError: A chain, what is frozen or a regulariser does not fit the model, a stage is endless, or a task
                gets no step.
        """
        plans = []
        for number, stage in enumerate(self.config.resolved_stages()):
            check_regularizers(stage)
            self._check_masks(stage)
            batches = self.batches(number, stage, train)
            steps, epochs = batches.num_steps, batches.num_steps / batches.steps_per_epoch
            if steps > MOST_STEPS or epochs > MOST_EPOCHS:
                most = f"{MOST_STEPS} and {MOST_EPOCHS} are the most"
                raise InputError(f"stage {stage.name}: would take {steps} steps in {epochs:.0f} epochs; {most}")
            frozen = self.model.frozen(stage.freeze)
            plans.append(Plan(number, stage, frozen, batches, *self.chain(stage, batches)))
            for name, own in batches.tasks.items() if stage.regularizers else ():
                shapes = self._shapes_of(name, own[0], stage.cache_features)
                _check_objective(self.model, self.tasks[name], kind_of(self.tasks[name]), plans[-1].spec(0), shapes)
        trained = {name for plan in plans for name in plan.batches.trained}
        for plan in plans:
            for name in plan.stage.tasks:
                if name not in trained:
                    raise InputError(
                        f"task {name}: stage {plan.stage.name} ends after {plan.batches.num_steps} steps, "
                        f"before one trains it (order = {plan.stage.order!r}); give more steps or epochs, or leave the "
                        "task out"
                    )
        return plans

    def _check_masks(self, stage: Stage) -> None:
        """Refuses to compare passes under different dropout masks, where the stage has no dropout at all."""
        heads = [self.model.heads[name] for name in stage.tasks]
        in_heads = any(isinstance(head, Head) and head.hidden_layers and head.dropout for head in heads)
        if in_heads or (_has_dropout(self.model.encoder.config) and not stage.cache_features):
            return
        for regularizer in stage_regularizers(stage):
            if regularizer.needs_dropout:
                remedy = "head.dropout = 0.1" if stage.cache_features else "encoder_dropout = 0.1"
                where = "on kept features the heads have" if stage.cache_features else "encoder and heads have"
                what = f"stage {stage.name}: {regularizer.name} compares passes under different dropout masks"
                raise InputError(f"{what}, and {where} no dropout; set {remedy}, or leave {regularizer.name} out")

    def _shapes_of(self, task: str, batch: Batch | FeatureBatch, as_features: bool) -> Any:
        """Shapes of a batch of a task, or of the same examples as a frozen encoder's features."""
        if as_features:
            features = jax.ShapeDtypeStruct((len(batch.labels), self.model.num_features(task)), np.float32)
            batch = FeatureBatch(features, batch.labels, batch.weights)  # type: ignore[arg-type]
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), batch)

    def batches(self, number: int, stage: Stage, train: dict[str, Dataset]) -> TrainBatches:
        """The batches of stage `number`."""
        fill = partial(self.layout.fit, parts=self.config.micro_batches)
        return stage_batches(self.config, number, stage, train, fill)

    def chain(self, stage: Stage, batches: TrainBatches) -> tuple[optax.GradientTransformation, optax.Schedule | None]:
        """The stage's optax chain, checked against the gradients that it will get, and its learning rate if it is used.

        Raises:
            InputError: The chain or what is frozen does not fit the model.
        """
        params = self.abstract_params()
        trainable = trees.split(params, self.model.frozen(stage.freeze))[1]
        for prefix in stage.freeze:
            if not any(trees.is_below(path, prefix) for path in trees.paths(params)):
                raise InputError(f"freeze: no parameter lies below {prefix!r}; try 'encoder' or 'encoder/embeddings'")
        if not trainable:
            raise InputError("freeze: nothing is left to train")
        names = tuple(batches.names(0))
        return _checked_chain(self.model, stage, batches.num_steps, names, tuple(known_calls().items()))


@made_once
def _checked_chain(
    model: EncoderWithHeads, stage: Stage, num_steps: int, names: tuple[str, ...], known: tuple[Any, ...]
) -> tuple[optax.GradientTransformation, optax.Schedule | None]:
    """A stage's chain, and its learning rate if it uses that; `known` are the functions that its call strings can name.

    Raises:
        InputError: The chain does not fit the model.
    """
    del known
    trainable = trees.split(_shapes(model), model.frozen(stage.freeze))[1]
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
    check_objective(model, task, stage, batch, _shapes(model))


@made_once
def _init_heads(model: EncoderWithHeads) -> Callable[[PRNGKeyArray], Params]:
    return jax.jit(model.init_heads)


@made_once
def _shapes(model: EncoderWithHeads) -> Params:
    """Shapes of a model's parameters."""
    key = jax.random.key(0)
    encoder = jax.eval_shape(model.lora.added, encoder_shapes(model.encoder.config), key)
    return {"encoder": encoder, "heads": jax.eval_shape(model.init_heads, key)}


def _has_dropout(rates: EncoderConfig) -> bool:
    names = ("hidden_dropout_prob", "attention_probs_dropout_prob", "mlp_dropout")
    return any(getattr(rates, name, 0) for name in names)


def _check_dropout(task: Task, rates: EncoderConfig) -> None:
    """Refuses to compare a text with itself under two dropout masks, where there is no dropout."""
    if kind_of(task).reads == "texts" and len(task.text) == 1 and not _has_dropout(rates):
        raise InputError(
            f"task {task.name}: kind = {task.kind!r} of one text compares it with itself under other dropout masks, "
            "and the encoder has no dropout; set encoder_dropout = 0.1, or give two text columns"
        )


def _check_task(task: Task, family: Family, encoder: EncoderConfig, whose: str) -> None:
    """Refuses what a task asks of the encoder and it does not have; `whose` limit of tokens it is, in a message."""
    positions, special = family.max_length(encoder), family.tokenizer.num_special(len(task.text))
    if task.max_length > positions:
        raise InputError(f"{whose}max_length = {task.max_length}, but the encoder has {positions} positions")
    if task.max_length < special:
        raise InputError(f"{whose}max_length = {task.max_length}, but task {task.name} has {special} special tokens")
    if head_reads(task) in ("cls", "cls_each") and not family.encoder(encoder).pools:
        raise InputError(f"task {task.name}: head.{NO_POOLER}")
