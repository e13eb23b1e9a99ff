"""A trained model on one's own text: what it says of the dev texts, and embeddings."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtbert_jax as mt
from mtbert_jax.cli.main import main
from mtbert_jax.config import save_config
from mtbert_jax.encoders.bert import BertEncoder
from tests.conftest import TINY

TEXTS = ["the film was good .", "", "a very long book was not bad . " * 9, "[SEP] [", "the song"]


@pytest.fixture(scope="module")
def model(mixed_run: Path) -> mt.MultitaskModel:
    return mt.MultitaskModel.from_checkpoint(mixed_run)


@pytest.mark.parametrize("task", ["sst", "para", "sts"])
def test_own_text_gives_the_runs_own_dev_predictions(model: mt.MultitaskModel, mixed_run: Path, task: str) -> None:
    spec = model.setup.tasks[task]
    examples = mt.read_task(spec, "dev", model.setup.config.data_dir)
    texts = [example.texts if len(example.texts) == 2 else example.texts[0] for example in examples]
    with np.load(mixed_run / "predictions" / "dev-logits.npz") as file:
        wanted = model.describe(task, file[task])
    found = model.predict(task, texts)
    assert len({str(p) for p in wanted}) > 1
    if task == "sts":
        assert [p.label for p in found] == pytest.approx([p.label for p in wanted], abs=1e-5)
    else:
        assert [p.label for p in found] == [p.label for p in wanted]
        shares = [[list(p.probabilities.values()) for p in some] for some in (found, wanted)]
        np.testing.assert_allclose(*shares, atol=1e-6)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_stream_gives_what_predict_does_whatever_is_computed_together(model: mt.MultitaskModel, size: int) -> None:
    found, wanted = list(model.stream("sst", TEXTS, size)), model.predict("sst", TEXTS)
    assert [one.label for one in found] == [one.label for one in wanted]
    shares = [[list(one.probabilities.values()) for one in some] for some in (found, wanted)]
    np.testing.assert_allclose(*shares, atol=1e-6)


def test_a_stream_checks_all_texts_before_the_first_prediction(model: mt.MultitaskModel) -> None:
    with pytest.raises(mt.InputError, match="text 3: task para takes two texts, got one text|text 3: .* got 1"):
        model.stream("para", [("a", "b"), ("a", "b"), "a"], 1)


def test_a_stream_counts_on_where_logits_are_not_finite(
    model: mt.MultitaskModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = mt.MultitaskModel.logits

    def broken(self: mt.MultitaskModel, task: str, texts: Any) -> Any:
        wrong = np.array([text == ("bad",) for text in texts])
        return np.where(wrong[:, None], np.nan, real(self, task, texts))

    monkeypatch.setattr(mt.MultitaskModel, "logits", broken)
    stream = model.stream("sst", ["a", "b", "c", "bad", "bad", "d", "e"], 3)
    assert len([next(stream) for _ in range(3)]) == 3
    with pytest.raises(mt.InputError, match=r"text 4 \('bad'\): .*; so for 2 of the first 6 texts; "):
        next(stream)


def test_numbers_have_the_digits_of_a_float32(model: mt.MultitaskModel) -> None:
    """0.1, and not 0.10000000149011612."""
    said = [*model.predict("sst", TEXTS), *model.predict("sts", [(TEXTS[0], TEXTS[4])])]
    numbers = [value for one in said for value in (*one.probabilities.values(), one.label) if isinstance(value, float)]
    assert len(numbers) > len(TEXTS)
    assert all(str(np.float32(number)) == str(number) for number in numbers)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_embeddings_are_those_of_each_text_alone(model: mt.MultitaskModel, pooling: Any) -> None:
    """Computed by the encoder itself, one text at a time, unpadded."""
    found = model.encode(TEXTS, pooling)
    assert found.shape == (5, TINY.hidden_size)
    assert found.dtype == np.float32
    encoder = jax.jit(BertEncoder(model.setup.encoder_config).apply)
    for text, row in zip(TEXTS, found, strict=True):
        ids = model.setup.tokenizer.encode(text).ids[:20]
        ids[-1] = model.setup.tokenizer.token_to_id("[SEP]")  # max_length = 20 cuts the long one off before it
        output: Any = encoder({"params": model.params["encoder"]}, jnp.array([ids]))
        wanted = output.pooled[0] if pooling == "cls" else output.hidden_states[0].mean(axis=0)
        np.testing.assert_allclose(row, wanted, atol=1e-5)


def test_embeddings_do_not_depend_on_company_or_order(model: mt.MultitaskModel) -> None:
    together = model.encode(TEXTS)
    np.testing.assert_allclose(model.encode(TEXTS[::-1])[::-1], together, atol=1e-6)
    np.testing.assert_allclose(model.encode(TEXTS * 5)[20:], together, atol=1e-6)  # more than a batch of 8
    assert np.abs(together[0] - together[1]).max() > 1e-3
    np.testing.assert_array_equal(model.encode(["half \ud800"]), model.encode(["half ?"]))


def test_no_texts_have_embeddings_of_the_right_width(model: mt.MultitaskModel) -> None:
    assert model.encode([]).shape == (0, TINY.hidden_size)
    assert model.encode([], "cls").dtype == np.float32


@pytest.mark.parametrize(
    ("texts", "pooling", "message"),
    [
        (["one", ("a", "b")], "mean", "text 2: encode takes one text, got 2"),
        (["one", None], "mean", "text 2: encode takes strings, got None"),
        ("one", "mean", "encode takes a list of texts, not a single string"),
        (["one"], "pair", "encode: pooling = 'pair' is none of mean, cls; pair is of two texts"),
        (["one"], "means", "encode: pooling = 'means' is none of mean, cls; did you mean 'mean'?"),
    ],
)
def test_what_has_no_embedding_is_named(model: mt.MultitaskModel, texts: Any, pooling: Any, message: str) -> None:
    with pytest.raises(mt.InputError) as error:
        model.encode(texts, pooling)
    assert str(error.value) == message


def test_a_single_string_is_no_list_of_texts(model: mt.MultitaskModel) -> None:
    with pytest.raises(mt.InputError, match="task sst takes a list of texts, not a single string"):
        model.predict("sst", "film")


def test_the_runs_limit_may_be_above_the_encoders_where_every_task_has_its_own(
    model: mt.MultitaskModel, mixed_run: Path
) -> None:
    config = model.setup.config
    tasks = tuple(dataclasses.replace(task, max_length=20) for task in config.tasks)
    config = dataclasses.replace(config, tasks=tasks, max_length=5000, lengths=())
    wide = mt.MultitaskModel.from_checkpoint(mixed_run, config=config)
    found = wide.encode([TEXTS[2], TEXTS[0]])
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[1], model.encode([TEXTS[0]])[0], atol=1e-6)


def test_rows_that_are_left_out_of_scores_and_predictions_are_told(
    model: mt.MultitaskModel, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(model.setup.config.data_dir, tmp_path / "data"))
    lenient = Path(shutil.copytree(model.setup.config.out, tmp_path / "run"))
    save_config(dataclasses.replace(model.setup.config, bad_rows="skip", data_dir=str(data)), lenient / "config.toml")
    with (data / "sts-dev.csv").open("a") as file:
        file.write("99\tx99\ta film\tthe film\t9.0\n")
    told = f"task sts: 1 bad rows left out, the first: {data}/sts-dev.csv:23"
    mt.MultitaskModel.from_checkpoint(lenient).evaluate("dev")
    assert [record.getMessage()[: len(told)] for record in caplog.records] == [told]
    caplog.clear()
    assert main(["predict", str(lenient), "--output", str(tmp_path / "files")]) == 0
    assert [record.getMessage()[: len(told)] for record in caplog.records if record.levelname == "WARNING"] == [told]
    assert "sts-dev-output.csv" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["evaluate", "predict", "submission"])
def test_a_run_whose_config_was_emptied_is_named(
    command: str, mixed_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(mixed_run, tmp_path / "run"))
    (folder / "config.toml").write_text("")
    assert main([command, str(folder)]) == 2
    assert "has no [[tasks]], which every run has" in capsys.readouterr().err


def test_nothing_is_said_while_a_run_is_loaded(mixed_run: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In a notebook, what orbax logs would stand above every answer."""
    with caplog.at_level("INFO"):
        mt.load_run(mixed_run).model.predict("sst", ["the film was good ."])
    assert [record.getMessage() for record in caplog.records if record.levelname not in ("DEBUG", "INFO")] == []
