"""Small random encoders of ModernBERT and DeBERTa-v2, with tokenizers put together as theirs are."""

from pathlib import Path
from typing import Any

import jax
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import mtbert_jax as mt
from mtbert_jax.encoders.family import FAMILIES
from tests.conftest import BAD, GOOD, THINGS

LINES = [f"the {thing} was {' '.join(GOOD + BAD)} ." for thing in THINGS]
SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
ROLES = {f"{name[1:-1].lower()}_token": name for name in SPECIAL}
SIZES: dict[str, Any] = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
SIZES |= {"num_hidden_layers": 2, "vocab_size": 330, "max_position_embeddings": 64}
OWN: dict[str, dict[str, Any]] = {
    "modernbert": {"local_attention": 8, "layer_types": "full_attention|sliding_attention", "pad_token_id": 3},
    "deberta-v2": {"relative_attention": True, "pos_att_type": "c2p|p2c", "position_buckets": 8, "share_att_key": True},
}
OWN["deberta-v2"] |= {"norm_rel_ebd": "layer_norm", "position_biased_input": False}


def modernbert_tokenizer() -> Tokenizer:
    """Byte-level BPE after NFC, as ModernBERT's ``tokenizer.json``; special tokens stand behind the vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(LINES, trainer)
    return _with_template(tokenizer)


def deberta_tokenizer() -> Tokenizer:
    """Unigram, as DeBERTa-v2's ``tokenizer.json``."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Strip(left=False, right=True)])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=["[UNK]"], unk_token="[UNK]", show_progress=False)
    tokenizer.train_from_iterator([*LINES, *"isn't it 3,141 times 50 ?!", *"[CLSEPADUNKMGO]"], trainer)
    return _with_template(tokenizer)


def _with_template(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.add_special_tokens([AddedToken(name, lstrip=name == "[MASK]", special=True) for name in SPECIAL])
    single, pair = "[CLS]:0 $A:0 [SEP]:0", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"
    special = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=special)
    return tokenizer


def save_modern(name: str, folder: Path, **changes: Any) -> Path:
    """A random encoder of a family, with its tokenizer."""
    config = FAMILIES[name].config(**{**SIZES, **OWN[name], **changes})
    params = mt.encoder(config).init(jax.random.key(0), jax.numpy.ones((1, 2), int))["params"]
    mt.save_pretrained(folder, config, params)
    tokenizer = modernbert_tokenizer() if name == "modernbert" else deberta_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
