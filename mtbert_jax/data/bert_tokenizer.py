"""What a tokenizer from somebody's file must be: WordPiece between parts that neither loop nor swell, set up as BERT's.

A ``tokenizer.json`` is a program: its regular expressions can take for ever on one line of text, its replacements can
turn a megabyte into a terabyte, and its special tokens can be written by whoever writes a text.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, processors

from mtbert_jax.schema import describe
from mtbert_jax.types import InputError

NORMALIZERS = ("BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Strip", "StripAccents")
PRE_TOKENIZERS = ("BertPreTokenizer", "Digits", "Metaspace", "Punctuation", "Whitespace", "WhitespaceSplit")
SPECIAL = ("[CLS]", "[SEP]", "[MASK]", "[PAD]")
TEMPLATES = {"single": "[CLS]:0 A:0 [SEP]:0".split(), "pair": "[CLS]:0 A:0 [SEP]:0 B:1 [SEP]:1".split()}  # noqa: SIM905
LONGEST_WORD = 1000
"""Characters; the work for a word grows with their square."""


def check_description(path: Path, text: str) -> None:
    """Checks the parts of a ``tokenizer.json``.

    Raises:
        InputError: One of them is none of BERT's, or can take for ever.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a tokenizer: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} is not a tokenizer: it holds {describe(values)}")
    model = values.get("model")
    kind = model.get("type", "WordPiece") if isinstance(model, dict) else None
    if not isinstance(model, dict) or kind != "WordPiece":
        raise InputError(f"{path} is not a BERT tokenizer: its model is {describe(kind)}, not 'WordPiece'")
    longest = model.get("max_input_chars_per_word", 100)
    if type(longest) is not int or not 0 < longest <= LONGEST_WORD:
        found = f"max_input_chars_per_word is {describe(longest)}"
        raise InputError(f"{path}: {found}; it must be a whole number from 1 to {LONGEST_WORD}")
    if model.get("unk_token", "[UNK]") != "[UNK]":
        raise InputError(
            f"{path} is not a BERT tokenizer: its unk_token is {describe(model['unk_token'])}, not '[UNK]'"
        )
    if not _is_berts(values.get("post_processor")):
        raise InputError(f"{path} is not a BERT tokenizer: it does not put two texts as [CLS] a [SEP] b [SEP]")
    for name, known in (("normalizer", NORMALIZERS), ("pre_tokenizer", PRE_TOKENIZERS)):
        for part in _parts(values.get(name), f"{name}s" if name == "normalizer" else "pretokenizers"):
            if part not in known:
                raise InputError(f"{path}: {name} is {describe(part)}; only {', '.join(known)} can be taken")


def _is_berts(processor: Any) -> bool:
    """Whether a post-processor puts special tokens where BERT has them."""
    match processor:
        case {"type": "BertProcessing", "cls": ["[CLS]", _], "sep": ["[SEP]", _]}:
            return True
        case {"type": "TemplateProcessing", "single": list() as single, "pair": list() as pair}:
            return {"single": [*map(_piece, single)], "pair": [*map(_piece, pair)]} == TEMPLATES
    return False


def _piece(piece: Any) -> str:
    match piece:
        case {"SpecialToken": {"id": name, "type_id": kind}} | {"Sequence": {"id": name, "type_id": kind}}:
            return f"{name}:{kind}"
    return ""


def set_template(tokenizer: Tokenizer) -> None:
    """Gives a tokenizer BERT's template with the ids of its own vocabulary, whatever ids a file's template has.

    One that lacks them would end the program: in Rust, below Python's exceptions.
    """
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )


def _parts(value: Any, inside: str) -> list[Any]:
    """The kinds of all parts of a part."""
    if value is None:
        return []
    kind = value.get("type") if isinstance(value, dict) else value
    if kind != "Sequence":
        return [kind]
    inner = value.get(inside)
    return [part for one in inner for part in _parts(one, inside)] if isinstance(inner, list) else [inner]


def check_behaviour(path: Path, tokenizer: Tokenizer) -> None:
    """Checks what a tokenizer makes of two texts, and of the special tokens where they are text.

    Raises:
        InputError: It does not do what BERT's does.
    """
    one, two = tokenizer.encode("a"), tokenizer.encode("a", "a")
    words = one.tokens[1:-1]
    single, pair = ["[CLS]", *words, "[SEP]"], ["[CLS]", *words, "[SEP]", *words, "[SEP]"]
    types = [0] * len(single), [0] * len(single) + [1] * (len(words) + 1)
    if (one.tokens, two.tokens) != (single, pair) or (one.type_ids, two.type_ids) != types:
        raise InputError(f"{path} is not a BERT tokenizer: it does not put two texts as [CLS] a [SEP] b [SEP]")
    for token in SPECIAL:
        if token in tokenizer.encode(f"a {token} a{token}").tokens[1:-1]:
            raise InputError(
                f"{path} is not a BERT tokenizer: it takes {token} in a text for the special token; "
                "mark it as special, and split texts at brackets"
            )
