"""What a tokenizer from somebody's file must be: WordPiece between parts that neither loop nor swell, set up as BERT's.

A ``tokenizer.json`` is a program: its regular expressions can take for ever on one line of text, its replacements can
turn a megabyte into a terabyte, and its special tokens can be written by whoever writes a text.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from mtbert_jax.config.schema import describe
from mtbert_jax.errors import InputError, first_line
from mtbert_jax.files import must_be_file, read_text
from mtbert_jax.limits import LARGEST_JSON, LONGEST_WORD

NORMALIZERS = ("BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Strip", "StripAccents")
PRE_TOKENIZERS = ("BertPreTokenizer", "Digits", "Metaspace", "Punctuation", "Whitespace", "WhitespaceSplit")
SPECIAL = ("[CLS]", "[SEP]", "[MASK]", "[PAD]")
TEMPLATES = {"single": "[CLS]:0 A:0 [SEP]:0".split(), "pair": "[CLS]:0 A:0 [SEP]:0 B:1 [SEP]:1".split()}  # noqa: SIM905


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


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """The tokenizer in a Hugging Face directory: ``tokenizer.json``, or a WordPiece ``vocab.txt``.

    Raises:
        InputError: Neither is there, or it cannot be read.
    """
    directory = Path(directory)
    path = directory / "tokenizer.json"
    try:
        must_be_file(path)
        if path.is_file():
            text = read_text(path, LARGEST_JSON)
            check_description(path, text)
            tokenizer = Tokenizer.from_str(text)
        else:
            lower_case = _lower_case(directory)
            path = directory / "vocab.txt"
            tokenizer = _wordpiece(path, lower_case)
        for token in ("[CLS]", "[SEP]", "[UNK]"):
            if tokenizer.token_to_id(token) is None:
                raise InputError(f"{path} is not a BERT tokenizer: it has no {token}")
        set_template(tokenizer)
        tokenizer.no_padding()  # a shipped tokenizer can have padding and truncation fixed
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True  # the text "[SEP]" is text, not a separator
        check_behaviour(path, tokenizer)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{directory} has neither tokenizer.json nor vocab.txt") from None
    except Exception as error:  # noqa: BLE001 - tokenizers raises plain Exception for anything malformed
        raise InputError(f"{path} is not a tokenizer: {first_line(error)}") from None
    return tokenizer


def _wordpiece(path: Path, lower_case: bool) -> Tokenizer:
    must_be_file(path)
    words = read_text(path, LARGEST_JSON).split("\n")
    vocab = {word.rstrip("\r"): number for number, word in enumerate(words) if word}
    tokenizer = Tokenizer(WordPiece(vocab, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower_case)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _lower_case(directory: Path) -> bool:
    path = directory / "tokenizer_config.json"
    try:
        must_be_file(path)
        return not path.is_file() or bool(json.loads(read_text(path, LARGEST_JSON)).get("do_lower_case", True))
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is not a JSON object: {error}") from None
