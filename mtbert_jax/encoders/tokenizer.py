"""The tokenizer of an encoder's directory, checked and set up as its family's."""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import WordPiece

from mtbert_jax.encoders.config_json import CONFIG, read_family
from mtbert_jax.encoders.family import FAMILIES, Family
from mtbert_jax.encoders.hub import locate
from mtbert_jax.encoders.tokenizer_checks import check_behaviour, check_description, set_template
from mtbert_jax.errors import InputError, first_line
from mtbert_jax.files import must_be_file, read_text
from mtbert_jax.limits import LARGEST_JSON


def load_tokenizer(encoder: str | Path, revision: str | None = None) -> Tokenizer:
    """The tokenizer of an encoder: ``tokenizer.json``, or a WordPiece ``vocab.txt``.

    It gives the ids of the tokenizer of `transformers`. Its type ids are the segments: 0 in the first text, 1 in the
    second. Names of special tokens that stand in a text are text.

    Args:
        encoder: A directory, or a hub name; without ``config.json`` it is taken for a BERT's.
        revision: Branch, tag or commit of a hub name.

    Raises:
        InputError: The files are missing, cannot be read, or are not what the encoder's family has.
    """
    directory = locate(encoder, revision, weights=False)
    family = read_family(directory)[0] if (directory / CONFIG).exists() else FAMILIES["bert"]
    path = directory / "tokenizer.json"
    try:
        must_be_file(path)
        if path.is_file() or family.tokenizer.model != "WordPiece":
            text = read_text(path, LARGEST_JSON)
            check_description(path, text, family)
            tokenizer = Tokenizer.from_str(text)
        else:
            lower_case = _lower_case(directory)
            path = directory / "vocab.txt"
            tokenizer = _wordpiece(path, lower_case, family)
        tokenizer.no_padding()  # a shipped tokenizer can have padding and truncation fixed
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True  # the text "[SEP]" is text, not a separator
        set_template(path, tokenizer, family)
        check_behaviour(path, tokenizer, family)
    except InputError:
        raise
    except FileNotFoundError:
        files = "neither tokenizer.json nor vocab.txt" if path.name == "vocab.txt" else "no tokenizer.json"
        raise InputError(f"{directory} has {files}") from None
    except Exception as error:  # noqa: BLE001 - tokenizers raises plain Exception for anything malformed
        raise InputError(f"{path} is not a tokenizer: {first_line(error)}") from None
    return tokenizer


def _wordpiece(path: Path, lower_case: bool, family: Family) -> Tokenizer:
    must_be_file(path)
    words = read_text(path, LARGEST_JSON).split("\n")
    vocab = {word.rstrip("\r"): number for number, word in enumerate(words) if word}
    tokenizer = Tokenizer(WordPiece(vocab, unk_token=family.tokenizer.unk))
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
