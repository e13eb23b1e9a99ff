"""The values that flow through the house: examples, batches, outputs."""

from typing import Any, NamedTuple

from jaxtyping import Array, Float, Int

Params = dict[str, Any]
"""A nested dict of arrays: ``{"encoder": {...}, "heads": {"<task>": {...}}}``."""


class Example(NamedTuple):
    """One row of a data file.

    Attributes:
        id: The row's identifier, unique in its file.
        texts: One or two texts.
        label: What the task's kind makes of the label's field: a class index, 0 or 1, a real number, an array; None
            where the file has no labels.
    """

    id: str
    texts: tuple[str, ...]
    label: Any = None


class Batch(NamedTuple):
    """Arrays of one task, padded to one length: NumPy's on the host, JAX's in a jitted function.

    Where the encoder reads several inputs of an example, such as each of its texts alone, token arrays have an axis
    more, ``[batch input seq]``: whatever splits a batch's rows keeps an example's inputs together.

    Attributes:
        input_ids: Token ids, ``[batch seq]``; 0 in padding, whatever the encoder's own id for it.
        attention_mask: 1 for a token, 0 for padding, ``[batch seq]``.
        token_type_ids: 0 in the first text, 1 in the second, ``[batch seq]``; `pair` pooling goes by it with every
            encoder, and an encoder without token types ignores it.
        labels: Labels as the task's kind has them, class indices as float32 too, ``[batch *label]``.
        weights: Weight of an example in the mean loss, 0 for a row that only fills the batch up, ``[batch]``.
        positions: Tokens that a head which reads tokens is asked about, ``[batch place]``, such as the first of each
            word; -1 for none. None for other heads.
    """

    input_ids: Int[Array, "batch *input seq"]
    attention_mask: Int[Array, "batch *input seq"]
    token_type_ids: Int[Array, "batch *input seq"]
    labels: Float[Array, "batch *label"]
    weights: Float[Array, " batch"]
    positions: Int[Array, "batch place"] | None = None

    def flat(self) -> "Batch":
        """The same with a row for each input, ``[batch·input seq]``, as the encoder reads them; labels as they are.

        The inputs of example i are the rows k i to k i + k - 1.
        """
        if self.input_ids.ndim == 2:
            return self
        ids, mask, types = (array.reshape(-1, array.shape[-1]) for array in self[:3])
        return self._replace(input_ids=ids, attention_mask=mask, token_type_ids=types)


class FeatureBatch(NamedTuple):
    """What a frozen encoder said of a batch's examples, in place of tokens; labels and weights as in `Batch`."""

    features: Float[Array, "batch feature"]
    labels: Float[Array, "batch *label"]
    weights: Float[Array, " batch"]


class EncoderOutput(NamedTuple):
    """What the encoder says of a batch.

    Attributes:
        hidden_states: The last layer's states, ``[batch seq hidden]``; only the first token's where the
            encoder was asked for `cls_only`.
        pooled: The pooler's output on the first token, ``[batch hidden]``, float32; None where the encoder has no
            pooler.
    """

    hidden_states: Float[Array, "batch seq hidden"]
    pooled: Float[Array, "batch hidden"] | None
