"""Small random encoders of every family, with their tokenizers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import mtbert_jax as mt
from mtbert_jax.encoders.family import FAMILIES
from tests.conftest import BAD, GOOD, THINGS, VOCAB

ROBERTAS = {"[CLS]": "<s>", "[PAD]": "<pad>", "[SEP]": "</s>", "[MASK]": "<mask>"}


def byte_level_tokenizer() -> Tokenizer:
    """A byte-level BPE tokenizer, put together as RoBERTa's ``tokenizer.json`` is."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([f"the {thing} was {' '.join(GOOD + BAD)} ." for thing in THINGS], trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def charsmap(replacements: dict[str, str]) -> bytes:
    """A table of replacements as sentencepiece has it, every node of the trie in a block of its own."""
    keys = {old.encode(): new.encode() for old, new in replacements.items()}
    nodes = sorted({key[:length] for key in keys for length in range(len(key) + 1)})
    bases = {node: 256 * number for number, node in enumerate(nodes, start=1)}
    units, text = np.zeros(256 * (len(nodes) + 1), "<u4"), b""
    for node, base in bases.items():
        place = bases[node[:-1]] ^ node[-1] if node else 0
        units[place] = (place ^ base) << 10 | (256 if node in keys else 0) | (node[-1] if node else 0)
        if node in keys:
            units[base] = len(text) | 1 << 31
            text += keys[node] + b"\0"
    return units.nbytes.to_bytes(4, "little") + units.tobytes() + text


SPECIAL = {
    "albert": ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"],
    "xlm-roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    "camembert": ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>", "<mask>"],
}
REPLACED = {"ﬁ": "fi", "①": "1", "\u200b": "", "\u00a0": " ", "\ufeff": "", "é": "é"}
LETTERS = "abcdefghijklmnopqrstuvwxyzé.,!?1'<>/[]"


def pieces(family: str) -> list[tuple[str, float]]:
    """The vocabulary of a Unigram model: special tokens, letters and words, with scores."""
    plain = [("▁", -3.0), *((letter, -6.0) for letter in LETTERS), ("▁<s", -4.0), ("s>", -4.0), ("CLS]", -4.0)]
    words = [(f"▁{word}", -4.0 - number / 8) for number, word in enumerate(["the", "was", *THINGS, *GOOD, *BAD])]
    return [*((name, 0.0) for name in SPECIAL[family]), *plain, *words]


def unigram_description(family: str) -> dict[str, Any]:
    """A ``tokenizer.json`` over sentencepiece, as `transformers` converts the family's."""
    rules = FAMILIES[family].tokenizer
    tokenizer = Tokenizer(models.Unigram(pieces(family), SPECIAL[family].index("<unk>"), byte_fallback=False))
    table = normalizers.Precompiled(charsmap(REPLACED))
    quotes = [normalizers.Replace(quote, '"') for quote in ("``", "''")]
    lower = [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    tokenizer.normalizer = normalizers.Sequence([*quotes, *lower, table]) if family == "albert" else table
    metaspace = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
    tokenizer.decoder = decoders.Metaspace()
    second = int(rules.token_types)
    single = f"{rules.cls} $A {rules.sep}"
    pair = f"{single} $B:1 {rules.sep}:1" if second else f"{single} {rules.sep} $B {rules.sep}"
    ids = [(name, SPECIAL[family].index(name)) for name in (rules.cls, rules.sep)]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
    tokenizer.add_special_tokens(SPECIAL[family])
    return json.loads(tokenizer.to_str())


def wordpiece_files(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n", encoding="utf-8")


def mpnet_files(folder: Path) -> None:
    words = ["<s>", "<pad>", "</s>", *(ROBERTAS.get(word, word) for word in VOCAB)]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(words)) + "\n", encoding="utf-8")


def byte_level_files(folder: Path) -> None:
    byte_level_tokenizer().save(str(folder / "tokenizer.json"))


def unigram_files(family: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "tokenizer.json").write_text(json.dumps(unigram_description(family)), encoding="utf-8")

    return write


TOKENIZERS: dict[str, Callable[[Path], None]] = {
    "roberta": byte_level_files,
    "mpnet": mpnet_files,
    **{family: unigram_files(family) for family in SPECIAL},
    **dict.fromkeys(("bert", "distilbert", "electra", "ernie"), wordpiece_files),
}
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
SIZES |= {"vocab_size": 320, "max_position_embeddings": 66}


def save_encoder(name: str, folder: Path, **sizes: int) -> Path:
    """A random encoder of a registered family, as `save_pretrained` writes it, with its tokenizer."""
    config = FAMILIES[name].config(**{**SIZES, **sizes})
    params = mt.encoder(config).init(jax.random.key(0), jax.numpy.ones((1, 2), int))["params"]
    mt.save_pretrained(folder, config, params)
    TOKENIZERS[name](folder)
    tokenizer = mt.load_tokenizer(folder)
    shutil.rmtree(folder)
    mt.save_pretrained(folder, config, params, tokenizer)
    return folder
