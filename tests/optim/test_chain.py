"""Call strings → optax chains, and the shape contract."""

import ast
import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from mtbert_jax.errors import InputError
from mtbert_jax.optim import aggregators, depth
from mtbert_jax.optim.aggregators.grouping import groups_of
from mtbert_jax.optim.chain import build_chain, chain_context, check_chain, check_descent, uses_rate
from mtbert_jax.optim.registry import AGGREGATORS, known_calls, register_transformation, unregister

PARAMS = {
    "encoder": {"dense": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}, "word": {"embedding": jnp.ones((4, 3))}},
    "heads": {"sst": {"output": {"kernel": jnp.ones((3, 5)), "bias": jnp.ones(5)}}},
}
GRADS = {"encoder": jax.tree.map(lambda x: jnp.stack([x, -x, 2 * x]), PARAMS["encoder"]), "heads": PARAMS["heads"]}
CONTEXT = chain_context(lambda step: 0.1, PARAMS)


def build(*calls: str) -> optax.GradientTransformation:
    return build_chain(calls, CONTEXT)


@pytest.mark.parametrize(
    "calls",
    [
        ("pcgrad()", "clip_by_global_norm(1.0)", "scale_by_adam()", "scale_by_learning_rate(lr)"),
        ("pcgrad('mean', include_self=True, seed=3)", "adamw(lr, weight_decay=0.01, mask=kernels)"),
        ("mean_tasks()", "adafactor(lr)"),
        ("sum_tasks()", "chain(clip_by_global_norm(1.0), nadam(lr))"),
        ("sum_tasks()", "flatten(adam(lr))"),
        ("sum_tasks()", "muon(lr)"),
        ("sum_tasks()", "prodigy()"),
        ("sum_tasks()", "lamb(cosine_decay_schedule(1e-3, 100))"),
        ("pcgrad()", "partition({'encoder': adam(lr), 'heads': sgd(1e-3)}, parts)"),
        ("pcgrad()", "masked(scale(10.0), heads)", "scale(-1)"),
    ],
)
def test_chains_of_every_kind_build_fit_and_run(calls: tuple[str, ...]) -> None:
    tx = build(*calls)
    check_chain(tx, GRADS, PARAMS)
    updates, _ = jax.jit(tx.update)(GRADS, tx.init(PARAMS), PARAMS)
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, PARAMS)
    assert any(leaf.any() for leaf in jax.tree.leaves(updates))


def test_the_order_is_the_written_order() -> None:
    first = build("sum_tasks()", "scale(3.0)", "clip(1.0)")
    second = build("sum_tasks()", "clip(1.0)", "scale(3.0)")
    values = [
        tx.update(GRADS, tx.init(PARAMS), PARAMS)[0]["heads"]["sst"]["output"]["bias"][0] for tx in (first, second)
    ]
    assert [float(value) for value in values] == [1.0, 3.0]


def test_a_string_means_what_the_same_call_means() -> None:
    ours = build("sum_tasks()", "adamw(lr, weight_decay=-0.5, mask=kernels)")
    theirs = optax.chain(
        build("sum_tasks()"), optax.adamw(lambda step: 0.1, weight_decay=-0.5, mask=CONTEXT["kernels"])
    )
    a, b = (tx.update(GRADS, tx.init(PARAMS), PARAMS)[0] for tx in (ours, theirs))
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(
    ("calls", "uses"),
    [
        (("pcgrad()", "adam(lr)"), True),
        (("partition({'encoder': chain(scale_by_adam(), scale_by_learning_rate(lr)), 'heads': sgd(1)}, parts)",), True),
        (("uw(lr=0.1)", "adam(1e-3)"), False),
        (("adam(1e-3)", "add_noise('lr')"), False),
        (("adam(",), False),
    ],
)
def test_whether_a_chain_goes_by_the_stages_rate_shows_in_its_names(calls: tuple[str, ...], uses: bool) -> None:
    assert uses_rate(calls) is uses


def test_kernels_are_matrices_and_tables_only() -> None:
    assert CONTEXT["kernels"]["encoder"] == {"dense": {"kernel": True, "bias": False}, "word": {"embedding": True}}


def test_loras_matrices_are_matrices_of_their_layer() -> None:
    """For weight decay, for decay by depth, and for aggregators that look at each layer."""
    own = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2), "lora_a": jnp.ones((3, 1)), "lora_b": jnp.ones((1, 2))}
    params = {"encoder": {f"layer_{number}": {"query": own} for number in (0, 1)}}
    mask = chain_context(lambda step: 0.1, params)["kernels"]["encoder"]["layer_0"]["query"]
    assert mask == {"kernel": True, "bias": False, "lora_a": True, "lora_b": True}
    updates = depth.layerwise_decay(0.5).update(params, optax.EmptyState())[0]["encoder"]
    assert [float(updates[layer]["query"]["lora_a"][0, 0]) for layer in ("layer_0", "layer_1")] == [0.25, 0.5]
    paths = [f"encoder/layer_{number}/query/lora_{end}" for number in (0, 1) for end in "ab"]
    assert groups_of(paths, "layer") == [0, 0, 1, 1]


def test_encoder_heads_and_parts_name_the_two_parts() -> None:
    assert CONTEXT["encoder"]["encoder"]["word"]["embedding"] is True
    assert CONTEXT["encoder"]["heads"]["sst"]["output"]["bias"] is False
    assert CONTEXT["heads"]["heads"]["sst"]["output"]["bias"] is True
    assert CONTEXT["parts"]["encoder"]["dense"]["bias"] == "encoder"
    assert CONTEXT["parts"]["heads"]["sst"]["output"]["kernel"] == "heads"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("pcgradd()", "did you mean 'pcgrad'"),
        ("adamm(lr)", "did you mean 'adam'"),
        ("adam(lrr)", "unknown name 'lrr'; did you mean 'lr'"),
        ("adam", r'write "adam\(\)"'),
        ("chain(adam, clip(1.0))", "'adam' must be called"),
        ("lr", "is not a gradient transformation"),
        ("3.0", "is not a gradient transformation"),
        ("cosine_decay_schedule(1e-3, 10)", "is not a gradient transformation"),
        ("adam(", "is no call"),
        ("", "is no call"),
        ("adam(lr\x00)", "is no call"),
        ("adam(lr); adam(lr)", "is no call"),
        ("adam(foo=1)", "adam refuses its arguments"),
        ("pcgrad(reduction='max')", "must be 'sum' or 'mean'"),
        ("layerwise_decay(0)", "rate must be above 0, got 0"),
        ("mechanize(adam(lr), num_betas=1000000000)", "num_betas = 1000000000: must be at most 1000"),
        ("update_moment(2, 2, 0.9, 1000000000)", "order = 1000000000: must be at most 1000"),
        ("adam(**{'b1': 0.9})", r"'\*\*' is not allowed"),
        ("adam(*[lr])", "only calls, names"),
        ("optax.adam(lr)", "only calls, names"),
        ("__import__('os')", "unknown transformation '__import__'"),
        ("_private()", "unknown transformation"),
        ("adam(lr).update", "only calls, names"),
        ("adam(lambda step: 0.1)", "only calls, names"),
        ("adam([x for x in [1]])", "only calls, names"),
        ("adam(1 + 1)", "only calls, names"),
        ("partition({1: adam(lr)}, parts)", "keys must be strings"),
        ("(" * 500 + ")" * 500, "is no call"),
        ("clip(" + "1" * 3000 + ")", "longer than"),
    ],
)
def test_what_is_refused_is_named_in_one_line(call: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build("pcgrad()", call)
    assert "optimizer[1]" in str(caught.value)
    assert "\n" not in str(caught.value)


OWN = {*AGGREGATORS, "layerwise_decay"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_three_namespaces_are_all_that_a_string_reaches() -> None:
    """Public functions that lie in them, written there: none that they import, no module, no class."""
    calls = known_calls()
    assert {name for name in calls if hasattr(aggregators, name) or hasattr(depth, name)} == OWN
    for name, function in calls.items():
        assert not name.startswith("_")
        home = "mtbert_jax.optim." if name in OWN else "optax."
        written = getattr(function, "func", function)  # `nadam` is a partial `adam`
        assert written.__module__.startswith(home)
        assert inspect.isfunction(written)
        assert name in OWN or function in (getattr(optax, name, None), getattr(optax.contrib, name, None))
    assert not calls.keys() & {"optax", "jax", "contrib", "tree", "eval", "exec", "open", "getattr", "inspect", "print"}
    assert {"adam", "muon", "cosine_decay_schedule"} < calls.keys()


EXPRESSIONS = {
    ast.Attribute: "lr.real",
    ast.Await: "await lr",
    ast.BinOp: "1 + 1",
    ast.BoolOp: "True and lr",
    ast.Call: "sgd(lr)",
    ast.Compare: "1 < 2",
    ast.Constant: "1",
    ast.Dict: "{'a': 1}",
    ast.DictComp: "{a: a for a in kernels}",
    ast.GeneratorExp: "(a for a in kernels)",
    ast.IfExp: "1 if lr else 2",
    ast.JoinedStr: "f'{lr.__class__}'",
    ast.Lambda: "lambda: 1",
    ast.List: "[1]",
    ast.ListComp: "[a for a in kernels]",
    ast.Name: "lr",
    ast.NamedExpr: "(a := 1)",
    ast.Set: "{1}",
    ast.SetComp: "{a for a in kernels}",
    ast.Starred: "*[1]",
    ast.Subscript: "kernels['encoder']",
    ast.Tuple: "(1,)",
    ast.UnaryOp: "-1",
    ast.Yield: "(yield)",
    ast.YieldFrom: "(yield from [1])",
}
ALLOWED = {ast.Call, ast.Constant, ast.Dict, ast.List, ast.Name, ast.Tuple, ast.UnaryOp}


@pytest.mark.parametrize("kind", EXPRESSIONS, ids=lambda kind: kind.__name__)
def test_of_pythons_expressions_only_those_that_name_or_hold_something_are_read(kind: type[ast.expr]) -> None:
    """An allowed one reaches the function, which has no such parameter; any other is refused before that."""
    text = f"identity(unknown={EXPRESSIONS[kind]})" if kind is not ast.Starred else "identity(*[1])"
    assert any(isinstance(node, kind) for node in ast.walk(ast.parse(text, mode="eval").body))
    message = "identity refuses its arguments" if kind in ALLOWED else "only calls, names, numbers, strings, lists and"
    with pytest.raises(InputError, match=message):
        build(text)


def test_every_expression_of_this_python_is_tried() -> None:
    wrapped = {
        "FormattedValue",
        "Slice",
        "Interpolation",
        "TemplateStr",
    }  # parts of others; the last two are Python 3.14's
    assert {kind.__name__ for kind in ast.expr.__subclasses__()} - wrapped <= {kind.__name__ for kind in EXPRESSIONS}


@pytest.mark.parametrize("literal", ["b'a'", "1j", "...", "+1", "not 1", "~1", "--1", "-lr", "-True", "-'a'"])
def test_of_literals_only_numbers_strings_true_false_and_none_are_read(literal: str) -> None:
    with pytest.raises(InputError, match=r"only calls, names|refuses"):
        build(f"identity({literal})")


@pytest.mark.parametrize(
    "name", ["__builtins__", "__name__", "__import__", "eval", "open", "getattr", "optax", "jax", "_src", "os", "sys"]
)
def test_a_name_of_python_or_of_a_module_is_unknown(name: str) -> None:
    for text in (f"{name}", f"{name}()", f"chain({name})", f"partition({{'a': {name}('a')}}, parts)"):
        with pytest.raises(InputError, match=f"unknown (name|transformation) {name!r}"):
            build(text)


def test_without_an_aggregator_stacked_gradients_are_refused() -> None:
    with pytest.raises(InputError, match=r'such as "pcgrad\(\)" \(aggregators: aligned_mtl, cagrad, .*, upgrad, uw\)'):
        check_chain(build("adam(lr)"), GRADS, PARAMS)


def test_with_one_task_in_a_step_no_aggregator_is_needed() -> None:
    check_chain(build("adam(lr)"), PARAMS, PARAMS)
    check_chain(build("pcgrad()", "adam(lr)"), PARAMS, PARAMS)


@pytest.mark.parametrize(
    ("calls", "named"),
    [
        (("sum_tasks()", "pcgrad()"), "pcgrad has no effect behind sum_tasks"),
        (("pcgrad()", "clip(1.0)", "chain(gls(), sgd(lr))"), "gls has no effect behind pcgrad"),
        (("smoothed(mgda(), num_tasks=3)", "masked(pcgrad(), encoder)"), r"pcgrad has no .* smoothed\(mgda\(\)\)"),
        (("pcgrad()", "partition({'encoder': mgda(), 'heads': sgd(lr)}, parts)"), "mgda has no effect behind pcgrad"),
    ],
)
def test_an_aggregator_behind_another_is_refused(calls: tuple[str, ...], named: str) -> None:
    with pytest.raises(InputError, match=f"^aggregator {named}, which has combined .* take one of the two"):
        check_chain(build(*calls), GRADS, PARAMS)


@pytest.mark.parametrize(
    "calls",
    [
        ("smoothed(pcgrad(), num_tasks=3)",),
        ("masked(mgda(), kernels)", "sum_tasks()"),
        ("partition({'encoder': chain(mgda(), sgd(lr)), 'heads': chain(pcgrad(), sgd(lr))}, parts)",),
    ],
)
def test_aggregators_of_gradients_that_none_has_combined_stand_together(calls: tuple[str, ...]) -> None:
    check_chain(build(*calls, "scale(1.0)"), GRADS, PARAMS)


def test_in_a_step_of_one_task_no_aggregator_combines_anything() -> None:
    check_chain(build("sum_tasks()", "pcgrad()", "sgd(lr)"), PARAMS, PARAMS)


def test_a_chain_that_fails_on_the_parameters_is_refused() -> None:
    bad = build("pcgrad()", "masked(scale(2.0), {'encoder': True})")
    with pytest.raises(InputError, match="does not run on these parameters"):
        check_chain(bad, GRADS, PARAMS)


@pytest.mark.parametrize(
    ("calls", "where"),
    [(("sum_tasks()", "sgd('lr')"), "optimizer[1] = \"sgd('lr')\""), (("chain(sgd('lr'))",), "optimizer[0] = ")],
)
def test_a_link_that_fails_on_the_parameters_is_named(calls: tuple[str, ...], where: str) -> None:
    with pytest.raises(InputError, match=r"does not run on .* \(a name such as lr stands without quotes\)") as caught:
        check_chain(build(*calls), PARAMS, PARAMS)
    assert str(caught.value).startswith(where)


@pytest.mark.parametrize("call", ["gradvac(num_tasks=2)", "pcgrad(num_tasks=2)"])
def test_another_number_of_tasks_than_the_steps_is_refused(call: str) -> None:
    with pytest.raises(InputError, match="num_tasks = 2, and the step has 3 tasks"):
        check_chain(build(call, "sgd(lr)"), GRADS, PARAMS)


def test_a_chain_that_makes_updates_of_another_structure_is_refused() -> None:
    with pytest.raises(InputError, match="updates are not shaped like the parameters"):
        check_chain(build("sum_tasks()", "measure_with_ema(lr, 2)"), GRADS, PARAMS)


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        ("MultiSteps(adam(lr), 4)", "MultiSteps updates in some steps only, .* micro_batches = N, with a batch_size N"),
        ("MultiSteps(pcgrad(), 4)", "MultiSteps updates in some steps only"),
        ("MultiSteps(adam(lr), 4, should_skip_update_fn=skip_not_finite)", "MultiSteps updates in some steps only"),
        ("apply_every(4)", "apply_every updates in some steps only, .* micro_batches = N"),
        ("chain(adam(lr), apply_every(2))", "apply_every updates in some steps only"),
        ("lookahead(adam(lr), 5, 0.5)", "lookahead goes by a clock of its own"),
        ("apply_if_finite(pcgrad(), 3)", "apply_if_finite is not needed: a task .* is left out of the step"),
        (
            "partition({'encoder': apply_if_finite(adam(lr), 3), 'heads': sgd(lr)}, parts)",
            "apply_if_finite is not needed",
        ),
        ("masked(conditionally_mask(sgd(lr), piecewise_constant_schedule(1, {9: 0})), heads)", "clock of its own"),
        ("conditionally_transform(clip(1.0), lr)", "conditionally_transform goes by a clock of its own"),
        ("sam(sgd(lr), chain(normalize(), sgd(0.1)))", "sam goes by a clock of its own"),
        ("schedule_free_adamw(lr)", 'schedule_free_adamw is meant to be scored .*; evaluate = "teacher"'),
        ("chain(clip(1.0), schedule_free(sgd(lr), lr))", "schedule_free is meant to be scored at an average"),
    ],
)
def test_wrappers_that_fall_out_of_step_are_refused_with_the_way_out(call: str, hint: str) -> None:
    with pytest.raises(InputError, match=hint) as caught:
        build("sum_tasks()", call)
    assert str(caught.value).startswith("optimizer[1] = ")


class WaitState(NamedTuple):
    waited: jax.Array
    inner: optax.OptState


def every_other(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """A wrapper of one's own: it counts every step, but lets its inner transformation have every other one."""

    def update(updates: Any, state: WaitState, params: Any = None) -> tuple[Any, WaitState]:
        made, new = inner.update(updates, state.inner, params)
        now = state.waited % 2 == 0
        kept = jax.tree.map(lambda a, b: jnp.where(now, a, b), new, state.inner)
        return jax.tree.map(lambda leaf: now * leaf, made), WaitState(state.waited + 1, kept)

    return optax.GradientTransformation(lambda params: WaitState(jnp.array(0), inner.init(params)), update)


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda: optax.MultiSteps(optax.adam(0.1), 4), "gradient_step"),
        (lambda: optax.chain(optax.adam(0.1), optax.apply_every(1000)), "count"),
        (lambda: optax.apply_if_finite(optax.sgd(0.1), 3), "notfinite_count"),
        (lambda: every_other(optax.adam(0.1)), "count"),
        (lambda: optax.conditionally_transform(optax.ema(0.9), lambda step: step < 50), "count"),
    ],
)
def test_what_a_plugin_makes_must_count_every_step(make: Any, count: str) -> None:
    register_transformation("own")(lambda: make())
    message = rf"^optimizer\[2\]: its count '{count}' goes from .* micro_batches"
    try:
        with pytest.raises(InputError, match=message) as caught:
            check_chain(build("sum_tasks()", "clip(1.0)", "own()"), GRADS, PARAMS)
        assert "\n" not in str(caught.value)
    finally:
        unregister("own")


SEVERAL = {
    "encoder": {"layer_0": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}},
    "heads": {task: {"output": {"kernel": jnp.ones((2, 5)), "bias": jnp.ones(5)}} for task in ("sst", "sts", "later")},
}


def goes_down(*calls: str, lr: optax.Schedule = lambda step: 0.1) -> None:
    check_descent(calls, lr, SEVERAL, ("sst", "sts"))


@pytest.mark.parametrize(
    ("calls", "path"),
    [
        (("pcgrad()",), "encoder/layer_0/bias"),
        (("pcgrad()", "clip_by_global_norm(0.5)"), "encoder/layer_0/bias"),
        (("pcgrad()", "scale_by_adam()"), "encoder/layer_0/bias"),
        (("pcgrad()", "adam(-1.0)"), "encoder/layer_0/bias"),
        (("pcgrad()", "sgd(lr)", "sgd(lr)"), "encoder/layer_0/bias"),
        (("pcgrad()", "masked(sgd(lr), kernels)"), "encoder/layer_0/bias"),  # biases pass as they are
        (("pcgrad()", "partition({'encoder': sgd(lr), 'heads': identity()}, parts)"), "heads/sst/output/bias"),
    ],
)
def test_a_chain_that_goes_uphill_is_refused(calls: tuple[str, ...], path: str) -> None:
    with pytest.raises(InputError, match=f"the first update of {path} goes up its gradient, .* such as adam"):
        goes_down(*calls)


@pytest.mark.parametrize(
    "calls",
    [
        ("pcgrad()", "clip_by_global_norm(1.0)", "adamw(lr, weight_decay=0.1, mask=kernels)"),
        ("sum_tasks()", "scale_by_adam()", "scale_by_schedule(lr)", "scale(-1.0)"),
        ("smoothed(pcgrad())", "partition({'encoder': sgd(lr), 'heads': adam(1e-3)}, parts)"),
        ("sum_tasks()", "masked(set_to_zero(), heads)", "layerwise_decay(0.9)", "lion(lr)"),
        ("sum_tasks()", "sgd(1e38)"),  # diverges, and training says so
        ("sum_tasks()", "rprop(0.1)"),  # its first update is 0
        ("sum_tasks()", "sgd(linear_schedule(0.0, 1.0, 5, 30))"),
        ("sum_tasks()", "add_decayed_weights(0.1)", "noisy_sgd(lr, 0.1, 0.5, 0)"),
    ],
)
def test_a_chain_that_goes_down_passes(calls: tuple[str, ...]) -> None:
    goes_down(*calls)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("adam(lr, eps=0)", "the first update of encoder/layer_0/bias is NaN, though"),  # where a gradient is 0
        ("adam(lr, b1=1.0)", "the first update of encoder/layer_0/bias is NaN, though"),
        ("chain(adam(lr), add_decayed_weights(0.01))", "weight decay makes encoder/layer_0/bias larger"),
        ("adamw(lr, weight_decay=-0.01, mask=heads)", "weight decay makes heads/sst/output/bias larger"),
        ("chain(clip_by_global_norm(0), sgd(lr))", "all updates are 0, so nothing would be trained"),
    ],
)
def test_a_chain_whose_updates_cannot_be_meant_is_refused(call: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^optimizer: {message}"):
        goes_down("sum_tasks()", call)


def test_a_warm_up_from_nothing_is_looked_at_in_its_second_step() -> None:
    warm_up = optax.linear_schedule(0.0, 1.0, 100)
    goes_down("sum_tasks()", "sgd(lr)", lr=warm_up)
    with pytest.raises(InputError, match="goes up its gradient"):
        goes_down("sum_tasks()", "sgd(lr, momentum=0.9)", "scale(-1.0)", lr=warm_up)


def test_a_chain_of_a_large_state_is_not_computed() -> None:
    goes_down("sum_tasks()", "scale_by_lbfgs(memory_size=1000000000000)")


def test_what_runs_on_the_real_parameters_alone_passes() -> None:
    """A transformation of one's own may hold arrays of their sizes; it is not judged."""
    register_transformation("own")(lambda: optax.stateless(lambda updates, _: jax.tree.map(jnp.add, updates, SEVERAL)))
    try:
        goes_down("sum_tasks()", "own()")
    finally:
        unregister("own")
