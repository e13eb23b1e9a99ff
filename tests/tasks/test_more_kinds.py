"""Multi-label, distributions as labels, and ranking, against literal formulas and scikit-learn."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import entropy, spearmanr
from sklearn.metrics import f1_score, log_loss

from mtbert_jax.config import TaskConfig
from mtbert_jax.errors import InputError
from mtbert_jax.tasks import KINDS, kind_of
from mtbert_jax.tasks.methods import check_methods

RNG = np.random.default_rng(0)
TOPICS = TaskConfig("topics", "multilabel", classes=("sport", "politics", "music"))
SOFT = TaskConfig("soft", "distribution", classes=("bad", "so so", "good"))
ORDER = TaskConfig("order", "ranking")
TASKS = {task.name: task for task in (TOPICS, SOFT, ORDER)}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x.astype(np.float64)))


@pytest.mark.parametrize("name", TASKS)
def test_methods_have_the_shapes_of_the_protocol(name: str) -> None:
    kind_of(TASKS[name]).check(TASKS[name])
    check_methods(TASKS[name])


# multilabel


def test_multilabel_loss_and_divergence_are_their_formulas() -> None:
    one, other = RNG.normal(size=(2, 4, 3)).astype(np.float32) * 3
    labels = RNG.integers(0, 2, (4, 3)).astype(np.float32)
    kind, (p, q) = KINDS["multilabel"], (sigmoid(one), sigmoid(other))
    cross = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean(1)
    np.testing.assert_allclose(kind.loss(jnp.array(one), jnp.array(labels)), cross, rtol=1e-5)
    pairs = [np.stack([x, 1 - x], axis=-1) for x in (p, q)]
    forth, back = entropy(*pairs, axis=-1).sum(1), entropy(*pairs[::-1], axis=-1).sum(1)
    np.testing.assert_allclose(kind.divergence(jnp.array(one), jnp.array(other)), forth + back, rtol=1e-4)
    np.testing.assert_allclose(kind.one_sided(jnp.array(other), jnp.array(one)), forth, rtol=1e-4)
    np.testing.assert_allclose(kind.probabilities(jnp.array(one)), p, rtol=1e-5)


def test_multilabel_f1_is_scikit_learns_also_of_resamples() -> None:
    for metric, average in zip(KINDS["multilabel"].metrics, ("micro", "macro"), strict=True):
        predictions, labels = (RNG.integers(0, 2, (5, 9, 3)).astype(float) for _ in range(2))
        labels[:2, :, 1] = predictions[:2, :, 1] = 0  # a class that neither side holds
        expected = [
            f1_score(y, x, average=average, zero_division=0.0) for x, y in zip(predictions, labels, strict=True)
        ]
        np.testing.assert_allclose(metric.of_resamples(predictions, labels), expected)
        assert metric(predictions[0], labels[0]) == pytest.approx(expected[0])
        assert metric(np.zeros((4, 3)), np.zeros((4, 3))) == 0


@pytest.mark.parametrize(
    ("text", "label"),
    [("sport|music", [1, 0, 1]), ("", [0, 0, 0]), ("politics", [0, 1, 0]), ('["music", "sport"]', [1, 0, 1])],
)
def test_a_label_names_any_number_of_classes(text: str, label: list[int]) -> None:
    kind = kind_of(TOPICS)
    parsed = kind.parse(TOPICS, text)
    assert parsed.tolist() == label
    assert kind.read(TOPICS, kind.format(TOPICS, parsed)).tolist() == label


@pytest.mark.parametrize("text", ["chess", "sport|chess", '["sport", 1]', "[" * 10**5, "[", "|"])
def test_what_names_another_class_is_no_label(text: str) -> None:
    with pytest.raises(ValueError):
        kind_of(TOPICS).parse(TOPICS, text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ()}, "needs the names"),
        ({"classes": ("a|b", "c")}, r"'a\|b' can be no name"),
        ({"classes": ("a", "a")}, "each may stand there once"),
        ({"classes": ("a", "")}, "'' is the name of no label"),
        ({"num_classes": 3}, "do not belong"),
    ],
)
def test_classes_of_a_multilabel_task_are_checked(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind_of(TOPICS).check(TaskConfig("topics", "multilabel", **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", " ", "b ", "\tb"])
@pytest.mark.parametrize("kind", ["classification", "distribution", "multilabel", "tokens"])
def test_a_class_has_a_name_that_a_label_can_have(kind: str, name: str) -> None:
    with pytest.raises(InputError, match=f"classes: {name!r}".replace("\\", "\\\\")):
        task = TaskConfig("t", kind, classes=("a", name))
        kind_of(task).check(task)


def test_yes_and_no_are_two_classes_with_names() -> None:
    task = TaskConfig("t", "binary", classes=("no", "yes"))
    with pytest.raises(InputError, match='kind = "classification" has classes by name'):
        kind_of(task).check(task)


# distribution


def test_a_distribution_that_is_one_class_has_the_loss_of_that_class() -> None:
    logits, labels = RNG.normal(size=(6, 3)).astype(np.float32), np.array([0.0, 1, 2, 2, 1, 0])
    found = KINDS["distribution"].loss(jnp.array(logits), jnp.eye(3)[labels.astype(int)])
    np.testing.assert_allclose(found, KINDS["classification"].loss(jnp.array(logits), jnp.array(labels)), rtol=1e-6)


def test_the_loss_of_a_distribution_is_the_cross_entropy_against_it() -> None:
    logits, labels = RNG.normal(size=(6, 3)) * 4, RNG.dirichlet(np.ones(3), 6)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = -(labels * log_p).sum(1)
    np.testing.assert_allclose(KINDS["distribution"].loss(jnp.array(logits), jnp.array(labels)), expected, rtol=1e-5)
    predicted = KINDS["distribution"].predict(logits)
    np.testing.assert_allclose(predicted, np.exp(log_p), rtol=1e-6)
    accuracy, f1, cross = (metric(predicted, labels) for metric in KINDS["distribution"].metrics)
    said, gold = predicted.argmax(1), labels.argmax(1)
    assert accuracy == np.mean(said == gold)
    assert f1 == pytest.approx(f1_score(gold, said, average="macro"))
    assert cross == pytest.approx(expected.mean(), rel=1e-6)
    hard = np.eye(3)[gold]
    assert KINDS["distribution"].metrics[2](predicted, hard) == pytest.approx(
        log_loss(gold, predicted, labels=[0, 1, 2]), rel=1e-6
    )


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("0.1|0.2|0.7", [0.1, 0.2, 0.7]),
        ("[0.5, 0.5, 0]", [0.5, 0.5, 0]),
        ("so so", [0, 1, 0]),
        ("0.3333|0.3333|0.3333", [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_a_label_is_probabilities_or_a_class(text: str, label: list[float]) -> None:
    np.testing.assert_allclose(kind_of(SOFT).parse(SOFT, text), label, atol=1e-12)


@pytest.mark.parametrize(
    "text", ["0.1|0.2", "0.5|0.5|0.5", "-0.5|0.5|1", "nan|0.5|0.5", "[0.5, 0.5, true]", "[[1], 0, 0]", "fine", "["]
)
def test_what_is_no_distribution_is_no_label(text: str) -> None:
    with pytest.raises(ValueError):
        kind_of(SOFT).parse(SOFT, text)


def test_a_distribution_is_read_as_it_was_written() -> None:
    predicted = KINDS["distribution"].predict(RNG.normal(size=(20, 3)).astype(np.float32) * 9)
    for row in predicted:
        again = kind_of(SOFT).read(SOFT, kind_of(SOFT).format(SOFT, row))
        np.testing.assert_allclose(again, row, rtol=1e-6)
        assert np.argmax(again) == np.argmax(row)


# ranking


def literal_cosent(scores: np.ndarray, labels: np.ndarray) -> float:
    pairs = itertools.permutations(range(len(scores)), 2)
    return math.log(1 + sum(math.exp(20 * (scores[i] - scores[j])) for i, j in pairs if labels[i] < labels[j]))


def test_cosent_is_its_literal_formula() -> None:
    for _ in range(5):
        scores, labels = RNG.uniform(-1, 1, 7), RNG.integers(0, 4, 7).astype(float)
        found = KINDS["ranking"].batch_loss(jnp.array(scores[:, None]), jnp.array(labels), jnp.ones(7))
        assert float(found) == pytest.approx(literal_cosent(scores, labels), rel=1e-5)
        of_each = KINDS["ranking"].loss(jnp.array(scores[:, None]), jnp.array(labels))
        terms = [
            sum(
                math.exp(20 * (scores[i] - scores[j])) * (labels[i] < labels[j])
                + math.exp(20 * (scores[j] - scores[i])) * (labels[j] < labels[i])
                for j in range(7)
            )
            for i in range(7)
        ]
        np.testing.assert_allclose(of_each, np.log1p(terms), rtol=1e-4)


def test_fillers_are_in_no_pair_and_get_no_gradient() -> None:
    scores, labels = jnp.array([[0.3], [0.1], [9.0], [-9.0]]), jnp.array([0.0, 1.0, 0.0, 0.0])
    weights = jnp.array([1.0, 1.0, 0.0, 0.0])
    loss, grads = jax.value_and_grad(KINDS["ranking"].batch_loss)(scores, labels, weights)
    assert float(loss) == pytest.approx(literal_cosent(np.array([0.3, 0.1]), np.array([0.0, 1.0])), rel=1e-6)
    assert grads[2:].tolist() == [[0.0], [0.0]]
    assert float(grads[0, 0]) == -float(grads[1, 0]) > 0


def test_a_batch_without_two_labels_has_no_loss_and_a_finite_gradient() -> None:
    for rows in (1, 3):
        loss, grads = jax.value_and_grad(KINDS["ranking"].batch_loss)(
            jnp.ones((rows, 1)), jnp.ones(rows), jnp.ones(rows)
        )
        assert float(loss) == 0
        assert grads.tolist() == [[0.0]] * rows


def test_extreme_scores_have_a_finite_loss() -> None:
    loss, grads = jax.value_and_grad(KINDS["ranking"].batch_loss)(
        jnp.array([[500.0], [-500.0]]), jnp.array([0.0, 1.0]), jnp.ones(2)
    )
    assert float(loss) == 20_000
    assert np.isfinite(grads).all()


def test_a_ranking_is_scored_by_spearman_first() -> None:
    predictions, labels = RNG.normal(size=20), RNG.normal(size=20)
    metric = KINDS["ranking"].metrics[0]
    assert metric.name == "spearman"
    assert metric(predictions, labels) == pytest.approx(spearmanr(predictions, labels).statistic)
    assert KINDS["ranking"].errors(np.array([9.0, 1.0, 5.0]), np.array([1.0, 2.0, 3.0])).tolist() == [2.0, 1.0, 1.0]


def test_a_label_range_would_say_nothing_of_scores() -> None:
    with pytest.raises(InputError, match="label_range"):
        kind_of(ORDER).check(TaskConfig("order", "ranking", label_range=(0.0, 5.0)))
