"""What an encoder family is: its config, its module, its names and its tokenizer; and the registry of all families.

A family is one class in one file. Nothing outside of this folder asks which family an encoder is of.
"""

import dataclasses
import typing
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mtbert_jax.config.schema import describe, must_be_among
from mtbert_jax.encoders.tokenizer_rules import TokenizerRules
from mtbert_jax.errors import InputError
from mtbert_jax.nn.activations import ACTIVATIONS
from mtbert_jax.nn.attention import Kernel
from mtbert_jax.nn.layers import EncoderConfig
from mtbert_jax.programs import made_once
from mtbert_jax.protocols import must_be_name, must_extend, origin
from mtbert_jax.types import EncoderOutput, Params

F = TypeVar("F", bound="type[Family]")


class Encoder(nn.Module):
    """An encoder in two halves, so that a caller can enter after the embeddings.

    Subclasses define `setup`, `embed` and `encode`. Parameters of what precedes the layers lie below ``embeddings``,
    those of layer n, from 0, below ``layer_<n>``: frozen parts and layer-wise decay go by these names. What follows the
    last layer, such as a pooler, has a name of its own; its updates do not decay.

    Attributes:
        config: Sizes and rates.
        dtype: Type of the matrix products. Parameters and reductions are float32 whatever it is.
        remat: Keep a layer's input alone for its gradient, and compute the layer again then.
        kernel: Of the attention.
        has_pooler: Whether outputs have `pooled`, unless the config says that this encoder has no pooler.
        unfused: Why cuDNN's fused attention cannot compute it, as a clause; empty where it can.
    """

    config: EncoderConfig
    dtype: Any = jnp.float32
    remat: bool = False
    kernel: Kernel = "xla"
    has_pooler: ClassVar[bool] = True
    unfused: ClassVar[str] = ""

    @property
    def pools(self) -> bool:
        """Whether outputs have `pooled`: the family has a pooler, and this encoder's weights have it."""
        return self.has_pooler and getattr(self.config, "has_pooler", True)

    def __call__(
        self,
        input_ids: Int[Array, "batch seq"],
        attention_mask: Int[Array, "batch seq"] | None = None,
        token_type_ids: Int[Array, "batch seq"] | None = None,
        *,
        deterministic: bool = True,
        cls_only: bool = False,
    ) -> EncoderOutput:
        """Token ids → states. Without a mask every token counts; without token types all are 0.

        Raises:
            InputError: The ids are no batch of texts, or longer than the encoder takes, or another array has not their
                shape; or ids or types are no whole numbers, or none that the encoder has a row for.
        """
        input_ids = jnp.asarray(input_ids)
        longest, shape = family_of(self.config).max_length(self.config), input_ids.shape
        if len(shape) != 2 or (isinstance(shape[1], int) and not 1 <= shape[1] <= longest):
            raise InputError(f"input_ids of shape {shape}: give [batch seq], texts of 1 to {longest} tokens")
        mask = jnp.ones_like(input_ids) if attention_mask is None else jnp.asarray(attention_mask)
        types = jnp.zeros_like(input_ids) if token_type_ids is None else jnp.asarray(token_type_ids)
        for name, given in (("attention_mask", mask), ("token_type_ids", types)):
            if given.shape != shape:
                raise InputError(f"{name} of shape {given.shape}: must be that of input_ids, {shape}")
        _must_be_rows("input_ids", input_ids, self.config.vocab_size)
        _must_be_rows("token_type_ids", types, max(self.config.type_vocab_size, 2))
        embeddings = self.embed(input_ids, mask, types, deterministic=deterministic)
        return self.encode(embeddings, mask, deterministic=deterministic, cls_only=cls_only)

    def embed(
        self,
        input_ids: Int[Array, "batch seq"],
        attention_mask: Int[Array, "batch seq"],
        token_type_ids: Int[Array, "batch seq"],
        *,
        deterministic: bool = True,
    ) -> Float[Array, "batch seq hidden"]:
        """The embeddings after dropout: what the first layer reads.

        Args:
            input_ids: Token ids; whatever stands in padding is not the family's own id for it.
            attention_mask: 1 for a token, 0 for padding.
            token_type_ids: 0 in the first text, 1 in the second; ignored where the encoder has no token types.
            deterministic: Whether dropout is off.
        """
        raise NotImplementedError

    def encode(
        self,
        embeddings: Float[Array, "batch seq hidden"],
        attention_mask: Int[Array, "batch seq"],
        *,
        deterministic: bool = True,
        cls_only: bool = False,
    ) -> EncoderOutput:
        """Embeddings → states.

        With `cls_only`, of which only encoders with a pooler are asked, the last layer computes the first token alone:
        the same `pooled`, for fewer operations.
        """
        raise NotImplementedError


def _must_be_rows(name: str, ids: Array, rows: int) -> None:
    """Refuses ids that a table of so many rows lacks: JAX would take its last row. What is traced has no values yet."""
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise InputError(f"{name} of type {ids.dtype}: must be whole numbers")
    if not isinstance(ids, jax.core.Tracer) and ids.size:
        values = np.asarray(ids)
        least, most = values.min(), values.max()
        if least < 0 or most >= rows:
            raise InputError(f"{name} from {least} to {most}: the encoder has the numbers from 0 to {rows - 1}")


class Family:
    """Everything that tells one family of encoders from another.

    Attributes:
        name: The `model_type` of Hugging Face's ``config.json``; `register_family` sets it.
        title: The family's name in a sentence.
        architecture: The class of `transformers` that computes the encoder.
        prefix: What precedes the names of the encoder's tensors in files of a whole model.
        config: Frozen dataclass of sizes and rates, an `EncoderConfig`; fields are whole numbers, numbers from 0 to
            below 1, strings or bools. No other family has the same class.
        config_names: What ``config.json`` calls a field, where it has another name there.
        encoder: The module.
        tensors: Hugging Face's names of modules by the path of ours; ``{}`` is the layer's number in both.
        tokenizer: What its tokenizer must be.
        lora: Where LoRA has its products unless told otherwise, as `LoraConfig.paths`: attention's queries and values.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    architecture: ClassVar[str]
    prefix: ClassVar[str]
    config: ClassVar[type[Any]]
    config_names: ClassVar[dict[str, str]] = {}
    encoder: ClassVar[type[Encoder]]
    tensors: ClassVar[dict[str, str]]
    tokenizer: ClassVar[TokenizerRules]
    lora: ClassVar[tuple[str, ...]] = ("encoder/*/attention/query", "encoder/*/attention/value")

    def from_json(self, values: dict[str, Any]) -> dict[str, Any]:
        """What ``config.json`` holds, in the types of the config's fields: there lists and tables can stand, too.

        Raises:
            InputError: A list or a table there is none that the family has.
        """
        return values

    def to_json(self, config: Any) -> dict[str, Any]:
        """The fields of a config, in the types that ``config.json`` has."""
        return dataclasses.asdict(config)

    def check(self, config: Any, values: dict[str, Any]) -> None:
        """Checks what the types of single fields do not show.

        Args:
            config: The config.
            values: All of ``config.json``.

        Raises:
            InputError: The module does not compute such an encoder; why.
        """
        if values.get("is_decoder"):
            raise InputError("only an encoder can be read, and is_decoder is set")
        if config.hidden_act not in ACTIVATIONS:
            raise InputError(f"hidden_act is {describe(config.hidden_act)}, none of {', '.join(ACTIVATIONS)}")
        if config.hidden_size % config.num_attention_heads:
            raise InputError(f"hidden_size {config.hidden_size} is no multiple of {config.num_attention_heads} heads")

    def max_length(self, config: Any) -> int:
        """Tokens of the longest input, special ones included."""
        return config.max_position_embeddings

    def num_layers(self, config: Any) -> int:
        """Number of layers with parameters of their own: ``layer_0`` and so on."""
        return config.num_hidden_layers

    def token_types(self, config: Any) -> bool:
        """Whether the encoder tells the texts of a pair apart by `token_type_ids`."""
        return self.tokenizer.token_types and config.type_vocab_size > 1

    def with_dropout(self, config: Any, rate: float) -> Any:
        """The config with one rate for all dropout."""
        return dataclasses.replace(config, hidden_dropout_prob=rate, attention_probs_dropout_prob=rate)


FAMILIES: dict[str, Family] = {}
"""All families by `model_type`: this library's, and those that plugins register."""


def register_family(name: str) -> Callable[[F], F]:
    """A decorator that makes a `Family` known to encoder directories.

    Args:
        name: The `model_type` in ``config.json``.

    Raises:
        InputError: The name is taken, or is none, or something is missing or wrong in the class.
    """
    must_be_name(name, "register_family", "encoder family ")

    def register(family: F) -> F:
        must_extend(family, Family, f"encoder family {name!r}")
        if problem := _problem(name, family):
            raise InputError(f"encoder family {name!r} cannot be registered: {problem}")
        family.name = family.config.family = name
        FAMILIES[name] = family()
        return family

    return register


def _problem(name: str, family: type[Family]) -> str | None:
    taken = FAMILIES.get(name)
    if taken is not None and origin(type(taken)) != origin(family):
        return "a family of that name exists"
    required = [key for key in typing.get_type_hints(Family) if key != "name"]
    if missing := [key for key in required if not hasattr(family, key)]:
        return f"the class lacks {', '.join(missing)}"
    config: Any = family.config
    if not isinstance(config, type):
        return f"config = {describe(config)}: must be a frozen dataclass"
    if not isinstance(family.encoder, type) or not issubclass(family.encoder, Encoder):
        return f"encoder = {describe(family.encoder)}: must be a class that extends mt.Encoder"
    if not isinstance(family.tokenizer, TokenizerRules):
        return f"tokenizer = {describe(family.tokenizer)}: must be an mt.TokenizerRules"
    if not isinstance(family.tensors, dict):
        return f"tensors = {describe(family.tensors)}: must be a dict of names by path"
    called, owner = config.__name__, vars(config).get("family", name)
    if owner != name:
        return f"{called} is the config of {owner!r}; subclass it"
    if not dataclasses.is_dataclass(config):
        return f"{called}, its config, is no dataclass"
    hints = typing.get_type_hints(config)
    if odd := [field.name for field in dataclasses.fields(config) if hints[field.name] not in (int, float, str, bool)]:
        return f"{called}.{odd[0]} is no int, float, str or bool"
    if other := [path for path in family.tensors if "{}" in path and not path.startswith("layer_{}/")]:
        return f"tensors: {other[0]!r} must begin with layer_{{}}/, the name of a layer"
    return None


def family_of(config: EncoderConfig) -> Family:
    """The family of a config.

    Raises:
        InputError: Its class belongs to no registered family.
    """
    name = getattr(type(config), "family", None)
    if name not in FAMILIES:
        raise InputError(f"{type(config).__name__} is the config of no encoder family that is registered")
    return FAMILIES[name]


def encoder(config: EncoderConfig, dtype: Any = jnp.float32, remat: bool = False, kernel: Kernel = "xla") -> Encoder:
    """The module that computes an encoder.

    Args:
        config: As `load_pretrained` gives it; the family goes by its class.
        dtype: Type of the matrix products.
        remat: Keep a layer's input alone for its gradient, and compute the layer again then.
        kernel: Of the attention.

    Returns:
        ``encoder(config).apply({"params": params}, input_ids, attention_mask, token_type_ids)`` is an `EncoderOutput`.

    Raises:
        InputError: The config is none of a family that is registered, or one of an encoder that cannot be computed; or
            the type or the kernel is none.
    """
    must_be_among("kernel", kernel, typing.get_args(Kernel))
    try:
        is_float = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        is_float = False
    if not is_float:
        raise InputError(f"dtype = {describe(dtype)}: must be a type of floating-point numbers, such as jnp.bfloat16")
    family = family_of(config)
    family.check(config, family.to_json(config))
    return family.encoder(config, dtype, remat, kernel)


@made_once
def encoder_shapes(config: EncoderConfig) -> Params:
    """Shapes of an encoder's parameters, in a tree that callers share; none is computed."""
    ids = jnp.zeros((1, 1), jnp.int32)
    shapes: Params = jax.eval_shape(encoder(config).init, jax.random.key(0), ids)["params"]
    return shapes
