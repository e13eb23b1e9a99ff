"""What the files of an encoder's folder say of its tokenizer, read as `transformers` reads them (its fifth version).

Beside the vocabulary these are ``tokenizer_config.json``, ``special_tokens_map.json``, ``added_tokens.json``, parts of
``tokenizer.json``, and ``sentence_bert_config.json``. A setting that changes token ids is honoured, or refused by name.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from mtbert_jax.config.schema import describe
from mtbert_jax.encoders.family import Family
from mtbert_jax.errors import InputError
from mtbert_jax.files import must_be_file, read_text
from mtbert_jax.limits import LARGEST_JSON

TOKENIZER = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"
ADDED_TOKENS = "added_tokens.json"
SENTENCE = "sentence_bert_config.json"

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""Special tokens that have a part of their own, in the order in which `transformers` adds missing ones."""
AS_IT_STANDS = ("PreTrainedTokenizerFast", "TokenizersBackend", "PreTrainedTokenizer", "PythonBackend")
"""Classes that read ``tokenizer.json`` as it stands; any other one takes the vocabulary alone from it."""
WORDPIECE = ("Bert", "DistilBert", "Electra", "ConvBert", "MobileBert", "SqueezeBert", "Lxmert", "LayoutLM")
"""Models whose classes, such as ``ElectraTokenizerFast``, are BERT's under another name."""
SWITCHES = {
    **{"do_lower_case": True, "tokenize_chinese_chars": True, "strip_accents": None},
    **{"keep_accents": False, "add_prefix_space": False, "split_by_punct": False},
}
"""Settings that are honoured, with the value that they have if nothing is said; Unigram models add a space then."""
FIXED = {
    **{"do_basic_tokenize": True, "clean_text": True, "handle_chinese_chars": True, "wordpieces_prefix": "##"},
    **{"max_input_chars_per_word": 100, "never_split": None, "truncation_side": "right"},
    "fast_tokenizer_files": ["tokenizer.json"],
}
"""Settings that one version of `transformers` or another reads, with the only value that all take alike."""
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True)
class TokenizerSettings:
    """What an encoder's folder says of its tokenizer, beside the vocabulary.

    Attributes:
        kind: Name of the class in `transformers`, without ``Fast``.
        switches: Value of each of `SWITCHES`.
        stated: Settings of `SWITCHES` that the folder states.
        roles: Special tokens by role, as the folder names them; roles that it does not name are missing.
        added: Tokens beside the vocabulary that have an id, by that id: the token, and the file that says so.
        extra: Special tokens without a role and without an id, in the order in which they get one.
        lower_first: The file that says that texts are lower-cased before anything is looked for in them, if one does.
        split_special: Whether special tokens without a role are text, too, where they stand in a text.
        limits: The longest inputs that the folder speaks of, by the file and the name under which it does.
    """

    kind: str
    switches: dict[str, Any]
    stated: frozenset[str]
    roles: dict[str, AddedToken]
    added: dict[int, tuple[AddedToken, Path]]
    extra: list[AddedToken]
    lower_first: Path | None
    split_special: bool
    limits: dict[str, float]

    @property
    def as_it_stands(self) -> bool:
        """Whether ``tokenizer.json`` is read as it stands."""
        return self.kind in AS_IT_STANDS


def load_settings(
    directory: Path, family: Family, config: dict[str, Any], tokenizer: dict[str, Any] | None
) -> TokenizerSettings:
    """Reads the settings of an encoder's folder.

    Args:
        directory: The folder.
        family: The encoder's family.
        config: What ``config.json`` holds; it can name the tokenizer's class.
        tokenizer: What ``tokenizer.json`` holds; None where there is none.

    Raises:
        InputError: A file is no JSON object, or holds a setting that is none of those honoured here.
    """
    path = directory / SETTINGS
    values = _read(path)
    kind = _kind(path if "tokenizer_class" in values else directory / "config.json", family, {**config, **values})
    for name, only in FIXED.items():
        if values.get(name, only) != only and values[name] not in (None, []):
            raise InputError(f"{path}: {name} is {describe(values[name])}; only {json.dumps(only)} can be taken")
    stated = {name: values[name] for name in SWITCHES if name in values}
    for name, value in stated.items():
        if type(value) is not bool and not (value is None and name == "strip_accents"):
            raise InputError(f"{path}: {name} is {describe(value)}; it must be true or false")
    if "additional_special_tokens" in values and not values.get("extra_special_tokens"):
        values["extra_special_tokens"] = values.pop("additional_special_tokens")
    _spread(values)
    added: dict[int, tuple[AddedToken, Path]] = {}
    if "added_tokens_decoder" in values:  # then transformers reads none of the older files
        for number, token in _object(path, "added_tokens_decoder", values["added_tokens_decoder"]).items():
            added[_number(path, number)] = _token(path, token), path
    else:
        _merge_special_tokens(directory / SPECIAL_TOKENS, values)
        _spread(values)
        added = dict(_older(directory, values, tokenizer or {}))
    named = dict(_named(path, values))
    listed = values.get("extra_special_tokens", values.get("additional_special_tokens"))
    extra = [_token(path, token, special=True) for token in _list(path, "extra_special_tokens", listed)]
    sentence = _read(directory / SENTENCE)
    limits: dict[str, Any] = {f"{path} says {name}": values.get(name) for name in ("model_max_length", "max_len")}
    limits[f"{directory / SENTENCE} says max_seq_length"] = sentence.get("max_seq_length")
    return TokenizerSettings(
        kind=kind,
        switches={**SWITCHES, "add_prefix_space": family.tokenizer.model == "Unigram", **stated},
        stated=frozenset(stated),
        roles={name: token for name, token in named.items() if name in ROLES},
        added=added,
        extra=[*(token for name, token in named.items() if name not in ROLES), *extra],
        lower_first=directory / SENTENCE if sentence.get("do_lower_case") else None,
        split_special=values.get("split_special_tokens") is True,
        limits={name: limit for name, limit in limits.items() if type(limit) in (int, float)},
    )


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no such file."""
    try:
        must_be_file(path)
        values = json.loads(read_text(path, LARGEST_JSON)) if path.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a JSON object: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} is not a JSON object: it holds {describe(values)}")
    return values


def _kind(path: Path, family: Family, values: dict[str, Any]) -> str:
    """The class of the tokenizer: the one that is named, or the family's own."""
    own = f"{family.architecture.removesuffix('Model')}Tokenizer"
    bert = [f"{name}Tokenizer" for name in WORDPIECE] if family.tokenizer.model == "WordPiece" else []
    found = values.get("tokenizer_class")
    if found is None:
        return own
    known = tuple(dict.fromkeys((own, *bert, *AS_IT_STANDS)))
    kind = found if not isinstance(found, str) or found in AS_IT_STANDS else found.removesuffix("Fast")
    if kind not in known:
        raise InputError(
            f"{path}: tokenizer_class is {describe(found)}, which splits texts in a way of its own; "
            f"only {', '.join(known)} can be taken"
        )
    return kind


def _spread(values: dict[str, Any]) -> None:
    """Puts extra special tokens that have names, ``{"ent_token": "[ENT]"}``, beside all others that have."""
    if isinstance(values.get("extra_special_tokens"), dict):
        named = values.pop("extra_special_tokens")
        values |= {name if name.endswith("_token") else f"{name}_token": token for name, token in named.items()}


def _merge_special_tokens(path: Path, values: dict[str, Any]) -> None:
    """Puts what ``special_tokens_map.json`` says in place of what ``tokenizer_config.json`` says."""
    for name, value in _read(path).items():
        if name == "extra_special_tokens" and isinstance(value, list):
            value = [*_list(path, name, values.get(name)), *value]
        elif isinstance(value, dict) and name != "extra_special_tokens":
            value = {**value, "special": True}
        values[name] = value


def _older(
    directory: Path, values: dict[str, Any], tokenizer: dict[str, Any]
) -> Iterator[tuple[int, tuple[AddedToken, Path]]]:
    """Tokens with an id, of ``added_tokens.json`` and then of ``tokenizer.json``."""
    path, settings = directory / ADDED_TOKENS, directory / SETTINGS
    special = {token.content for name, token in _named(settings, values) if name in ROLES}
    listed = _list(settings, "extra_special_tokens", values.get("extra_special_tokens"))
    special |= {_token(settings, token).content for token in listed}
    for content, number in _read(path).items():
        plain = content not in special
        yield _number(path, number), (AddedToken(content, normalized=plain, special=not plain), path)
    path = directory / TOKENIZER
    for token in _list(path, "added_tokens", tokenizer.get("added_tokens")):
        yield _number(path, token.get("id") if isinstance(token, dict) else None), (_token(path, token), path)


def _named(path: Path, values: dict[str, Any]) -> Iterator[tuple[str, AddedToken]]:
    """Special tokens that a file names: those with a role, in the order of `ROLES`, then those of the model's own."""
    own = [name for name in values if name.endswith("_token") and name not in ROLES]
    for name in (*ROLES, *own):
        if isinstance(values.get(name), str | dict):
            yield name, _token(path, values[name], special=True)


def _token(path: Path, value: Any, special: bool = False) -> AddedToken:
    """A token that a file describes; a plain string is one with no settings but `special`."""
    described = {"content": value, "special": special} if isinstance(value, str) else value
    content = described.get("content") if isinstance(described, dict) else None
    flags = {name: described[name] for name in _FLAGS if name in described} if isinstance(described, dict) else {}
    if not isinstance(content, str) or not content or not all(type(flag) is bool for flag in flags.values()):
        raise InputError(
            f"{path}: a special or added token is {describe(value)}; it must be a string that is not empty"
        )
    flags.setdefault("normalized", not flags.get("special", False))  # else it would follow `special` when that changes
    return AddedToken(content, **flags)


def _number(path: Path, value: Any) -> int:
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10 else value
    if type(number) is not int or not 0 <= number < 2**31:
        raise InputError(f"{path}: the id of an added token is {describe(value)}; it must be a whole number")
    return number


def _object(path: Path, name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{path}: {name} is {describe(value)}; it must be a table")
    return value


def _list(path: Path, name: str, value: Any) -> list[Any]:
    if value is not None and not isinstance(value, list):
        raise InputError(f"{path}: {name} is {describe(value)}; it must be a list")
    return value or []
