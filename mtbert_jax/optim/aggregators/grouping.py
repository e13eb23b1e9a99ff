"""Which parameters an aggregator looks at together: the encoder, each of its layers, or each matrix."""

from collections.abc import Sequence

from mtbert_jax import trees

ENCODER, LAYER, MATRIX = "encoder", "layer", "matrix"
GROUPINGS = (ENCODER, LAYER, MATRIX)


def groups_of(paths: Sequence[str], by: str) -> list[int]:
    """The group of each parameter, a number from 0.

    Args:
        paths: Places of the parameters.
        by: ``"encoder"``: all of them are one group. ``"layer"``: the embeddings, each layer, and what is in neither
            (pooler, last norm, relative positions). ``"matrix"``: each parameter is one.

    >>> groups_of(["encoder/embeddings/word/embedding", "encoder/layer_0/bias", "encoder/layer_1/bias"], "layer")
    [0, 1, 2]
    """
    names = {
        ENCODER: lambda path: ENCODER,
        LAYER: trees.part_of_encoder,
        MATRIX: lambda path: path,
    }[by]
    numbers: dict[str, int] = {}
    return [numbers.setdefault(names(path), len(numbers)) for path in paths]
