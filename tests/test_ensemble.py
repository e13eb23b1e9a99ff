"""Several runs that predict together: everywhere the mean of what each of them says by itself."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import mtbert_jax as mt
from mtbert_jax.cli.main import main
from mtbert_jax.config import TaskConfig
from mtbert_jax.config.schema import from_dict
from mtbert_jax.data.predictions import read_predictions
from mtbert_jax.inference import MultitaskModel
from mtbert_jax.tasks import kind_of, task_scores
from tests.conftest import TINY, VOCAB, replace_task, save_encoder, tiny_run
from tests.fuzz.test_valid_configs import room
from tests.fuzz.valid_configs import FILES, TEXTS
from tests.runs import checkpointed

__all__ = ["room"]  # a fixture
PAIR = ("the film was good .", "a bad book")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, small_encoder_dir: Path, data_dir: Path) -> tuple[Path, Path]:
    """Two runs of `sst` and `para`, of other encoders, vocabularies and limits; the first one has `sts` besides."""
    place = tmp_path_factory.mktemp("ensemble")
    (place / "encoder").mkdir()
    save_encoder(place / "encoder", dataclasses.replace(TINY, num_hidden_layers=1, hidden_size=8))
    words = [*VOCAB[:5], *(word for word in reversed(VOCAB[5:]) if word not in ("film", "good"))]
    (place / "encoder" / "tokenizer.json").unlink()
    (place / "encoder" / "vocab.txt").write_text("\n".join(words) + "\n")
    one = tiny_run(small_encoder_dir, data_dir, place)
    other = dataclasses.replace(
        one, encoder=str(place / "encoder"), out=str(place / "other"), max_length=12, lengths=(12,), seed=1
    )
    other = dataclasses.replace(other, tasks=other.tasks[1::-1])
    return checkpointed(one).path, checkpointed(replace_task(other, "para", both_orders=True)).path


def own_logits(runs: tuple[Path, Path]) -> list[dict[str, np.ndarray]]:
    """What each run says by itself of the dev files."""
    return [MultitaskModel.from_checkpoint(run).evaluate("dev", labels=False)[2] for run in runs]


def test_logits_and_scores_are_those_of_the_mean(runs: tuple[Path, Path]) -> None:
    ensemble, (one, other) = mt.Ensemble.from_checkpoints(runs), own_logits(runs)
    scores, datasets, logits = ensemble.evaluate("dev")
    assert [*logits] == ["sst", "para", "sts"]
    for name in ("sst", "para"):
        assert np.abs(one[name] - other[name]).max() > 0.02
        np.testing.assert_allclose(logits[name], (one[name] + other[name]) / 2, rtol=1e-4, atol=1e-5)
        predicted = kind_of(ensemble.tasks[name]).predict(logits[name])
        assert scores[name] == task_scores(ensemble.tasks[name], predicted, datasets[name].labels)
    np.testing.assert_array_equal(logits["sts"], one["sts"])
    assert scores["average"] == pytest.approx(
        (scores["sst"]["accuracy"] + scores["para"]["accuracy"] + (scores["sts"]["pearson"] + 1) / 2) / 3
    )


def test_a_run_beside_itself_says_what_it_says_alone(runs: tuple[Path, Path]) -> None:
    model = MultitaskModel.from_checkpoint(runs[0])
    wanted = model.evaluate("dev")
    found = mt.Ensemble([model, model, model]).evaluate("dev")
    assert found[0] == wanted[0]
    for name, logits in wanted[2].items():
        np.testing.assert_allclose(found[2][name], logits, rtol=1e-6)


def test_own_texts_are_predicted_as_a_data_file_is(runs: tuple[Path, Path]) -> None:
    ensemble = mt.Ensemble.from_checkpoints(runs)
    _, datasets, logits = ensemble.evaluate("dev")
    for name in ("sst", "para", "sts"):
        texts: Any = datasets[name].texts if name != "sst" else [text for (text,) in datasets[name].texts]
        wanted = ensemble.describe(name, logits[name])
        for said, own in zip(ensemble.predict(name, texts), wanted, strict=True):
            assert said.probabilities == pytest.approx(own.probabilities, abs=1e-5)
            assert said.label == pytest.approx(own.label, abs=1e-5)
    rows = ensemble.soft_labels("sst")
    shares = ensemble.describe("sst", ensemble.evaluate("train")[2]["sst"])
    np.testing.assert_allclose(
        [row["sentiment"] for row in rows], [[*said.probabilities.values()] for said in shares], atol=1e-5
    )


def test_both_orders_are_of_the_models_that_have_the_task(runs: tuple[Path, Path]) -> None:
    ensemble = mt.Ensemble.from_checkpoints(runs)
    told = ensemble.with_both_orders(["para", "sts"])
    assert [[task.both_orders for task in model.tasks.values()] for model in told.models] == [
        [False, True, True],
        [True, False],
    ]
    one, other = (told.predict("sts", [pair])[0].label for pair in (PAIR, PAIR[::-1]))
    assert one == pytest.approx(other, abs=1e-5)
    one, other = (ensemble.predict("sts", [pair])[0].label for pair in (PAIR, PAIR[::-1]))
    assert one != pytest.approx(other, abs=1e-3)
    with pytest.raises(mt.InputError, match="no task 'stss' in this run; did you mean 'sts'"):
        ensemble.with_both_orders(["stss"])


def test_texts_that_some_model_cuts_off_are_counted(runs: tuple[Path, Path]) -> None:
    ensemble = mt.Ensemble.from_checkpoints(runs)
    lengths = [model.task("sst").max_length for model in ensemble.models]
    texts = [("film " * words,) for words in (3, *(length - 1 for length in lengths))]
    assert lengths[0] > lengths[1]
    assert [model.cut_off("sst", texts) for model in ensemble.models] == [1, 2]
    assert ensemble.cut_off("sst", texts) == 2
    assert [model.cut_off("para", [("film", "film " * 20)]) for model in ensemble.models] == [0, 1]


def test_every_kind_that_predicts_labels_has_a_mean(room: Path, tmp_path: Path) -> None:
    """Words that are no words in one example, and are in another, besides."""
    names = ("mood", "stars", "tags", "soft", "order", "names", "text", "near")
    files = [dict(zip(("train", "dev", "test"), FILES[name], strict=True)) for name in names]
    tasks = tuple(
        from_dict(TaskConfig, {"name": name, **TEXTS[name], **own}, name)
        for name, own in zip(names, files, strict=True)
    )
    base = tiny_run(room / "encoder", room / "data", tmp_path)
    paths = tuple(
        checkpointed(dataclasses.replace(base, tasks=tasks, max_length=limit, out=str(tmp_path / str(limit)))).path
        for limit in (48, 40)
    )
    changed = MultitaskModel.from_checkpoint(paths[1])
    params = {**changed.params, "heads": jax.tree.map(lambda leaf: 2 * leaf, changed.params["heads"])}
    models = [MultitaskModel.from_checkpoint(paths[0]), dataclasses.replace(changed, params=params)]
    scores, _, logits = mt.Ensemble(models).evaluate("dev")
    assert [*logits] == [name for name in names if name not in ("text", "near")]
    assert set(scores) == {*logits, "average", "plain_average"}
    for name, found in logits.items():
        one, other = (model.evaluate("dev")[2][name].astype(np.float64) for model in models)
        assert np.abs(one - other).max() > 1e-2
        np.testing.assert_allclose(found, (one + other) / 2, rtol=1e-4, atol=1e-4)
    assert np.isfinite(logits["names"]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 2}, "its number of outputs is 5 in model 1 and 2 in model 2"),
        ({"kind": "regression", "num_classes": 0}, "its kind is 'classification' in model 1 and 'regression' in"),
        ({"classes": tuple("012a4"), "num_classes": 0}, "its class 3 is '3' in model 1 and 'a' in model 2"),
    ],
)
def test_models_that_answer_other_questions_are_refused(
    runs: tuple[Path, Path], changes: dict[str, Any], message: str
) -> None:
    one = MultitaskModel.from_checkpoint(runs[0])
    config = replace_task(one.setup.config, "sst", **changes)
    other = dataclasses.replace(one, setup=one.setup.with_config(config))
    with pytest.raises(mt.InputError) as error:
        mt.Ensemble([one, other])
    assert str(error.value).startswith("task sst is not the same in all models: ")
    assert message in str(error.value)


def test_what_is_no_list_of_models_is_refused(runs: tuple[Path, Path]) -> None:
    model = MultitaskModel.from_checkpoint(runs[0])
    for models in (3, [3], model, [mt.load_run(runs[0])], [str(runs[0])], [mt.Ensemble([model])]):
        with pytest.raises(mt.InputError, match="^an ensemble takes a list of models, each of one run"):
            mt.Ensemble(models)  # type: ignore[arg-type]
    for one in (runs[0], str(runs[0])):
        with pytest.raises(mt.InputError, match=r"^expected a list of run folders, got a single one: write \["):
            mt.Ensemble.from_checkpoints(one)  # type: ignore[arg-type]
    assert mt.Ensemble(model for model in [model]).models == (model,)  # type: ignore[arg-type]


def test_no_model_is_refused() -> None:
    with pytest.raises(mt.InputError, match="an ensemble needs at least one model"):
        mt.Ensemble([])
    with pytest.raises(mt.InputError, match="give one or more run folders"):
        mt.Ensemble.from_checkpoints([])


def test_the_commands_take_several_runs(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named, ensemble = [*map(str, runs)], mt.Ensemble.from_checkpoints(runs)
    wanted = ensemble.evaluate("dev")
    assert main(["evaluate", *named, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == wanted[0]
    assert main(["evaluate", "--split", "dev", *named]) == 0
    assert "dev, mean of 2 runs" in capsys.readouterr().out

    (tmp_path / "texts").write_text("\t".join(PAIR) + "\n")
    assert main(["predict", *named, "--task", "para", "--input", str(tmp_path / "texts")]) == 0
    (said,) = ensemble.predict("para", [PAIR])
    assert json.loads(capsys.readouterr().out)["probabilities"] == pytest.approx(said.probabilities)

    assert main(["predict", *named, "--output", str(tmp_path / "files")]) == 0
    assert main(["submission", *named, "--output", str(tmp_path / "hand-in")]) == 0
    assert "sts-dev-output.csv: 21 predictions, as they must be" in capsys.readouterr().out
    for folder in ("files", "hand-in"):
        for name, logits in wanted[2].items():
            ids, found = read_predictions(tmp_path / folder / f"{name}-dev-output.csv", ensemble.tasks[name])
            assert ids == wanted[1][name].ids
            own = kind_of(ensemble.tasks[name]).predict(logits)
            np.testing.assert_allclose(found, np.clip(own, 0, 5) if folder == "hand-in" else own, rtol=1e-6)
    for run in runs:
        assert not (run / "submission").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["predict", "ONE", "OTHER"], "no folder of predictions in common; name one with --output"),
        (["submission", "ONE", "OTHER"], "no folder of submission in common; name one with --output"),
        (["evaluate", "ONE", "OTHER", "ONE"], "is named twice, and would count twice; name it once"),
        (["evaluate"], "give one or more run folders"),
        (["predict", "--task", "sst"], "give one or more run folders"),
        (["evaluate", "ONE", "nowhere"], "nowhere is no run folder"),
    ],
)
def test_what_is_no_ensemble_is_refused_in_one_line(
    runs: tuple[Path, Path], command: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    named = {"ONE": str(runs[0]), "OTHER": str(runs[1])}
    assert main([named.get(word, word) for word in command]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_folder_of_seeds_is_the_ensemble_of_its_runs(
    small_encoder_dir: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_run(small_encoder_dir, data_dir, tmp_path)
    config = dataclasses.replace(config, tasks=config.tasks[:1])
    for seed in (2, 10):
        checkpointed(dataclasses.replace(config, seed=seed, out=str(tmp_path / "seeds" / f"seed{seed}")))
    seeds = mt.load_run(tmp_path / "seeds")
    assert isinstance(seeds, mt.SeedsOfRun)
    assert [*seeds.runs] == [2, 10]
    one, other = (run.model.evaluate("dev")[2]["sst"] for run in seeds.runs.values())
    scores, _, logits = seeds.model.evaluate("dev")
    np.testing.assert_allclose(logits["sst"], (one + other) / 2, rtol=1e-4, atol=1e-5)
    assert main(["evaluate", str(tmp_path / "seeds"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == scores
