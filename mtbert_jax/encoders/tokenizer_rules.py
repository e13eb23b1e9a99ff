"""What the tokenizer of a family of encoders must be."""

from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

from mtbert_jax.config.schema import must_be_among
from mtbert_jax.errors import InputError


@dataclass(frozen=True)
class TokenizerRules:
    """What the tokenizer of a family must be.

    Attributes:
        model: Type of the model in ``tokenizer.json``.
        single: Where the special tokens of one text stand; ``a`` is the text.
        pair: The same of two texts, ``a`` and ``b``. The second segment begins with the second text.
        cls: The first token.
        sep: What ends a text.
        pad: Padding.
        mask: A hidden word.
        unk: A word that the vocabulary lacks.
        token_types: Whether Hugging Face's tokenizers of the family mark the second segment by token type 1. Where they
            do not, this library's still do: a mask of its own, which the encoder ignores.
    """

    model: Literal["WordPiece", "BPE", "Unigram"] = "WordPiece"
    single: str = "[CLS] a [SEP]"
    pair: str = "[CLS] a [SEP] b [SEP]"
    cls: str = "[CLS]"
    sep: str = "[SEP]"
    pad: str = "[PAD]"
    mask: str = "[MASK]"
    unk: str = "[UNK]"
    token_types: bool = True

    def __post_init__(self) -> None:
        """Checks what can be checked without a tokenizer."""
        must_be_among("model", self.model, get_args(get_type_hints(TokenizerRules)["model"]))
        for name, texts in (("single", ["a"]), ("pair", ["a", "b"])):
            template = getattr(self, name)
            if [piece for piece in template.split() if piece in ("a", "b")] != texts:
                wanted = getattr(TokenizerRules, name)
                raise InputError(f"{name} = {template!r}: must have {' and '.join(texts)} in it, as {wanted!r} has")

    def segments(self, template: str) -> list[tuple[str, int]]:
        """The pieces of a template, each with its segment.

        >>> TokenizerRules().segments("[CLS] a [SEP] b [SEP]")
        [('[CLS]', 0), ('a', 0), ('[SEP]', 0), ('b', 1), ('[SEP]', 1)]
        """
        pieces = template.split()
        return [(piece, int("b" in pieces[: place + 1])) for place, piece in enumerate(pieces)]

    def num_special(self, num_texts: int) -> int:
        """Number of special tokens beside one text or two."""
        return len((self.single if num_texts == 1 else self.pair).split()) - num_texts
