"""A plugin's metrics and methods are called once before any step, and what is wrong with one is said in one line."""

import abc
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mtbert_jax as mt
from mtbert_jax.checks import check_config
from mtbert_jax.cli.main import main
from mtbert_jax.config import Config, TaskConfig, save_config
from mtbert_jax.errors import InputError
from mtbert_jax.tasks import KINDS, averages
from mtbert_jax.tasks.binary import Binary
from mtbert_jax.tasks.methods import check_methods, check_methods_again
from mtbert_jax.tasks.metrics import ACCURACY
from tests.plugins import forgetting

PARA = TaskConfig("para", "binary")
TAGS = TaskConfig("ner", "tokens", ("text",), "tags", classes=("PER",))
PAIRS = TaskConfig("pairs", "contrastive")


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    with forgetting():
        yield


def refusal(task: TaskConfig) -> str:
    with pytest.raises(InputError) as caught:
        check_methods(task)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda p, y: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda p, y: p == y, "returns shape (2,) for predictions of shape (2,); it must return one number"),
        (
            lambda p, y: (p == y).mean(),
            "returns shape () for predictions of shape (3, 2); it must return an array of shape (3,), a number for "
            "each set of examples",
        ),
        (lambda p, y: sum(p == y) / len(p), "returns shape (2,) for predictions of shape (3, 2)"),
        (lambda p, y: float(p[0]), "TypeError: "),
        (lambda p, y: None, "returns None for predictions of shape (2,)"),
        (lambda p, y: "good", "returns 'good' for predictions of shape (2,)"),
        (lambda p, y: [[1.0], [1.0, 2.0]], "ValueError: setting an array element with a sequence"),
        (lambda p: 1.0, "TypeError: "),
        (lambda p, y: np.add(y, 1, out=y).mean(-1), "ValueError: output array is read-only"),
    ],
)
def test_a_metric_that_is_no_score_of_many_sets_is_refused(function: Any, message: str) -> None:
    mt.register_metric("hits", ["binary"])(function)
    assert refusal(PARA).removeprefix("metric 'hits': ").removeprefix("metric 'hits' ").startswith(message)


@pytest.mark.parametrize(
    ("to_unit", "message"),
    [
        (lambda value: value.mean(), "metric 'hits': to_unit: AttributeError"),
        (float, "metric 'hits': to_unit: TypeError"),
        (np.mean, "metric 'hits' returns shape () by to_unit for scores of shape (3,); it must"),
        (lambda value: None, "metric 'hits' returns None by to_unit for scores of shape (); it must return one number"),
    ],
)
def test_a_map_onto_the_unit_interval_that_is_none_is_refused(to_unit: Any, message: str) -> None:
    mt.register_metric("hits", ["binary"], to_unit=to_unit)(lambda p, y: (p == y).mean(-1))
    assert refusal(PARA).startswith(message)


@pytest.mark.parametrize(("best", "to_unit"), [("min", lambda e: e / 10), ("max", lambda score: 1 - score)])
def test_a_map_that_turns_better_and_worse_round_is_refused(best: Any, to_unit: Any) -> None:
    """The average would choose the worst checkpoint as the best."""
    mt.register_metric("hits", ["binary"], best=best, to_unit=to_unit)(lambda p, y: (p == y).mean(-1))
    assert refusal(PARA).startswith("metric 'hits': to_unit makes ")


def test_an_error_without_a_map_enters_averages_as_errors_do() -> None:
    mt.register_metric("misses", ["binary"], best="min")(lambda p, y: (p != y).mean(-1))
    check_methods(PARA)
    task = dataclasses.replace(PARA, metric="misses")
    assert averages({"para": {"misses": 0.25}}, [task]) == {"average": 0.8, "plain_average": 0.8}


def test_metrics_see_labels_as_their_kind_has_them() -> None:
    """Tags of words, vectors of two texts; and a score that is undefined is a score."""
    seen = []

    def shape(p: Any, y: Any) -> Any:
        seen.append(p.shape)
        return np.full(p.shape[:-2], np.nan)

    mt.register_metric("shape", ["tokens"])(shape)
    check_methods(TAGS)
    assert seen == [(2, 3), (3, 2, 3)]
    mt.register_metric("shape", ["contrastive"])(lambda p, y: shape(p, y).mean(-1))
    check_methods(PAIRS)
    assert seen[2:] == [(2, 2, 2), (3, 2, 2, 2)]


def test_a_metric_that_comes_later_is_called_too() -> None:
    check_methods(PARA)
    mt.register_metric("hits", ["binary"])(lambda p, y: p == y)
    assert "metric 'hits'" in refusal(PARA)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": (len,)}, "metrics must be a tuple of mt.Metric"),
        ({"metrics": [ACCURACY]}, "metrics must be a tuple of mt.Metric"),
        ({"decision": "largest"}, "decision = 'largest' is none of argmax, sign, value, signs, count, tags"),
        ({"reads": "words"}, "reads = 'words' is none of vector, tokens, masked, texts"),
        ({"loss": abc.abstractmethod(lambda self: None)}, "the class lacks loss"),
    ],
)
def test_a_kind_that_cannot_work_is_not_registered(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^task kind 'new' cannot be registered: {message}$"):
        mt.register_kind("new")(type("New", (Binary,), changes))
    assert "new" not in KINDS


@pytest.mark.parametrize(
    ("name", "returned", "message"),
    [
        ("check", ZeroDivisionError("odd"), "check: ZeroDivisionError: odd"),
        ("num_outputs", "3", "num_outputs returns '3'; it must be a whole number of at least 0"),
        ("num_outputs", None, "num_outputs returns None; it must be a whole number"),
        ("classes", "01", "classes returns '01'; it must be a tuple of strings"),
        ("classes", (0, 1), "classes returns a list; it must be a tuple of strings"),
        ("classes", KeyError("odd"), "classes: KeyError: 'odd'"),
        ("label_shape", 3, "label_shape returns 3; it must be a tuple of whole numbers"),
        ("expected", None, "expected returns None; it must be a string"),
        ("reads_label", SystemExit(0), "reads_label: SystemExit: 0"),
    ],
)
def test_what_a_kind_says_of_a_task_is_checked_with_the_config(name: str, returned: Any, message: str) -> None:
    task = of_kind(**{name: returned})
    with pytest.raises(InputError) as caught:
        check_config(Config(tasks=(task,)))
    assert str(caught.value).startswith(f"tasks[0] (own): kind 'own': {message}")
    assert refusal(task).startswith(f"kind 'own': {message}")


@pytest.mark.parametrize(
    ("name", "returned", "message"),
    [
        ("describe", KeyError("odd"), "describe: KeyError: 'odd'"),
        ("describe", np.int64(1), "describe returns np.int64(1); it must be what JSON can hold, such as a string"),
        ("format", 1.0, "format returns 1.0; it must be a string"),
        ("format", TypeError("odd"), "format: TypeError: odd"),
        ("errors", np.zeros((2, 2)), "errors returns shape (2, 2) for 2 examples; it must be (2,)"),
        ("predict", np.array(["a", "b"]), "predict: ValueError: could not convert string to float"),
    ],
)
def test_what_files_and_reports_ask_of_a_kind_is_called_before_any_step(name: str, returned: Any, message: str) -> None:
    assert refusal(of_kind(**{name: returned})).startswith(f"kind 'own': {message}")


def test_a_plugins_kind_is_checked_again_where_a_run_is_read() -> None:
    with pytest.raises(InputError, match="^kind 'own': format returns 1.0"):
        check_methods_again(of_kind(format=1.0))
    mt.register_metric("hits", ["binary"])(lambda p, y: 1 / 0)
    check_methods_again(PARA)  # its kind is the library's, and the metric is named where it is asked


def of_kind(**methods: Any) -> TaskConfig:
    """A task of a kind of its own, whose methods return what is given, or raise it."""

    def method(returned: Any) -> Any:
        def own(self: Any, *_: Any) -> Any:
            if isinstance(returned, BaseException):
                raise returned
            return returned

        return own

    body = {name: method(returned) for name, returned in methods.items()}
    mt.register_kind("own")(type("Own", (Binary,), {**body, "__module__": __name__}))
    return TaskConfig("own", "own", label="y", train="a.tsv")


def test_what_is_no_kind_is_not_registered() -> None:
    with pytest.raises(InputError, match=r"^task kind 'new' cannot be registered: it must be a class that extends mt"):
        mt.register_kind("new")(type("New", (), {"metrics": (), "decision": "sign"}))


def test_a_plugins_metric_is_refused_before_the_first_step(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_config(config, tmp_path / "tiny.toml")
    code = "import mtbert_jax as mt\n\n\n@mt.register_metric('hits', ['binary'])\ndef hits(p, y):\n    return p == y\n"
    (tmp_path / "hits.py").write_text(code)
    assert main(["train", str(tmp_path / "tiny.toml"), "--plugins", str(tmp_path / "hits.py")]) == 2
    assert capsys.readouterr().err.startswith("mtbert: metric 'hits' returns shape (2,)")
    assert not Path(config.out).exists()
