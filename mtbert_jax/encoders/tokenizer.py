"""The tokenizer of an encoder's directory, checked and set up as its family's."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import Unigram, WordPiece

from mtbert_jax.encoders.config_json import CONFIG, read_family
from mtbert_jax.encoders.family import FAMILIES, Family
from mtbert_jax.encoders.hub import locate
from mtbert_jax.encoders.tokenizer_checks import (
    ONE_SPACE,
    check_behaviour,
    check_description,
    check_ids,
    names_apart,
    parts,
    set_template,
)
from mtbert_jax.encoders.tokenizer_settings import ROLES, SETTINGS, TOKENIZER, TokenizerSettings, load_settings
from mtbert_jax.errors import InputError, first_line
from mtbert_jax.files import must_be_file, read_text
from mtbert_jax.limits import LARGEST_JSON

VOCABULARY = "vocab.txt"
BLANKS = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
"""What `tokenizers` takes off the end of a vocabulary's lines: all white space of Unicode."""
_CONVERT = "; transformers' AutoTokenizer.from_pretrained(...).save_pretrained(...) writes one"
CASED = 0.01
"""Share of words with capitals from which on a vocabulary counts as one of a cased encoder."""


@dataclass(frozen=True, eq=False)
class LoadedTokenizer:
    """A tokenizer, and where it comes from.

    Attributes:
        tokenizer: The tokenizer.
        directory: Its directory.
        settings: What the directory says of it, beside the vocabulary.
        unread: Parts of its ``tokenizer.json`` that are otherwise than what the settings make.
    """

    tokenizer: Tokenizer
    directory: Path
    settings: TokenizerSettings
    unread: tuple[str, ...] = ()

    def remarks(self, max_length: int) -> Iterator[str]:
        """What is probably not meant, a line each; `max_length` is the longest input of the run, in tokens."""
        path, said = self.directory / SETTINGS, self.settings
        silent = not said.as_it_stands and "do_lower_case" not in said.stated
        if silent and lower_cases(self.tokenizer) and has_capitals(self.tokenizer):
            yield (
                f"warning: the vocabulary in {self.directory} has words with capitals, but texts are written in lower "
                f'case, as by transformers: {path.name} does not say "do_lower_case": false'
            )
        elif self.unread:
            parts = " and ".join(self.unread)
            yield (
                f"warning: {self.directory / TOKENIZER}: its {parts} is not read, as by transformers: {path.name} sets "
                f'a {said.kind} up; "tokenizer_class": "PreTrainedTokenizerFast" there would take it'
            )
        least = min(said.limits, key=lambda name: said.limits[name], default="")
        if least and max_length > said.limits[least]:
            yield f"warning: max_length = {max_length}, but {least} = {said.limits[least]:.0f}"


def load_tokenizer(encoder: str | Path, revision: str | None = None) -> Tokenizer:
    """The tokenizer of an encoder: ``tokenizer.json``, or a WordPiece ``vocab.txt``.

    It gives the ids of the tokenizer of `transformers`, whose settings files it honours. Its type ids are the
    segments: 0 in the first text, 1 in the second. Names of special tokens that stand in a text are text, also over
    sentencepiece, where `transformers` finds the tokens; other added tokens, such as the markers ``[E1]`` and
    ``[/E1]``, are one token there.

    Args:
        encoder: A directory, or a hub name; without ``config.json`` it is taken for a BERT's.
        revision: Branch, tag or commit of a hub name.

    Raises:
        InputError: The files are missing, cannot be read, or are not what the encoder's family has.
    """
    return read_tokenizer(locate(encoder, revision, weights=False)).tokenizer


def read_tokenizer(directory: Path) -> LoadedTokenizer:
    """`load_tokenizer` of a directory, with all that it says of the tokenizer.

    Raises:
        InputError: As `load_tokenizer`.
    """
    family, config = read_family(directory) if (directory / CONFIG).exists() else (FAMILIES["bert"], {})
    path = directory / TOKENIZER
    try:
        must_be_file(path)
        described: dict[str, Any] | None = None
        unread: tuple[str, ...] = ()
        if path.is_file() or family.tokenizer.model != "WordPiece":
            described = check_description(path, read_text(path, LARGEST_JSON), family)
        settings = load_settings(directory, family, config, described)
        special = _special(directory, family, settings)
        if described is None:
            path = directory / VOCABULARY
            must_be_file(path)
            tokenizer = _wordpiece(_words(read_text(path, LARGEST_JSON)), family, settings)
        elif settings.as_it_stands or family.tokenizer.model != "WordPiece":
            tokenizer = _described(described, family, settings, special)
        else:
            tokenizer = _wordpiece(described["model"]["vocab"], family, settings)
            unread = tuple(_unread(described, tokenizer))
        _add_tokens(tokenizer, settings, special)
        tokenizer.no_padding()  # a shipped tokenizer can have padding and truncation fixed
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True  # the text "[SEP]" is text, not a separator
        set_template(path, tokenizer, family)
        check_behaviour(path, tokenizer, family)
        check_ids(tokenizer, settings.added)
    except InputError:
        raise
    except FileNotFoundError:
        files = f"neither {TOKENIZER} nor {VOCABULARY}" if path.name == VOCABULARY else f"no {TOKENIZER}{_CONVERT}"
        raise InputError(f"{directory} has {files}") from None
    except Exception as error:  # noqa: BLE001 - tokenizers raises plain Exception for anything malformed
        raise InputError(f"{path} is not a tokenizer: {first_line(error)}") from None
    return LoadedTokenizer(tokenizer, directory, settings, unread)


def _words(text: str) -> dict[str, int]:
    """The words of a ``vocab.txt`` by their lines; of one that stands there twice the later line counts."""
    return {word.rstrip(BLANKS): number for number, word in enumerate(text.removesuffix("\n").split("\n"))}


class _Special(NamedTuple):
    """Which added tokens are text where they stand in a text.

    Attributes:
        roles: Special tokens by role.
        names: Names of all special tokens that have a part of their own.
        others: Whether all other special tokens are text, too.
    """

    roles: dict[str, AddedToken]
    names: set[str]
    others: bool

    def includes(self, name: str, special: bool) -> bool:
        """Whether a token of that name, marked as special or not, is one of them."""
        named = any(token.content == name for token in self.roles.values())
        return named or (special and (self.others or name in self.names))


def _special(directory: Path, family: Family, settings: TokenizerSettings) -> _Special:
    """The special tokens that the folder names, and those that the tokenizer's class has by itself."""
    own = {f"{name}_token": getattr(family.tokenizer, name) for name in ("unk", "sep", "pad", "cls", "mask")}
    for role in ("unk_token", "sep_token", "cls_token"):
        found = settings.roles[role].content if role in settings.roles else own[role]
        if found != own[role]:
            raise InputError(f"{directory}: its {role} is {found!r}; that of {family.title} is {own[role]!r}")
    by_itself = {} if settings.as_it_stands else {role: AddedToken(name, special=True) for role, name in own.items()}
    return _Special(by_itself | settings.roles, set(own.values()), settings.split_special)


def _wordpiece(vocab: dict[str, int], family: Family, settings: TokenizerSettings) -> Tokenizer:
    """BERT's tokenizer over a vocabulary, set up by the settings alone."""
    tokenizer, said = Tokenizer(WordPiece(vocab, unk_token=family.tokenizer.unk)), settings.switches
    bert = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=said["tokenize_chinese_chars"],
        strip_accents=said["strip_accents"],
        lowercase=said["do_lower_case"],
    )
    lower = settings.lower_first and not said["do_lower_case"]
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), bert]) if lower else bert
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _unread(values: dict[str, Any], tokenizer: Tokenizer) -> Iterator[str]:
    """Parts of a ``tokenizer.json`` that are otherwise than a tokenizer's over its vocabulary."""
    for part in ("normalizer", "pre_tokenizer"):
        if values.get(part) != json.loads(getattr(tokenizer, part).__getstate__()):
            yield part
    for part, usual in (("continuing_subword_prefix", "##"), ("max_input_chars_per_word", 100)):
        if values["model"].get(part, usual) != usual:
            yield part


def _described(values: dict[str, Any], family: Family, settings: TokenizerSettings, special: _Special) -> Tokenizer:
    """What a ``tokenizer.json`` describes."""
    changed = dict(values)
    if family.tokenizer.model == "Unigram":
        if not settings.as_it_stands:
            deberta = settings.kind == "DebertaV2Tokenizer"
            changed |= _deberta(settings) if deberta else _sentencepiece(values, settings)
        split = [part for part in parts(changed.get("pre_tokenizer")) if part != names_apart(family.tokenizer)]
        changed["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [*split, names_apart(family.tokenizer)]}
    if settings.kind == "RobertaTokenizer":  # which builds these two anew, whatever the file says
        prefix = settings.switches["add_prefix_space"]
        changed["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True}
        changed["pre_tokenizer"]["use_regex"] = True
        changed["normalizer"] = None
    if settings.lower_first:
        inner = [changed["normalizer"]] if changed.get("normalizer") else []
        changed["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, *inner]}
    changed["added_tokens"] = [
        {**token, "special": token.get("special") is True and special.includes(token["content"], True)}
        for token in values.get("added_tokens") or []
    ]
    return Tokenizer.from_str(json.dumps(changed))


def _deberta(settings: TokenizerSettings) -> dict[str, Any]:
    """The parts that DeBERTa-v2's class builds, whatever the file says; capitals stay where nothing is said of them."""
    said = settings.switches
    lower = [{"type": "Lowercase"}] if said["do_lower_case"] and "do_lower_case" in settings.stated else []
    blanks = [ONE_SPACE, {"type": "NFC"}, {"type": "Strip", "strip_left": False, "strip_right": True}]
    punctuation = [{"type": "Punctuation", "behavior": "Isolated"}] if said["split_by_punct"] else []
    space = _metaspace("always" if said["add_prefix_space"] else "first")
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*lower, *blanks]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*punctuation, space]},
    }


def _sentencepiece(values: dict[str, Any], settings: TokenizerSettings) -> dict[str, Any]:
    """The parts that the classes over sentencepiece build anew; of the file's they keep a table of replacements."""
    said, found = settings.switches, []
    if settings.kind == "AlbertTokenizer":
        found = [{"type": "Replace", "pattern": {"String": quote}, "content": '"'} for quote in ("``", "''")]
        found += [] if said["keep_accents"] else [{"type": "NFKD"}, {"type": "StripAccents"}]
        found += [{"type": "Lowercase"}] if said["do_lower_case"] else []
    found += [part for part in parts(values.get("normalizer")) if part["type"] == "Precompiled"][:1]
    space = _metaspace("always" if said["add_prefix_space"] else "never")
    return {
        "normalizer": {"type": "Sequence", "normalizers": found} if found else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, space]},
    }


def _metaspace(scheme: str) -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": True}


def _add_tokens(tokenizer: Tokenizer, settings: TokenizerSettings, special: _Special) -> None:
    """Adds the tokens beside the vocabulary; those without an id get the next ones, as `transformers` gives them."""
    tokens = [token for _, (token, _) in sorted(settings.added.items())]
    known = {token.content for token in (*tokens, *tokenizer.get_added_tokens_decoder().values())}
    extra = [token for token in settings.extra if token.content not in known]
    if extra:  # the ids before theirs are for special tokens that the vocabulary lacks
        roles = (special.roles[role] for role in ROLES if role in special.roles)
        tokens += [token for token in roles if tokenizer.token_to_id(token.content) is None]
    for token in (*tokens, *extra):
        token.special = special.includes(token.content, token.special)
        tokenizer.add_tokens([token])
    for token in tokenizer.get_added_tokens_decoder().values() if settings.lower_first else ():
        if not token.special and token.content != token.content.lower():
            raise InputError(
                f"{settings.lower_first}: with do_lower_case the token {token.content!r} could stand in no text"
            )


def mask_token(tokenizer: Tokenizer) -> str:
    """The token that hides another: of the families' names the one that is a special token, or else a word, here.

    MPNet's vocabulary has BERT's name, too, as a word.
    """
    names = list(dict.fromkeys(family.tokenizer.mask for family in FAMILIES.values()))
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    known = [name for name in names if name in special]
    known += [name for name in names if tokenizer.token_to_id(name) is not None]
    return next(iter(known), names[0])


def unknown_token(tokenizer: Tokenizer) -> str | None:
    """What stands for a word or a character that the vocabulary lacks; None where nothing does."""
    model = tokenizer.model
    if isinstance(model, Unigram):  # which does not say it
        return tokenizer.id_to_token(model.tokenize("\U0010fffd")[0].id)  # the last private character
    return model.unk_token


def lower_cases(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer writes texts in lower case."""
    return tokenizer.normalizer is not None and tokenizer.normalizer.normalize_str("A") == "a"


def has_capitals(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer's vocabulary is that of a cased encoder: one word in a hundred, or more, has a capital."""
    words = [word for word in tokenizer.get_vocab(with_added_tokens=False) if not word.startswith(("[", "<"))]
    return sum(word != word.lower() for word in words) >= CASED * max(len(words), 1)
