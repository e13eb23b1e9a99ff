"""Labels of words: alignment, scores by seqeval's definition, losses and divergences over labelled words alone."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbert_jax.config import TaskConfig
from mtbert_jax.errors import InputError
from mtbert_jax.regularizers.base import GroupTask
from mtbert_jax.tasks import KINDS, kind_of
from mtbert_jax.tasks.arrays import predictions, stack_labels
from mtbert_jax.tasks.kind import LOWEST
from mtbert_jax.tasks.methods import check_methods

NER = TaskConfig("ner", "tokens", text=("words",), classes=("PER", "LOC"))
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
RNG = np.random.default_rng(0)


def spans(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """seqeval's `get_entities` of its default mode, by the rules of conlleval: type, first and last word of each."""
    found, begin, kind = set(), None, ""
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, own = tag.partition("-")
        goes_on = begin is not None and prefix == "I" and own == kind
        if begin is not None and not goes_on:
            found.add((kind, begin, place - 1))
            begin = None
        if begin is None and prefix in ("B", "I"):
            begin, kind = place, own
    return found


def literal_f1(said: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]) -> float:
    hits = sum(len(spans(a) & spans(b)) for a, b in zip(said, gold, strict=True))
    total = sum(len(spans(tags)) for tags in (*said, *gold))
    return 2 * hits / total if total else 0.0


def drawn() -> list[list[str]]:
    return [[TAGS[place] for place in RNG.integers(0, 5, RNG.integers(1, 9))] for _ in range(6)]


def like(rows: list[list[str]]) -> list[list[str]]:
    """Other tags for the same words, most of them the same."""
    return [[tag if RNG.random() < 0.7 else TAGS[RNG.integers(5)] for tag in row] for row in rows]


def as_array(rows: Sequence[Sequence[str]]) -> np.ndarray:
    return stack_labels(NER, [kind_of(NER).parse(NER, " ".join(row)) for row in rows])


def test_methods_have_the_shapes_of_the_protocol() -> None:
    kind_of(NER).check(NER)
    check_methods(NER)
    assert kind_of(NER).classes(NER) == TAGS


def test_f1_and_accuracy_are_seqevals_definition_also_of_resamples() -> None:
    f1, accuracy = kind_of(NER).metrics
    for _ in range(30):
        gold = drawn()
        said = [like(gold) for _ in range(3)]
        predicted = np.stack([as_array(rows) for rows in said])
        found = f1.of_resamples(predicted, as_array(gold))
        np.testing.assert_allclose(found, [literal_f1(rows, gold) for rows in said])
        shares = [
            np.mean([a == b for one, other in zip(rows, gold, strict=True) for a, b in zip(one, other, strict=True)])
            for rows in said
        ]
        np.testing.assert_allclose(accuracy.of_resamples(predicted, as_array(gold)), shares)
        assert f1(as_array(gold), as_array(gold)) == float(literal_f1(gold, gold))


def test_f1_is_that_of_seqeval() -> None:
    seqeval = pytest.importorskip("seqeval.metrics")
    for _ in range(30):
        gold = drawn()
        said = like(gold)
        assert kind_of(NER).metrics[0](as_array(said), as_array(gold)) == pytest.approx(seqeval.f1_score(gold, said))
        assert kind_of(NER).metrics[1](as_array(said), as_array(gold)) == pytest.approx(
            seqeval.accuracy_score(gold, said)
        )


@pytest.mark.parametrize(
    ("said", "gold", "f1"),
    [
        ("B-PER I-PER O", "B-PER I-PER O", 1.0),
        ("B-PER O O", "B-PER I-PER O", 0.0),  # the end differs
        ("B-PER B-PER O", "B-PER I-PER O", 0.0),
        ("I-PER I-PER O", "B-PER I-PER O", 1.0),  # as conlleval reads it
        ("B-PER I-LOC O", "B-PER O B-LOC", 0.5),
        ("O O O", "O O O", 0.0),
    ],
)
def test_spans_by_hand(said: str, gold: str, f1: float) -> None:
    assert kind_of(NER).metrics[0](as_array([said.split()]), as_array([gold.split()])) == f1


def test_a_prediction_is_written_and_read_back() -> None:
    kind = kind_of(NER)
    logits = np.full((2, 3, 5), LOWEST, np.float32)
    logits[0] = np.eye(5)[[0, 3, 4]]
    logits[1, :2] = np.eye(5)[[1, 2]]
    found = predictions(NER, logits)
    assert found.tolist() == [[0, 3, 4], [1, 2, -1]]
    assert [kind.format(NER, row) for row in found] == ["O B-LOC I-LOC", "B-PER I-PER"]
    again = stack_labels(NER, [kind.read(NER, kind.format(NER, row)) for row in found])
    assert again.tolist() == found.tolist()
    assert kind.read(NER, "").tolist() == []
    assert kind.errors(found, np.array([[0.0, 3, 0], [1, 0, -1]])).tolist() == [1, 1]


@pytest.mark.parametrize("text", ["", "B-PER B-ORG", "PER", '["O", 1]', "[" * 10**5])
def test_what_is_no_list_of_tags_is_no_label(text: str) -> None:
    with pytest.raises(ValueError):
        kind_of(NER).parse(NER, text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ()}, "needs the types"),
        ({"classes": ("B-PER",)}, "without B-, I- and O"),
        ({"classes": ("O",)}, "without B-, I- and O"),
        ({"classes": ("a b",)}, "without B-, I- and O"),
        ({"text": ("a", "b")}, "reads one column"),
        ({"num_classes": 2}, "do not belong"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind_of(NER).check(TaskConfig(**{**vars(NER), **changes}))


def test_losses_and_divergences_are_means_over_labelled_words() -> None:
    logits, other = RNG.normal(size=(2, 3, 4, 5)).astype(np.float32)
    labels = np.array([[0, 3, -1, -1], [4, 1, 0, 2], [-1, -1, -1, -1]], np.float32)
    task = GroupTask((NER,), jnp.int32(0), jnp.asarray(labels) >= 0)
    log_p, log_q = (x - np.log(np.exp(x.astype(float)).sum(-1, keepdims=True)) for x in (logits, other))
    losses = [
        np.mean([-log_p[row, place, int(labels[row, place])] for place in range(n)]) for row, n in ((0, 2), (1, 4))
    ]
    np.testing.assert_allclose(task.loss(jnp.asarray(logits), jnp.asarray(labels)), [*losses, 0.0], rtol=1e-5)
    kl = ((np.exp(log_p) - np.exp(log_q)) * (log_p - log_q)).sum(-1)
    found = task.divergence(jnp.asarray(logits), jnp.asarray(other))
    np.testing.assert_allclose(found, [kl[0, :2].mean(), kl[1].mean(), 0.0], rtol=1e-4)
    batch = task.batch_loss(jnp.asarray(logits), jnp.asarray(labels), jnp.array([1.0, 3.0, 0.0]))
    assert float(batch) == pytest.approx((losses[0] + 3 * losses[1]) / 4, rel=1e-5)
    grads = jax.grad(lambda x: jnp.sum(task.loss(x, jnp.asarray(labels))))(jnp.asarray(logits))
    touched = np.abs(np.asarray(grads)).sum(-1) > 0
    assert touched.tolist() == (labels >= 0).tolist()


def test_every_pair_of_tags_is_told_apart() -> None:
    """All texts of three words: the array form and the literal one agree."""
    rows = [list(tags) for tags in itertools.product(TAGS, repeat=3)]
    gold = [rows[(7 * number) % len(rows)] for number in range(len(rows))]
    for said, own in zip(rows, gold, strict=True):
        assert kind_of(NER).metrics[0](as_array([said]), as_array([own])) == literal_f1([said], [own])
    assert KINDS["tokens"].metrics[0].name == "f1"
