"""Words that the encoder's vocabulary lacks: how much of a split they are, and what may be the cause."""

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from mtbert_jax.data.tokens import Tokens
from mtbert_jax.encoders.tokenizer import SETTINGS, has_capitals, lower_cases, unknown_token

MUCH = 0.02
"""Share of unknown tokens above which something is probably wrong; text in the encoder's language has far less."""


def unknown_share(tokenizer: Tokenizer, tokens: Tokens, inputs: Sequence[Sequence[int]]) -> float:
    """Share of the tokens, special ones aside, that stand for a word that the vocabulary lacks.

    `inputs` are the texts of each input that the encoder reads of an example.
    """
    name = unknown_token(tokenizer)
    unknown = None if name is None else tokenizer.token_to_id(name)
    special = sum(tokenizer.num_special_tokens_to_add(len(texts) == 2) for texts in inputs)
    real = len(tokens.ids) - len(tokens.lengths) * special
    return 0.0 if unknown is None or real <= 0 else float(np.mean(tokens.ids == unknown)) * len(tokens.ids) / real


def unknown_warning(tokenizer: Tokenizer, whose: str, share: float) -> str | None:
    """A line about a share of unknown tokens that is too large, with its probable cause; None where it is not."""
    if share <= MUCH:
        return None
    lower, cased = lower_cases(tokenizer), has_capitals(tokenizer)
    cause = "are the texts in the encoder's language?"
    if lower and cased:
        cause = f'the vocabulary has capitals, and texts lose theirs unless {SETTINGS} says "do_lower_case": false'
    elif not (lower or cased):
        cause = f'the vocabulary has no capitals, and texts keep theirs unless {SETTINGS} says "do_lower_case": true'
    name = unknown_token(tokenizer)
    return f"warning: {whose}: {share:.1%} of the tokens are {name}, words that the vocabulary lacks; {cause}"
