"""PCGrad, sum and mean over the Gramian (docs/numerics.md, section 3)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtbert_jax.errors import InputError
from mtbert_jax.optim import aggregator, cagrad, dwa, mean_tasks, pcgrad, pcgrad_weights, smoothed, sum_tasks
from mtbert_jax.optim.aggregators import cosines, gramian, random_orders


def smooth(alpha: Any) -> Any:
    return smoothed(pcgrad(num_tasks=2), alpha)


def literal_pcgrad(gradients: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Yu et al. 2020, Algorithm 1, word for word, in float64: the sum of the projected gradients."""
    total = np.zeros(gradients.shape[1])
    for i, original in enumerate(gradients):
        running = original.copy()
        for j in order[i]:
            dot, square = running @ gradients[j], gradients[j] @ gradients[j]
            if dot < 0 and square > 0:
                running = running - dot / square * gradients[j]
        total += running
    return total


def orders(rng: np.random.Generator, tasks: int, include_self: bool = False) -> np.ndarray:
    return np.array([[j for j in rng.permutation(tasks) if include_self or j != i] for i in range(tasks)])


def angle(*degrees: float) -> np.ndarray:
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def random_case(seed: int) -> np.ndarray:
    """T = 2 … 8 gradients, with parallel, opposed, zero and huge ones among them."""
    rng = np.random.default_rng(seed)
    tasks = 2 + seed % 7
    gradients = rng.normal(size=(tasks, int(rng.integers(2, 12))))
    kind = seed % 6
    if kind == 1:
        gradients[1] = 3.0 * gradients[0]
    elif kind == 2:
        gradients[1] = -0.5 * gradients[0]
    elif kind == 3:
        gradients[rng.integers(tasks)] = 0.0
    elif kind == 4:
        gradients[rng.integers(tasks)] *= 1e8
    elif kind == 5:
        gradients *= rng.choice([1e-6, 1e6])
    return gradients.astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("include_self", [False, True])
def test_weights_equal_literal_algorithm_on_random_cases(include_self: bool) -> None:
    """docs/numerics.md, section 3: all stays in the span of the gradients, so weights on the Gramian suffice."""
    weights = jax.jit(lambda gradients, order: pcgrad_weights(gramian([gradients]), order))
    for seed in range(240):
        gradients = random_case(seed)
        order = orders(np.random.default_rng(seed), len(gradients), include_self)
        padded = np.zeros((len(gradients), 12), np.float32)  # compiled for seven numbers of tasks alone
        padded[:, : gradients.shape[1]] = gradients
        update = np.asarray(weights(padded, order), np.float64) @ gradients
        expected = literal_pcgrad(gradients, order)
        scale = np.abs(gradients).max() * len(gradients)
        np.testing.assert_allclose(update / scale, expected / scale, atol=1e-5, err_msg=f"case {seed}")


def test_golden_weights_of_two_conflicting_tasks() -> None:
    """docs/numerics.md, section 3, golden values: [[-4, 1, 1], [6, 1, 1]] → [2.2222, 1.5789]."""
    gram = gramian([jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])])
    weights = pcgrad_weights(gram, jnp.array([[1], [0]]))
    np.testing.assert_allclose(weights, [2.2222, 1.5789], atol=5e-5)


@pytest.mark.parametrize(
    ("order", "expected"), [([1, 2], (-0.125, 0.217)), ([1, 2, 0], (0.0, 0.217))], ids=["without itself", "with itself"]
)
def test_golden_projection_of_three_directions(order: list[int], expected: tuple[float, float]) -> None:
    """docs/numerics.md, section 3: gradients at 0°, 150° and 210°, task 0 meeting 1, 2 (and itself)."""
    gradients = angle(0, 150, 210)
    gram = jnp.asarray(gradients @ gradients.T, jnp.float32)
    rows = {0: order, 1: [1] * len(order), 2: [2] * len(order)}  # tasks 1 and 2 meet themselves only: no change
    weights = np.asarray(pcgrad_weights(gram, jnp.array([rows[0], rows[1], rows[2]])))
    projected = weights @ gradients - gradients[1] - gradients[2]
    np.testing.assert_allclose(projected, expected, atol=5e-4)


def test_one_task_is_the_identity() -> None:
    """docs/numerics.md, section 3: one task: identity."""
    grads = {"w": jnp.array([[1.0, -2.0]])}
    for tx in (pcgrad(), pcgrad("mean"), pcgrad(include_self=True), sum_tasks(), mean_tasks()):
        updates, _ = tx.update(grads, tx.init(None))
        np.testing.assert_array_equal(updates["w"], [1.0, -2.0])
    with jax.disable_jit():
        np.testing.assert_array_equal(pcgrad_weights([[5.0]], np.zeros((1, 0), int)), [1.0])


def test_without_conflict_weights_are_ones() -> None:
    """docs/numerics.md, section 3: no conflict: ones."""
    gradients = jnp.abs(jax.random.normal(jax.random.key(0), (5, 7)))
    order = random_orders(jax.random.key(1), 5, include_self=True)
    np.testing.assert_array_equal(pcgrad_weights(gramian([gradients]), order), jnp.ones(5))


def test_a_zero_gradient_is_never_projected_onto() -> None:
    """docs/numerics.md, section 3: tianheyu927's code gives NaN here."""
    grads = {"w": jnp.array([[1.0, 0.0], [0.0, 0.0], [-1.0, 1.0]])}
    tx = pcgrad()
    updates, _ = tx.update(grads, tx.init(None))
    np.testing.assert_allclose(updates["w"], [0.5 + 0.0, 0.5 + 1.0], atol=1e-6)


def test_projected_gradients_no_longer_conflict_for_two_tasks() -> None:
    for seed in range(20):
        g = jax.random.normal(jax.random.key(seed), (2, 6))
        weights = pcgrad_weights(gramian([g]), jnp.array([[1], [0]]))
        assert float((weights @ g) @ g[0]) >= -1e-5
        assert float((weights @ g) @ g[1]) >= -1e-5


def test_mean_is_the_sum_over_the_number_of_tasks() -> None:
    grads = {"w": jax.random.normal(jax.random.key(3), (4, 9))}
    total, _ = (tx := pcgrad("sum", seed=5)).update(grads, tx.init(None))
    mean, _ = (tx := pcgrad("mean", seed=5)).update(grads, tx.init(None))
    np.testing.assert_allclose(mean["w"], total["w"] / 4, rtol=1e-6)


def test_a_wrong_reduction_is_refused() -> None:
    with pytest.raises(ValueError, match="'sum' or 'mean'"):
        pcgrad(reduction="max")  # type: ignore[arg-type]


def test_sum_and_mean_of_tasks() -> None:
    grads = {"w": jnp.array([[1.0, 2.0], [3.0, -6.0]])}
    assert (tx := sum_tasks()).update(grads, tx.init(None))[0]["w"].tolist() == [4.0, -4.0]
    assert (tx := mean_tasks()).update(grads, tx.init(None))[0]["w"].tolist() == [2.0, -2.0]


def test_leaves_shaped_like_their_parameter_pass_untouched() -> None:
    """docs/numerics.md, section 3: surgery on the shared parameters, heads keep their own gradient."""
    params = {"encoder": jnp.zeros(2), "heads": {"a": jnp.zeros(3), "b": jnp.zeros(1)}}
    grads = {
        "encoder": jnp.array([[1.0, 0.0], [-1.0, 1.0]]),
        "heads": {"a": jnp.array([1.0, 2.0, 3.0]), "b": jnp.array([7.0])},
    }
    tx = pcgrad()
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_array_equal(updates["heads"]["a"], grads["heads"]["a"])
    np.testing.assert_array_equal(updates["heads"]["b"], grads["heads"]["b"])
    expected = literal_pcgrad(np.asarray(grads["encoder"], np.float64), np.array([[1], [0]]))
    np.testing.assert_allclose(updates["encoder"], expected, atol=1e-6)


def test_heads_have_no_part_in_the_norms() -> None:
    """The seed paper's code scales head j by 1 + Σ|c_ij|, since heads enter its norms; here they do not."""
    params = {"encoder": jnp.zeros(2), "head": jnp.zeros(2)}
    encoder = jnp.array([[1.0, 0.0], [-1.0, 1.0]])
    results = []
    for scale in (0.0, 1e4):
        grads = {"encoder": encoder, "head": jnp.full(2, scale)}
        tx = pcgrad()
        results.append(tx.update(grads, tx.init(params), params)[0]["encoder"])
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_task_that_is_not_finite_does_not_touch_the_others(bad: float) -> None:
    healthy = jnp.array([[1.0, 0.0, 2.0], [-1.0, 1.0, 0.0]])
    broken = jnp.concatenate([healthy, jnp.array([[bad, 1.0, 1.0]])])
    for make in (pcgrad, sum_tasks):
        tx = make()
        expected = tx.update({"w": healthy}, tx.init(None))[0]["w"]
        np.testing.assert_allclose(tx.update({"w": broken}, tx.init(None))[0]["w"], expected, atol=1e-6)


def test_gramian_is_exact_over_long_leaves() -> None:
    """One long float32 sum would be off by about a percent; row by row it is not."""
    rng = np.random.default_rng(0)
    leaf = rng.normal(size=(2, 3000, 500)).astype(np.float32) + 0.1
    flat = leaf.reshape(2, -1).astype(np.float64)
    np.testing.assert_allclose(gramian([jnp.asarray(leaf)]), flat @ flat.T, rtol=1e-5)


def test_gramian_sums_leaves_of_any_rank() -> None:
    leaves = [jnp.array([2.0, 3.0]), jnp.ones((2, 4)), jnp.ones((2, 2, 3))]
    np.testing.assert_allclose(gramian(leaves), [[14.0, 16.0], [16.0, 19.0]])


def test_cosines_are_zero_for_a_zero_gradient() -> None:
    gram = gramian([jnp.array([[3.0, 0.0], [-2.0, 0.0], [0.0, 0.0]])])
    np.testing.assert_allclose(cosines(gram), [[1, -1, 0], [-1, 1, 0], [0, 0, 0]], atol=1e-6)


@pytest.mark.parametrize("include_self", [False, True])
def test_random_orders_hold_every_other_task_once(include_self: bool) -> None:
    """docs/numerics.md, section 3: Algorithm 1 meets the others, Pytorch-PCGrad itself, too."""
    rows = random_orders(jax.random.key(0), 5, include_self)
    for i, row in enumerate(rows.tolist()):
        assert sorted(row) == [j for j in range(5) if include_self or j != i]


def test_orders_are_uniform_and_differ_between_steps() -> None:
    """docs/numerics.md, section 3: tianheyu927's code discards its shuffle; ours must be random."""
    keys = jax.random.split(jax.random.key(7), 600)
    rows = jax.vmap(lambda key: random_orders(key, 4, include_self=False))(keys)
    first = np.bincount(np.asarray(rows[:, 0, 0]), minlength=4) / 600
    assert first[0] == 0
    assert np.abs(first[1:] - 1 / 3).max() < 0.08
    tx = pcgrad()
    grads = {"w": jnp.asarray(angle(0, 150, 210, 100))}
    state = tx.init(None)
    seen = set()
    for _ in range(20):
        updates, state = tx.update(grads, state)
        seen.add(tuple(np.round(updates["w"], 5).tolist()))
    assert len(seen) > 1


def test_the_same_seed_gives_the_same_surgery() -> None:
    grads = {"w": jnp.asarray(angle(0, 150, 210, 100))}
    results = [(tx := pcgrad(seed=seed)).update(grads, tx.init(None))[0]["w"].tolist() for seed in (1, 1)]
    assert results[0] == results[1]


def test_an_own_rule_is_one_function_of_the_gramian() -> None:
    tx = aggregator(lambda gram, state, key, losses: (1.0 / jnp.sqrt(jnp.diagonal(gram)), state))
    updates, _ = tx.update({"w": jnp.array([[3.0, 4.0], [0.0, -2.0]])}, tx.init(None))
    np.testing.assert_allclose(updates["w"], [0.6, -0.2], atol=1e-6)


def test_in_a_chain_with_clip_adam_and_multisteps() -> None:
    params = {"encoder": jnp.ones(2), "head": jnp.ones(2)}
    grads = {"encoder": jnp.array([[30.0, 0.0], [-10.0, 10.0]]), "head": jnp.array([1.0, -1.0])}
    inner = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1))
    tx = optax.chain(pcgrad(), optax.MultiSteps(inner, 2).gradient_transformation())
    state = tx.init(params)
    first, state = jax.jit(tx.update)(grads, state, params)
    second, state = jax.jit(tx.update)(grads, state, params)
    assert all(not leaf.any() for leaf in jax.tree.leaves(first))
    alone = optax.chain(pcgrad(), inner)
    expected, _ = alone.update(grads, alone.init(params), params)  # the mean of two equal gradients
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), second, expected)


@pytest.mark.parametrize("of", [np.array, jnp.array, list])
def test_weights_of_whole_numbers_are_not_rounded(of: Any) -> None:
    np.testing.assert_allclose(pcgrad_weights(of([[2, -1], [-1, 3]]), of([[1], [0]])), [3 / 2, 4 / 3], rtol=1e-6)


@pytest.mark.parametrize(
    ("gram", "order", "message"),
    [
        (np.eye(2), [[1], [2]], r"order = \[\[1\], \[2\]\]: tasks have the numbers from 0 to 1"),
        (np.eye(2), [[1], [-1]], "tasks have the numbers from 0 to 1"),
        (np.eye(2), [[1.0], [0.0]], r"a row of whole numbers for each of the 2 tasks, .* \(2, 1\) and the type float"),
        (np.eye(2), [1, 0], r"a row of whole numbers for each of the 2 tasks, .* shape \(2,\)"),
        (np.eye(3), [[1], [0]], "a row of whole numbers for each of the 3 tasks"),
        ("eye", [[1], [0]], "a Gramian is an array of numbers, and this is a str"),
        (np.ones((2, 3)), [[1], [0]], r"a Gramian has a row and a column for each task, .* shape \(2, 3\)"),
    ],
)
def test_weights_of_arrays_that_do_not_fit_are_refused(gram: Any, order: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pcgrad_weights(gram, order)


def test_an_order_that_is_traced_is_taken_as_it_is() -> None:
    found = jax.jit(pcgrad_weights)(jnp.array([[2, -1], [-1, 3]]), jnp.array([[1], [0]]))
    np.testing.assert_allclose(found, [3 / 2, 4 / 3], rtol=1e-6)


@pytest.mark.parametrize(
    ("grads", "about", "message"),
    [
        ({"w": jnp.array([[2, -1], [-1, 3]])}, {}, "gradients of type int32 cannot be weighted; give floating-point"),
        (
            {"w": jnp.array(1.0)},
            {},
            r"gradients need a leading axis, as long as there are tasks; their shapes are \(\)",
        ),
        ({"w": jnp.ones((0, 2))}, {}, r"their shapes are \(0, 2\)"),
        ({"a": jnp.ones((3, 2)), "b": jnp.ones((2, 2))}, {}, r"their shapes are \(3, 2\), \(2, 2\)"),
        ({"w": jnp.eye(2)}, {"finite": [True, False]}, r'finite says by name which tasks .* such as {"sst": True'),
        ({"w": jnp.eye(2)}, {"finite": {"sst": True}}, "finite names sst, and the step has 2 tasks"),
        ({"w": jnp.eye(3)}, {}, "num_tasks = 2, and the step has 3 tasks"),
        (
            {"w": jnp.eye(2)},
            {"losses": {"sst": 0.5, "sts": 1.0}},
            "losses is a dict; give an array of 2 numbers, a mean",
        ),
        (
            {"w": jnp.eye(2)},
            {"state": optax.EmptyState()},
            "its state is of type EmptyState; it must be the AggregatorS",
        ),
        (
            {"w": jnp.eye(2)},
            {"params": {"w": jnp.zeros(2), "v": jnp.zeros(2)}},
            "gradients have 1 leaves, and params 2; give trees of one structure, with the tasks' gradients stacked",
        ),
        (
            {"w": jnp.ones((2, 3, 4))},
            {"params": {"w": jnp.zeros(4)}},
            r"gradient w has the shape \(2, 3, 4\), and its parameter \(4,\); give \(tasks, 4\), or \(4,\) where",
        ),
    ],
)
def test_gradients_that_do_not_fit_are_refused(grads: Any, about: Any, message: str) -> None:
    tx = pcgrad(num_tasks=2)
    with pytest.raises(InputError, match=f"^aggregator pcgrad: .*{message}"):
        tx.update(grads, **{"state": tx.init(None), "params": None, **about})


def test_a_parameter_without_numbers_changes_nothing() -> None:
    grads = {
        "none": jnp.zeros((2, 0, 3)),
        "empty": jnp.zeros((2, 0)),
        "w": jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]),
    }
    updates, _ = (tx := pcgrad()).update(grads, tx.init(None))
    assert (updates["none"].shape, updates["empty"].shape) == ((0, 3), (0,))
    np.testing.assert_allclose(updates["w"], [0.5848, 3.8011, 3.8011], atol=1e-4)


@pytest.mark.parametrize(("name", "values"), [("num_tasks", (0, -1, 2.0, "2", True)), ("seed", (-1, 2.5, None, 2**32))])
def test_what_is_no_number_of_tasks_or_no_seed_is_refused(name: str, values: tuple[Any, ...]) -> None:
    for value in values:
        with pytest.raises(InputError, match=f"^aggregator pcgrad: {name} = .*: must be a whole number"):
            pcgrad(**{name: value})


@pytest.mark.parametrize(
    ("make", "option"), [(lambda c: cagrad(c=c), "c"), (lambda n: dwa(num_tasks=n), "num_tasks"), (smooth, "alpha")]
)
def test_an_option_that_is_traced_is_named(make: Any, option: str) -> None:
    with pytest.raises(
        InputError, match=f"^aggregator [a-z]*: {option} must be known when the aggregator is made, and is"
    ):
        jax.eval_shape(lambda value: make(value).update({"w": jnp.eye(2)}, make(value).init(None))[0], 0.5)


def test_a_seed_may_be_traced() -> None:
    """`optax.inject_hyperparams` makes an array of whatever number it is not told to leave alone."""
    tx = optax.inject_hyperparams(cagrad, static_args=("c",))(c=0.4)
    grads = {"w": jnp.eye(2)}
    plain = cagrad(c=0.4)
    np.testing.assert_array_equal(
        tx.update(grads, tx.init(None))[0]["w"], plain.update(grads, plain.init(None))[0]["w"]
    )
