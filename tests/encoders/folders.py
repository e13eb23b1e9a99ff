"""Folders of tokenizers as people have them: the files beside a vocabulary, by name."""

import json
import string
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

LETTERS = string.ascii_letters + "äöü"
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *("##" + c for c in LETTERS), *"[]/.,!?1<>"]
VOCAB += ["##1", "schon", "schön", "film", "Film", "the", "sep", "中", "文", "##文"]
SIZE = len(VOCAB)
CONFIG = {"model_type": "bert", "vocab_size": SIZE + 4, "hidden_size": 8, "num_attention_heads": 2}
CONFIG |= {"num_hidden_layers": 1, "intermediate_size": 8, "max_position_embeddings": 64}

TEXTS = ["SCHÖN Film", "the [SEP] film[SEP]a [CLS] [PAD] [UNK] [MASK]", "中文 film", "a\u0301 \u200b é Ä!", "", "<s> x"]
"""To be encoded with special tokens as text."""
MARKED = ["[E1] film [/E1]", "a[E1]b", "The [e1] film[/e1] [E1] SCHÖN", "x [ENT] y  [ENT]z", "[E1][/E1]"]
"""To be encoded with added tokens as tokens; they hold none that has a part of its own."""


def described(normalizer: Any = None, pre_tokenizer: Any = None, tokens: tuple[AddedToken, ...] = ()) -> dict[str, Any]:
    """A ``tokenizer.json`` over the vocabulary, as `tokenizers` writes it."""
    tokenizer = Tokenizer(WordPiece({word: number for number, word in enumerate(VOCAB)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer or normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizer or pre_tokenizers.BertPreTokenizer()
    single, pair = "[CLS]:0 $A:0 [SEP]:0", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"
    special = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=special)
    tokenizer.add_special_tokens(VOCAB[:5])
    tokenizer.add_tokens(list(tokens))
    return json.loads(tokenizer.to_str())


def token(content: str, **flags: bool) -> dict[str, Any]:
    """An added token, as files describe it."""
    plain = dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized", "special"), False)
    return {"content": content, **plain, **flags}


MARKERS = ["[E1]", "[/E1]"]
BY_ID = {str(SIZE): token("[E1]", special=True), str(SIZE + 1): token("[/E1]", lstrip=True, normalized=True)}
CASED = described(tokens=(AddedToken("[E1]", special=True), AddedToken("[/E1]", normalized=True, rstrip=True)))
SPLIT = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()])
STANDS = {"tokenizer_class": "PreTrainedTokenizerFast"}
SETTINGS, ADDED, SPECIAL = "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"
SHORT = {"truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}}
PADDED = {"strategy": {"Fixed": 30}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0}
SHORT["padding"] = {**PADDED, "pad_type_id": 0, "pad_token": "[PAD]"}

FOLDERS: dict[str, dict[str, Any]] = {
    "a vocabulary alone": {},
    "accents kept": {SETTINGS: {"do_lower_case": True, "strip_accents": False}},
    "capitals kept": {SETTINGS: {"do_lower_case": False, "tokenizer_class": "BertTokenizer"}},
    "capitals kept, accents taken off": {SETTINGS: {"do_lower_case": False, "strip_accents": True}},
    "Chinese words whole": {SETTINGS: {"tokenize_chinese_chars": False, "never_split": None}},
    "markers by added_tokens.json": {ADDED: {"[E1]": SIZE, "[/E1]": SIZE + 1}},
    "markers by two files": {
        SETTINGS: {"additional_special_tokens": MARKERS},
        ADDED: {"[E1]": SIZE, "[/E1]": SIZE + 1},
    },
    "markers by special_tokens_map.json": {SPECIAL: {"additional_special_tokens": MARKERS, "unk_token": "[UNK]"}},
    "markers by their ids": {SETTINGS: {"do_lower_case": True, "added_tokens_decoder": BY_ID}},
    "markers that get the next ids": {SETTINGS: {"extra_special_tokens": MARKERS, "do_lower_case": False}},
    "a marker with a name": {SETTINGS: {"extra_special_tokens": {"ent_token": "[ENT]"}, "bos_token": "[CLS]"}},
    "special tokens as tables": {SETTINGS: {"cls_token": {"__type": "AddedToken", **token("[CLS]", normalized=True)}}},
    "tokenizer.json that its class overrides": {"tokenizer.json": CASED, SETTINGS: {"do_lower_case": True}},
    "tokenizer.json without settings": {"tokenizer.json": CASED},
    "tokenizer.json as it stands": {"tokenizer.json": CASED, SETTINGS: {**STANDS, "do_lower_case": True}},
    "tokenizer.json with parts of its own": {
        "tokenizer.json": described(normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase()]), SPLIT),
        SETTINGS: {**STANDS, "additional_special_tokens": ["[ENT]"]},
    },
    "tokenizer.json that cuts and pads": {"tokenizer.json": {**CASED, **SHORT}, SETTINGS: STANDS},
    "tokenizer.json and ids": {"tokenizer.json": CASED, SETTINGS: {"added_tokens_decoder": BY_ID}},
    "another model's class": {SETTINGS: {"tokenizer_class": "ElectraTokenizerFast", "strip_accents": False}},
    "a class named by config.json": {"config.json": {**CONFIG, **STANDS}, "tokenizer.json": CASED},
    "white space in the vocabulary": {"vocab.txt": "\n".join([*VOCAB[:-1], "##文 \u3000\r"])},
}


def write(folder: Path, files: dict[str, Any]) -> Path:
    """Writes the files of a folder; a vocabulary where no ``tokenizer.json`` is among them."""
    folder.mkdir(parents=True, exist_ok=True)
    usual: dict[str, Any] = {"config.json": CONFIG}
    if "tokenizer.json" not in files:
        usual["vocab.txt"] = "\n".join(VOCAB) + "\n"
    for name, value in {**usual, **files}.items():
        (folder / name).write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return folder
