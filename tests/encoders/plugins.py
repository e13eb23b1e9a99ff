"""Small random encoders of the families that are plugins, with their tokenizers."""

import shutil
from collections.abc import Callable
from pathlib import Path

import jax
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import mtbert_jax as mt
from mtbert_jax.encoders.family import FAMILIES
from tests.conftest import BAD, GOOD, THINGS, VOCAB


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


def wordpiece_files(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n", encoding="utf-8")


def byte_level_files(folder: Path) -> None:
    byte_level_tokenizer().save(str(folder / "tokenizer.json"))


TOKENIZERS: dict[str, Callable[[Path], None]] = {"roberta": byte_level_files, "distilbert": wordpiece_files}
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
SIZES |= {"vocab_size": 320, "max_position_embeddings": 66}


def save_encoder(name: str, folder: Path) -> Path:
    """A random encoder of a registered family, as `save_pretrained` writes it, with its tokenizer."""
    config = FAMILIES[name].config(**SIZES)
    params = mt.encoder(config).init(jax.random.key(0), jax.numpy.ones((1, 2), int))["params"]
    mt.save_pretrained(folder, config, params)
    TOKENIZERS[name](folder)
    tokenizer = mt.load_tokenizer(folder)
    shutil.rmtree(folder)
    mt.save_pretrained(folder, config, params, tokenizer)
    return folder
