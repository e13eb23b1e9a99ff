"""Encoder families as a user writes them, in a plugin each, with small encoders of them."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import mtbert_jax as mt
from mtbert_jax.encoders.family import FAMILIES
from mtbert_jax.plugins import run_plugins
from tests.conftest import BAD, GOOD, THINGS, VOCAB

ROBERTA = '''\
"""RoBERTa (Liu et al. 2019, arXiv:1907.11692), numerically that of Hugging Face's `RobertaModel`."""

from dataclasses import dataclass

import jax.numpy as jnp
import mtbert_jax as mt


@dataclass(frozen=True)
class RobertaConfig(mt.BertConfig):
    vocab_size: int = 50265
    pad_token_id: int = 1


class RobertaEncoder(mt.BertEncoder):
    def embed(self, input_ids, attention_mask, token_type_ids, *, deterministic=True):
        pad = self.config.pad_token_id
        ids = jnp.where(attention_mask > 0, input_ids, pad)
        positions = jnp.cumsum(attention_mask, axis=1) * attention_mask + pad  # the first token's is pad + 1
        return self.embeddings(ids, positions, jnp.zeros_like(ids), deterministic)


@mt.register_family("roberta")
class RobertaFamily(mt.BertFamily):
    title = "RoBERTa"
    architecture = "RobertaModel"
    prefix = "roberta."
    config = RobertaConfig
    encoder = RobertaEncoder
    tokenizer = mt.TokenizerRules(
        model="BPE",
        single="<s> a </s>",
        pair="<s> a </s> </s> b </s>",
        **dict(cls="<s>", sep="</s>", pad="<pad>", mask="<mask>", unk="<unk>"),
        token_types=False,
    )

    def max_length(self, config):
        return config.max_position_embeddings - config.pad_token_id - 1
'''

DISTILBERT = '''\
"""DistilBERT (Sanh et al. 2019, arXiv:1910.01108), numerically that of Hugging Face's `DistilBertModel`."""

from dataclasses import dataclass

import mtbert_jax as mt


@dataclass(frozen=True)
class DistilBertConfig(mt.BertConfig):
    num_hidden_layers: int = 6
    type_vocab_size: int = 0


class DistilBertEncoder(mt.BertEncoder):
    has_pooler = False


@mt.register_family("distilbert")
class DistilBertFamily(mt.BertFamily):
    title = "DistilBERT"
    architecture = "DistilBertModel"
    prefix = "distilbert."
    config = DistilBertConfig
    encoder = DistilBertEncoder
    config_names = {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
    }
    tensors = {
        "embeddings/word": "embeddings.word_embeddings",
        "embeddings/position": "embeddings.position_embeddings",
        "embeddings/layer_norm": "embeddings.LayerNorm",
        "layer_{}/attention/query": "transformer.layer.{}.attention.q_lin",
        "layer_{}/attention/key": "transformer.layer.{}.attention.k_lin",
        "layer_{}/attention/value": "transformer.layer.{}.attention.v_lin",
        "layer_{}/attention/output": "transformer.layer.{}.attention.out_lin",
        "layer_{}/attention_norm": "transformer.layer.{}.sa_layer_norm",
        "layer_{}/intermediate": "transformer.layer.{}.ffn.lin1",
        "layer_{}/output": "transformer.layer.{}.ffn.lin2",
        "layer_{}/output_norm": "transformer.layer.{}.output_layer_norm",
    }
'''
PLUGINS = {"roberta": ROBERTA, "distilbert": DISTILBERT}
BYTES = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}


@contextmanager
def registered(name: str, folder: Path) -> Iterator[Path]:
    """Runs the plugin of a family from a file in `folder`, and forgets it at the end."""
    path = folder / f"{name}.py"
    path.write_text(PLUGINS[name], encoding="utf-8")
    try:
        run_plugins([path])
        yield path
    finally:
        FAMILIES.pop(name, None)
        sys.modules.pop(f"mtbert_plugin_{name}", None)


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
