"""An export for `transformers`, by the code that its own card prints."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mtbert_jax as mt
from mtbert_jax.config import Config, HeadConfig
from mtbert_jax.export.write import export_run
from tests.conftest import replace_task
from tests.encoders.tiny import save_encoder
from tests.runs import checkpointed

torch = pytest.importorskip("torch", reason="PyTorch is not installed: make parity")
transformers = pytest.importorskip("transformers", reason="transformers is not installed: make parity")

TRICKY = ["the film [SEP] was good", "", "not " * 60, "a GREY\ufeff caf\u00e9 ?", "[CLS] the [PAD] ]", " ", "[UNK]"]


def by_the_card(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The function `logits` of the card's code, run as it stands, in the export's folder."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= (40 if "def towers" in code else 33)
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(code, names)  # its last line prints the example's logits
    return lambda task, *texts: names["logits"](task, *texts).numpy()


def columns(pairs: list[Any]) -> list[list[str]]:
    return [list(column) for column in zip(*pairs, strict=True)]


def test_the_cards_code_repeats_the_runs_own_dev_logits(
    mixed_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every pooling, and heads of no, one and two hidden layers; some examples are cut off."""
    logits = by_the_card(export_run(mixed_run, "hf", tmp_path / "out"), monkeypatch)
    assert re.fullmatch(r"tensor\(\[\[.*\]\]\)\n", capsys.readouterr().out)
    config = mt.load_config(mixed_run / "config.toml")
    with np.load(mixed_run / "predictions" / "dev-logits.npz") as file:
        for task in config.tasks:
            examples = mt.read_task(task, "dev", config.data_dir)
            found = logits(task.name, *columns([example.texts for example in examples]))
            np.testing.assert_allclose(found, file[task.name], rtol=0, atol=1e-5)
            assert np.std(file[task.name][:, 0]) > 1e-2


def test_the_cards_code_reads_awkward_text_as_we_do(
    mixed_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = by_the_card(export_run(mixed_run, "hf", tmp_path / "out"), monkeypatch)
    model = mt.MultitaskModel.from_checkpoint(mixed_run)
    pairs = [(a, b) for a in TRICKY for b in TRICKY]
    wanted = [prediction.label for prediction in model.predict("sts", pairs)]  # type: ignore[arg-type]
    np.testing.assert_allclose(logits("sts", *columns(pairs))[:, 0], wanted, rtol=0, atol=1e-5)  # type: ignore[arg-type]
    shares = [list(prediction.probabilities.values()) for prediction in model.predict("sst", TRICKY)]
    np.testing.assert_allclose(torch.softmax(torch.tensor(logits("sst", TRICKY)), -1), shares, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "mean", "pair", "towers", "both"])
def test_the_code_for_a_single_pooling_gives_the_same(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pooling: Any
) -> None:
    config = dataclasses.replace(config, tasks=config.tasks[2:])
    folder = checkpointed(replace_task(config, "sts", head=HeadConfig(pooling=pooling)))
    logits = by_the_card(export_run(folder.path, "hf"), monkeypatch)
    examples = mt.read_task(config.tasks[0], "dev", config.data_dir)
    with np.load(folder.logits) as file:
        found = logits("sts", *columns([example.texts for example in examples]))
        np.testing.assert_allclose(found, file["sts"], rtol=0, atol=1e-5)


def test_the_cards_code_scores_both_orders_where_the_run_does(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace_task(dataclasses.replace(config, max_length=14, lengths=(14,)), "sts", both_orders=True)
    folder = checkpointed(dataclasses.replace(config, tasks=(config.tasks[0], config.tasks[2])))
    logits = by_the_card(export_run(folder.path, "hf"), monkeypatch)
    with np.load(folder.logits) as file:
        for task in (config.tasks[0], config.tasks[2]):
            examples = mt.read_task(task, "dev", config.data_dir)
            found = logits(task.name, *columns([example.texts for example in examples]))
            np.testing.assert_allclose(found, file[task.name], rtol=0, atol=1e-5)
    card = (folder.path / "export" / "hf" / "README.md").read_text()
    assert "The run scored the pairs of sts in both orders" in card


def test_embeddings_are_means_of_what_automodel_says(mixed_run: Path, tmp_path: Path) -> None:
    out = export_run(mixed_run, "hf", tmp_path / "out")
    tokenizer, encoder = transformers.AutoTokenizer.from_pretrained(out), transformers.AutoModel.from_pretrained(out)
    ours = mt.MultitaskModel.from_checkpoint(mixed_run)
    for text in TRICKY:
        tokens = tokenizer(text, truncation=True, max_length=20, split_special_tokens=True, return_tensors="pt")
        with torch.no_grad():
            theirs = encoder.eval()(**tokens)
        mean, pooled = theirs.last_hidden_state[0].mean(0), theirs.pooler_output[0]
        np.testing.assert_allclose(ours.encode([text])[0], mean, rtol=0, atol=1e-5)
        np.testing.assert_allclose(ours.encode([text], "cls")[0], pooled, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "pooling"),
    [("albert", "pair"), ("distilbert", "pair"), ("mpnet", "pair"), ("xlm-roberta", "pair"), ("xlm-roberta", "both")],
)
def test_the_cards_code_serves_every_family(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, pooling: Any
) -> None:
    """With token types and without, over WordPiece and over sentencepiece."""
    config = dataclasses.replace(config, encoder=str(save_encoder(name, tmp_path / "encoder")), tasks=config.tasks[2:])
    folder = checkpointed(replace_task(config, "sts", head=HeadConfig(pooling=pooling)))
    logits = by_the_card(export_run(folder.path, "hf"), monkeypatch)
    examples = mt.read_task(config.tasks[0], "dev", config.data_dir)
    with np.load(folder.logits) as file:
        found = logits("sts", *columns([example.texts for example in examples]))
        np.testing.assert_allclose(found, file["sts"], rtol=0, atol=1e-5)
