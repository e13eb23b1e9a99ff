"""A run's config with what it names: the encoder's description, the tokenizer, the model, the data."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
from jaxtyping import PRNGKeyArray
from tokenizers import Tokenizer

from mtbert_jax.config import Config, LoraConfig, Stage, Task
from mtbert_jax.config.schema import must_be_among
from mtbert_jax.data.batches import TrainBatches
from mtbert_jax.data.dataset import Dataset, load_datasets
from mtbert_jax.data.lengths import STANDARD, Ladder, ladder
from mtbert_jax.data.readers import SPLITS, Split
from mtbert_jax.data.streams import padded_lengths, stage_batches
from mtbert_jax.encoders.family import Family, family_of
from mtbert_jax.encoders.hub import load_matching_config
from mtbert_jax.encoders.sentence import left_out
from mtbert_jax.encoders.tokenizer import read_tokenizer
from mtbert_jax.errors import InputError
from mtbert_jax.model import EncoderWithHeads, param_shapes
from mtbert_jax.nn.attention import PLAIN, Choice, choose_kernel
from mtbert_jax.nn.heads import NO_POOLER
from mtbert_jax.nn.layers import EncoderConfig
from mtbert_jax.nn.products import choose_dtype
from mtbert_jax.parallel import ALONE, Layout
from mtbert_jax.programs import made_once
from mtbert_jax.regularizers import stage_regularizers
from mtbert_jax.tasks import kind_of
from mtbert_jax.tasks.kind import TaskKind
from mtbert_jax.tasks.reads import head_reads
from mtbert_jax.types import Params


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
        if not config.tasks:
            raise InputError(f"the config beside {encoder} has no [[tasks]], which every run has; was it cut off?")
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
        must_be_among("split", split, SPLITS)
        named = [task for task in self.tasks.values() if getattr(task, split)]
        return load_datasets(self.config, named, split, self.tokenizer, labels)

    def initial_params(self, encoder: Params, heads: Params | None = None) -> Params:
        """A pretrained encoder under `heads`; what is missing there is fresh, and depends on the run's seed."""
        key = jax.random.key(self.config.seed)
        fresh = _init_heads(self.model)(key)
        return {"encoder": self.model.lora.added(encoder, key), "heads": {**fresh, **(heads or {})}}

    def abstract_params(self) -> Params:
        """Shapes of all parameters."""
        return jax.tree.map(lambda leaf: leaf, param_shapes(self.model))  # trees are dicts: a copy for each caller

    def has_teacher(self, stage: Stage) -> bool:
        """Whether a teacher goes along with the parameters of `stage`."""
        return self.config.evaluate == "teacher" or any(one.needs_teacher for one in stage_regularizers(stage))

    def batches(self, number: int, stage: Stage, train: dict[str, Dataset]) -> TrainBatches:
        """The batches of stage `number`."""
        fill = partial(self.layout.fit, parts=self.config.micro_batches)
        return stage_batches(self.config, number, stage, train, fill)


@made_once
def _init_heads(model: EncoderWithHeads) -> Callable[[PRNGKeyArray], Params]:
    return jax.jit(model.init_heads)


def has_dropout(rates: EncoderConfig) -> bool:
    """Whether an encoder has dropout anywhere."""
    names = ("hidden_dropout_prob", "attention_probs_dropout_prob", "mlp_dropout")
    return any(getattr(rates, name, 0) for name in names)


def _check_dropout(task: Task, rates: EncoderConfig) -> None:
    """Refuses to compare a text with itself under two dropout masks, where there is no dropout."""
    if kind_of(task).reads == "texts" and len(task.text) == 1 and not has_dropout(rates):
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
