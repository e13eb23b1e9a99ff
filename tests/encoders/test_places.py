"""Words and hidden tokens with every family: alignment by its tokenizer, and the head over its table of words."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtbert_jax as mt
from mtbert_jax.config import Task
from mtbert_jax.data.masking import Masking
from mtbert_jax.data.tokens import tokenize_texts
from mtbert_jax.encoders.family import FAMILIES
from mtbert_jax.encoders.hub import load_matching_config
from mtbert_jax.encoders.tokenizer import load_tokenizer, mask_token
from mtbert_jax.model import EncoderWithHeads
from mtbert_jax.types import Batch
from tests.cases import slow_but_for
from tests.encoders.modern import save_modern
from tests.encoders.tiny import TOKENIZERS, save_encoder

TEXTS = [("the good film was bad, very bad.",), ("a book",), ("warm",)]


@pytest.fixture(scope="module", params=slow_but_for(("bert", "albert", "modernbert", "mpnet"), FAMILIES))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("family") / request.param
    (save_encoder if request.param in TOKENIZERS else save_modern)(request.param, place)
    return place


def test_every_word_has_a_first_token_that_says_its_beginning(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    tokens = tokenize_texts(tokenizer, TEXTS, 64, words="first")
    assert tokens.words is not None and tokens.num_words is not None
    assert tokens.num_words.tolist() == [7, 2, 1]
    for row, (text,) in enumerate(TEXTS):
        words = tokens.words[tokens.starts[row] : tokens.starts[row + 1]]
        ids = tokens.ids[tokens.starts[row] : tokens.starts[row + 1]]
        places = np.flatnonzero(words >= 0)
        assert words[places].tolist() == list(range(len(text.split())))
        assert {0, len(words) - 1}.isdisjoint(places.tolist())  # special tokens
        ends = [*places[1:], len(words) - 1]
        parts = [
            tokenizer.decode([int(i) for i in ids[a:b]]).replace(" ", "") for a, b in zip(places, ends, strict=True)
        ]
        if "[UNK]" not in "".join(parts) and "<unk>" not in "".join(parts):
            assert parts == text.split()


def test_hidden_tokens_get_logits_by_the_encoders_own_table(folder: Path) -> None:
    """Without bias, LayerNorm and dense being what they are, logits are products with the table's rows."""
    tokenizer, config = load_tokenizer(folder), load_matching_config(folder)
    _, params = mt.load_pretrained(folder)
    model = EncoderWithHeads.build(config, (Task("text", "masked_lm", ("a",)),))
    heads = model.init_heads(jax.random.key(0))
    heads["text"]["bias"] = jnp.arange(float(config.vocab_size))
    tokens = tokenize_texts(tokenizer, TEXTS, 64, words="all")
    masking = Masking.of(tokens, tokenizer, mask_token(tokenizer), True)
    assert masking.mask == tokenizer.token_to_id(FAMILIES[folder.name].tokenizer.mask)
    shown, labels = masking.masked(range(3), (0,))
    assert (labels >= 0).any(axis=1).all()
    special = np.flatnonzero(tokens.words == -1)  # type: ignore[arg-type]
    assert (shown.ids[special] == tokens.ids[special]).all()
    ids = np.zeros((1, 8), np.int32)
    count = min(8, int(tokens.lengths[0]))
    ids[0, :count] = shown.ids[:count]
    mask, places = np.ones((1, 8), np.int32), np.array([[1, 2]], np.int32)
    batch = Batch(ids, mask, 0 * ids, np.zeros((1, 2), np.float32), np.ones(1, np.float32), places)  # type: ignore[arg-type]
    both = {"encoder": params, "heads": heads}
    logits = np.asarray(model.logits(both, "text", jax.tree.map(jnp.asarray, batch)))
    table = np.asarray(params["embeddings"]["word"]["embedding"])
    plain = logits - np.arange(config.vocab_size)
    assert logits.shape == (1, 2, config.vocab_size)
    for place in range(2):  # in the span of the table's columns
        solved = np.linalg.lstsq(table, plain[0, place], rcond=None)[0]
        np.testing.assert_allclose(table @ solved, plain[0, place], atol=2e-4)
