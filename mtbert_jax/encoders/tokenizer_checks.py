"""What a tokenizer from somebody's file must be: parts that neither loop nor swell, set up as its family's is.

A ``tokenizer.json`` is a program: its regular expressions can take for ever on one line of text, its replacements can
turn a megabyte into a terabyte, and its special tokens can be written by whoever writes a text.
"""

import json
import re
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, processors

from mtbert_jax.config.schema import describe
from mtbert_jax.encoders.charsmap import charsmap_problem
from mtbert_jax.encoders.family import Family
from mtbert_jax.encoders.tokenizer_rules import TokenizerRules
from mtbert_jax.errors import InputError
from mtbert_jax.limits import LONGEST_WORD

NORMALIZERS = ("BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Strip", "StripAccents")
PRE_TOKENIZERS = (
    *("BertPreTokenizer", "ByteLevel", "Digits", "Metaspace", "Punctuation", "Whitespace", "WhitespaceSplit"),
)
_UNUSED = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
ONE_SPACE = {"type": "Replace", "pattern": {"Regex": r"\s{2,}|[\n\r\t]"}, "content": " "}
"""A replacement of DeBERTa-v2's, which takes time and room as the text is long."""
Pieces = list[tuple[str, int]]
"""Pieces of a template, each with its token type: special tokens by name, the texts as ``a`` and ``b``."""


def check_description(path: Path, text: str, family: Family) -> dict[str, Any]:
    """Checks the parts of a ``tokenizer.json``.

    Returns:
        What it holds.

    Raises:
        InputError: One of them is none of the family's, or can take for ever.
    """
    rules = family.tokenizer
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a tokenizer: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} is not a tokenizer: it holds {describe(values)}")
    model = values.get("model")
    kind = model.get("type", "WordPiece") if isinstance(model, dict) else None
    if not isinstance(model, dict) or kind != rules.model:
        raise _of_another_family(path, family, f"its model is {describe(kind)}, not {rules.model!r}")
    unknown = model.get("unk_token", rules.unk)
    if unknown != rules.unk and not (unknown is None and rules.model == "BPE"):
        raise _of_another_family(path, family, f"its unk_token is {describe(unknown)}, not {rules.unk!r}")
    _check_model(path, model, family)
    if not _fits(values.get("post_processor"), rules):
        raise _of_another_family(path, family, f"it does not put two texts as {rules.pair}")
    for name, known in (("normalizer", NORMALIZERS), ("pre_tokenizer", PRE_TOKENIZERS)):
        for part in parts(values.get(name)):
            _check_part(f"{path}: {name}", part, known, rules)
    return values


def _of_another_family(path: Path, family: Family, reason: str) -> InputError:
    return InputError(f"{path} is not a tokenizer for {family.title}: {reason}")


def _check_part(where: str, part: Any, known: tuple[str, ...], rules: TokenizerRules) -> None:
    kind = part.get("type") if isinstance(part, dict) else part
    if kind == "Precompiled" and known is NORMALIZERS and rules.model == "Unigram":
        if problem := charsmap_problem(part.get("precompiled_charsmap")):
            raise InputError(f"{where} is 'Precompiled', whose table of replacements {problem}")
    elif kind not in known and not _shortens(part) and part not in (ONE_SPACE, names_apart(rules)):
        raise InputError(f"{where} is {describe(kind)}; only {', '.join(known)} can be taken")


def _shortens(part: Any) -> bool:
    """Whether a part replaces a string by one that is no longer, or several spaces by one character."""
    match part:
        case {"type": "Replace", "pattern": {"String": str() as old}, "content": str() as new}:
            return old != "" and len(new.encode()) <= len(old.encode())
        case {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " " | "▁"}:
            return True
    return False


def names_apart(rules: TokenizerRules) -> dict[str, Any]:
    """A pre-tokenizer that splits names of special tokens behind their first character, so that they are text.

    A Unigram model has the special tokens among its pieces, and `tokenizers` would find them in a text; sentencepiece
    itself never does.
    """
    names = sorted({rules.cls, rules.sep, rules.pad, rules.mask, rules.unk})
    pattern = "|".join(f"{re.escape(name[0])}(?={re.escape(name[1:])})" for name in names)
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "MergedWithPrevious", "invert": False}


def _check_model(path: Path, model: dict[str, Any], family: Family) -> None:
    rules = family.tokenizer
    if rules.model == "Unigram":
        _check_pieces(path, model, family)
    elif rules.model == "WordPiece":
        longest = model.get("max_input_chars_per_word", 100)
        if type(longest) is not int or not 0 < longest <= LONGEST_WORD:
            found = f"max_input_chars_per_word is {describe(longest)}"
            raise InputError(f"{path}: {found}; it must be a whole number from 1 to {LONGEST_WORD}")
    # Dropout would give a text other tokens each time; some prefixes end the program: in Rust, below Python's errors.
    for name in () if rules.model == "WordPiece" else _UNUSED:
        if model.get(name):
            raise InputError(f"{path}: {name} is {describe(model[name])}; it must be null")


def _check_pieces(path: Path, model: dict[str, Any], family: Family) -> None:
    """Checks the pieces of a Unigram model, each with its score, and which of them stands for unknown characters."""
    vocab, unknown = model.get("vocab"), model.get("unk_id")
    if not isinstance(vocab, list) or not all(map(_is_piece, vocab)):
        raise InputError(f"{path}: the vocabulary is {describe(vocab)}; it must be a list of pieces with their scores")
    if type(unknown) is not int or not 0 <= unknown < len(vocab) or vocab[unknown][0] != family.tokenizer.unk:
        raise _of_another_family(path, family, f"its unk_id is not that of {family.tokenizer.unk!r}")


def _is_piece(value: Any) -> bool:
    match value:
        case [str() as piece, int() | float()]:
            return piece != ""
    return False


def _fits(processor: Any, rules: TokenizerRules) -> bool:
    """Whether a post-processor puts special tokens where the family has them."""
    templates = _templates(processor)
    expected = (rules.segments(rules.single), rules.segments(rules.pair))
    if rules.token_types:
        return templates == expected
    return templates in (expected, tuple([(piece, 0) for piece, _ in pieces] for pieces in expected))


def _templates(processor: Any) -> tuple[Pieces, Pieces] | None:
    """What a post-processor makes of one text and of two."""
    match processor:
        case {"type": "BertProcessing", "cls": [str() as cls, _], "sep": [str() as sep, _]}:
            first = [(cls, 0), ("a", 0), (sep, 0)]
            return first, [*first, ("b", 1), (sep, 1)]
        case {"type": "RobertaProcessing", "cls": [str() as cls, _], "sep": [str() as sep, _]}:
            first = [(cls, 0), ("a", 0), (sep, 0)]
            return first, [*first, (sep, 0), ("b", 0), (sep, 0)]
        case {"type": "TemplateProcessing", "single": list() as single, "pair": list() as pair}:
            return [*map(_piece, single)], [*map(_piece, pair)]
        case {"type": "Sequence", "processors": [{"type": "ByteLevel"}, {"type": "TemplateProcessing"} as template]}:
            return _templates(template)  # a byte-level one moves offsets, which nothing reads before it is replaced
    return None


def _piece(piece: Any) -> tuple[str, int]:
    match piece:
        case {"SpecialToken": {"id": str() as name, "type_id": int() as segment}}:
            return name, segment
        case {"Sequence": {"id": "A" | "B" as name, "type_id": int() as segment}}:
            return name.lower(), segment
    return "", 0


def parts(value: Any) -> list[Any]:
    """All parts of a normalizer or a pre-tokenizer, as the file describes them."""
    if value is None:
        return []
    if not isinstance(value, dict) or value.get("type") != "Sequence":
        return [value]
    found = [value[name] for name in ("normalizers", "pretokenizers") if name in value]
    return [part for inner in found for one in (inner if isinstance(inner, list) else [inner]) for part in parts(one)]


def set_template(path: Path, tokenizer: Tokenizer, family: Family) -> None:
    """Gives a tokenizer the family's template with the ids of its own vocabulary, whatever ids a file's template has.

    One that lacks them would end the program: in Rust, below Python's exceptions. Token types are the segments,
    whether the encoder has token types or not.

    Raises:
        InputError: The vocabulary lacks a special token.
    """
    rules = family.tokenizer
    special = sorted({*rules.single.split(), *rules.pair.split()} - {"a", "b"})
    for token in (*special, rules.unk):
        if tokenizer.token_to_id(token) is None:
            raise _of_another_family(path, family, f"it has no {token}")
    single, pair = (
        [f"{'$' + piece.upper() if piece in ('a', 'b') else piece}:{segment}" for piece, segment in pieces]
        for pieces in (rules.segments(rules.single), rules.segments(rules.pair))
    )
    ids = [(token, tokenizer.token_to_id(token)) for token in special]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)


def check_behaviour(path: Path, tokenizer: Tokenizer, family: Family) -> None:
    """Checks what a tokenizer makes of two texts, and of the special tokens where they are text.

    Raises:
        InputError: It does not do what the family's does, or two tokens have one id.
    """
    rules = family.tokenizer
    by_id: dict[int, str] = {}
    for token, number in tokenizer.get_vocab().items():
        if by_id.setdefault(number, token) != token:  # a word could stand for a special token
            raise InputError(f"{path}: the tokens {by_id[number]!r} and {token!r} have the same id")
    words = tokenizer.encode("a", add_special_tokens=False).tokens
    for template, encoding in ((rules.single, tokenizer.encode("a")), (rules.pair, tokenizer.encode("a", "a"))):
        expected = [
            (token, segment)
            for piece, segment in rules.segments(template)
            for token in (words if piece in ("a", "b") else [piece])
        ]
        if list(zip(encoding.tokens, encoding.type_ids, strict=True)) != expected:
            raise _of_another_family(path, family, f"it does not put two texts as {rules.pair}")
    for token in (rules.cls, rules.sep, rules.mask, rules.pad):
        if token in tokenizer.encode(f"a {token} a{token}", add_special_tokens=False).tokens:
            raise _of_another_family(
                path,
                family,
                f"it takes {token} in a text for the special token; mark it as special, and split texts at brackets",
            )


def check_ids(tokenizer: Tokenizer, added: dict[int, tuple[AddedToken, Path]]) -> None:
    """Checks that added tokens have the ids that the files give them.

    Args:
        tokenizer: With all added tokens.
        added: Token, and the file that it is from, by its id there.

    Raises:
        InputError: One has another id: behind the vocabulary ids follow each other without a gap.
    """
    for number, (token, path) in added.items():
        found = tokenizer.token_to_id(token.content)
        if found != number:
            raise InputError(
                f"{path}: the token {token.content!r} has id {number} there, but {found} in the vocabulary"
            )
