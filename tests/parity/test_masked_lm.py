"""Logits of masked language modelling beside transformers' BertForMaskedLM with the same weights."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbert_jax.config import Config, Task, TaskConfig
from mtbert_jax.encoders.tokenizer import load_tokenizer
from mtbert_jax.tasks import KINDS
from mtbert_jax.training.origin import from_directory
from mtbert_jax.training.setup import Setup
from mtbert_jax.types import Batch
from tests.conftest import VOCAB

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory, encoder_dir: Path) -> tuple[Path, object]:
    """A random BertForMaskedLM, saved with the tiny tokenizer: its file holds the head and no pooler."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(VOCAB),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    model = transformers.BertForMaskedLM(config).eval()
    with torch.no_grad():
        model.cls.predictions.bias.normal_()
        model.cls.predictions.transform.LayerNorm.weight.normal_(1, 0.2)
        model.cls.predictions.transform.LayerNorm.bias.normal_(0, 0.2)
    folder = tmp_path_factory.mktemp("bert-mlm")
    model.save_pretrained(folder)
    load_tokenizer(encoder_dir).save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    return folder, model


def test_tied_logits_and_the_loss_are_those_of_transformers(theirs: tuple[Path, object]) -> None:
    folder, model = theirs
    task = TaskConfig("text", "masked_lm", ("text",), id="", train="none")
    config = Config(encoder=str(folder), tasks=(task,), max_length=16)
    setup = Setup.load(config, folder)
    origin = from_directory(folder, setup)
    assert origin.told == ("task text: the head of the file of the encoder",)
    params = setup.initial_params(origin.encoder, origin.heads)
    rng = np.random.default_rng(0)
    ids = rng.integers(5, len(VOCAB), (3, 9))
    mask = np.array([[1] * 9, [1] * 6 + [0] * 3, [1] * 9])
    positions = np.array([[1, 4, -1], [2, -1, -1], [0, 3, 8]])
    labels = np.where(positions >= 0, rng.integers(5, len(VOCAB), (3, 3)), -1)
    weights = np.ones(3, np.float32)
    batch = Batch(ids, mask, 0 * ids, labels.astype(np.float32), weights, positions)  # type: ignore[arg-type]
    ours = np.asarray(setup.model.logits(params, "text", jax.tree.map(jnp.asarray, batch)))
    with torch.no_grad():
        wanted = model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask)).logits.numpy()  # type: ignore[operator]
    for row, place in zip(*np.nonzero(positions >= 0), strict=True):
        np.testing.assert_allclose(ours[row, place], wanted[row, positions[row, place]], rtol=1e-4, atol=1e-4)
    losses = KINDS["masked_lm"].loss(jnp.asarray(ours), jnp.asarray(labels, jnp.float32))
    hidden = np.full(ids.shape, -100)
    for row, place in zip(*np.nonzero(positions >= 0), strict=True):
        hidden[row, positions[row, place]] = labels[row, place]
    with torch.no_grad():
        loss = model(  # type: ignore[operator]
            input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask), labels=torch.tensor(hidden)
        ).loss.item()
    np.testing.assert_allclose(np.asarray(losses)[labels >= 0].mean(), loss, rtol=1e-4)


def test_a_file_without_the_head_gets_a_fresh_one(encoder_dir: Path) -> None:
    task = TaskConfig("text", "masked_lm", ("text",), id="", train="none")
    setup = Setup.load(Config(encoder=str(encoder_dir), tasks=(task,), max_length=16), encoder_dir)
    origin = from_directory(encoder_dir, setup)
    assert origin.heads == {}
    assert origin.told == ("task text: a fresh head",)
    assert isinstance(setup.tasks["text"], Task)
