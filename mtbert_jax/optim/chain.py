"""Call strings → one optax chain, and the check that the chain fits the gradients it will get.

``["pcgrad()", "clip_by_global_norm(1.0)", "adam(lr)"]`` names transformations in the order in which they run.
`mtbert_jax.calls` reads the strings; besides calls they may hold the names of `chain_context`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtbert_jax import trees
from mtbert_jax.calls import Vocabulary, names_in, place, read_call
from mtbert_jax.errors import InputError, first_line
from mtbert_jax.nn import lora
from mtbert_jax.optim import aggregators
from mtbert_jax.optim.aggregators import Aggregator
from mtbert_jax.optim.headwise import Headwise, chain, headwise, is_count
from mtbert_jax.optim.registry import AGGREGATORS, known_calls
from mtbert_jax.optim.schedules import StageClock
from mtbert_jax.types import Params

MATRICES = (lora.KERNEL, "embedding", lora.A, lora.B)
"""Names of weight matrices."""
COUNTED = ("num_betas", "order", "num_tasks")
"""Parameters that Python loops over, or that programs grow with, whatever they are."""

_ACCUMULATES = (
    "updates in some steps only, out of step with the learning rate and with the heads of other tasks; micro_batches = "
    "N, with a batch_size N times as large, adds up gradients within a step"
)
_LEFT_OUT = "is not needed: a task whose loss or gradient is not finite is left out of the step, and counted"
_OWN_CLOCK = (
    "goes by a clock of its own, out of step with the learning rate and with the heads of other tasks; put what it "
    "wraps into the chain by itself"
)
_OWN_AVERAGE = (
    "is meant to be scored at an average that it keeps to itself, which nothing here reads; "
    'evaluate = "teacher" scores a moving average of the parameters under any other optimizer'
)
REFUSED = {
    "MultiSteps": _ACCUMULATES,
    "apply_every": _ACCUMULATES,
    "apply_if_finite": _LEFT_OUT,
    "conditionally_mask": _OWN_CLOCK,
    "conditionally_transform": _OWN_CLOCK,
    "lookahead": _OWN_CLOCK,
    "sam": _OWN_CLOCK,
    "schedule_free": _OWN_AVERAGE,
    "schedule_free_adamw": _OWN_AVERAGE,
    "schedule_free_sgd": _OWN_AVERAGE,
}
"""What of optax does not follow the steps of training, or is scored otherwise, and what to do instead."""
PROBES = ((0, 1.0), (1, 1.0), (2**30, 1.0), (2, float("nan")))
"""Counts, and values of the gradient, from which `check_chain` looks at the next count."""

LARGEST_STATE = 10**6
"""Numbers in the state of the stand-in by which `check_descent` judges a chain; usual ones have some hundreds."""
STEPS = (0, 1, *(10**power for power in range(1, 7)))
"""Steps at which a chain is looked at whose first update is 0: its own schedule may begin later."""


def chain_context(lr: optax.Schedule, params: Params, num_tasks: int | None = None) -> dict[str, Any]:
    """The names that a call string may use besides calls.

    ``lr``: the stage's learning-rate schedule. ``kernels``: mask of the weight matrices (kernels, embedding tables and
    LoRA's; no biases, no LayerNorm). ``encoder``, ``heads``: masks of the two parts. ``parts``: labels for
    `optax.partition`, the string ``encoder`` or ``heads`` for every leaf. ``num_tasks``: the number of tasks of a step,
    which aggregators get by themselves.
    """
    return {
        "lr": lr,
        "kernels": trees.mask(params, lambda path: path.rpartition("/")[2] in MATRICES),
        "encoder": trees.mask(params, lambda path: trees.is_below(path, "encoder")),
        "heads": trees.mask(params, lambda path: trees.is_below(path, "heads")),
        "parts": jax.tree_util.tree_map_with_path(lambda path, _: trees.path_of(path).partition("/")[0], params),
        "num_tasks": num_tasks,
    }


def uses_rate(calls: tuple[str, ...]) -> bool:
    """Whether a chain goes by the stage's learning rate."""
    return any("lr" in names_in(text) for text in calls)


def build_chain(calls: tuple[str, ...], context: dict[str, Any]) -> optax.GradientTransformation:
    """The chain that `calls` spell out; `context` is that of `chain_context`.

    Raises:
        InputError: A string is no call, a name is unknown, an argument does not fit, or no transformation comes out.
    """
    clock = StageClock()
    num_tasks = context.get("num_tasks")
    of_tasks = {name: functools.partial(factory, num_tasks=num_tasks) for name, factory in AGGREGATORS.items()}
    factories: dict[str, Callable[..., Any]] = {**known_calls(), "chain": chain, **of_tasks}
    vocabulary = Vocabulary(
        unknown="unknown transformation",
        example="adam(lr)",
        calls={name: _headwise(clock.followed_by(factory)) for name, factory in factories.items()},
        accept=lambda value: value if isinstance(value, optax.GradientTransformation) else None,
        wanted="a gradient transformation",
        known=f"aggregators: {', '.join(sorted(AGGREGATORS))}; then optax's; --plugins FILE can add one",
        names=context,
        counted=COUNTED,
        refused=REFUSED,
    )
    named = [(text, f"optimizer[{number}]") for number, text in enumerate(calls)]
    links = chain(*(_placed(read_call(*one, vocabulary), place(*one)) for one in named))

    def update(updates: Any, state: Any, params: Any = None, *, step: Any = None, **others: Any) -> Any:
        with clock.at(step):
            return links.update(updates, state, params, **others)

    return Headwise(links.init, update)


def _placed(link: optax.GradientTransformation, where: str) -> Headwise:
    """A link whose errors have its place as a note."""
    link = headwise(link)

    def noting(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **about: Any) -> Any:
            try:
                return function(*given, **about)
            except Exception as error:
                error.add_note(where)
                raise

        return call

    return Headwise(noting(link.init), noting(link.update))


def _headwise(factory: Callable[..., Any]) -> Callable[..., Any]:
    """A factory whose transformations keep the heads apart, wherever in a call they stand."""

    @functools.wraps(factory)
    def make(*values: Any, **named: Any) -> Any:
        made = factory(*values, **named)
        if isinstance(made, Aggregator):  # `smoothed` takes one as it is, and a chain makes it headwise
            return made
        return headwise(made) if isinstance(made, optax.GradientTransformation | optax.MultiSteps) else made

    return make


def check_chain(tx: optax.GradientTransformation, grads: Any, params: Params, tasks: tuple[str, ...] = ()) -> None:
    """Refuses a chain whose updates are not shaped like the parameters, or whose state or counts fall out of step.

    So it does an aggregator behind another.

    optax does not check this: without an aggregator, adam would broadcast stacked gradients silently. Shapes are
    enough; nothing of the model's size is computed. `tasks` are the step's, in the order of their gradients.
    """
    tx = optax.with_extra_args_support(tx)
    stacked = aggregators.stacked_leaves(grads, params)
    number = next(
        (leaf.shape[0] for leaf, is_stacked in zip(jax.tree.leaves(grads), stacked, strict=True) if is_stacked), 1
    )
    losses = jax.ShapeDtypeStruct((number,), jnp.float32)
    about: dict[str, Any] = {"finite": {task: jnp.array(True) for task in tasks}} if tasks else {}
    about["num_layers"] = trees.num_layers(params)
    try:
        state = jax.eval_shape(tx.init, params)
        # Jitted, it is traced once for both checks.
        update = jax.jit(lambda *given, losses: tx.update(*given, losses=losses, combined_by={}, **about))
        updates, new_state = jax.eval_shape(update, grads, state, params, losses=losses)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - any transformation may fail in its own way
        notes = getattr(error, "__notes__", ())  # JAX may have added others
        where = next((note for note in notes if note.startswith("optimizer[")), "optimizer")
        raise InputError(
            f"{where}: does not run on these parameters: {first_line(error)}; are its arguments of the right types (a "
            "name such as lr stands without quotes), and does it fit the parameters?"
        ) from None
    made, wanted = ([(path, leaf.shape) for path, leaf in trees.leaves(tree)] for tree in (updates, params))
    if made != wanted:
        if trees.paths(updates) == trees.paths(params) and any(aggregators.stacked_leaves(updates, params)):
            raise InputError(
                "optimizer: the chain has no aggregator, so every task's gradient would be applied by itself; put one "
                f'first, such as "pcgrad()" (aggregators: {", ".join(sorted(AGGREGATORS))})'
            )
        raise InputError("optimizer: the chain's updates are not shaped like the parameters")
    if jax.tree.map(_signature, new_state) != jax.tree.map(_signature, state):
        raise InputError("optimizer: the chain's state changes its shape or type from step to step; reorder the chain")
    waiting = [head for head in params.get("heads", {}) if tasks and head not in tasks]  # they keep their counts
    counts = {
        place: path
        for place, (path, leaf) in enumerate(trees.leaves(state))
        if is_count(leaf) and not any(f"/clocks/{head}/" in f"/{path}/" for head in waiting)
    }
    if counts:
        _check_counts(counts, update, grads, losses, tx.init, params)


def _check_counts(
    paths: dict[int, str], update: Callable[..., Any], grads: Any, losses: Any, init: Callable[..., Any], params: Params
) -> None:
    """Whole numbers in a state must be counts of steps, which grow by one in each, whatever they and the gradients are.

    `paths` are those of the counts by their places among the state's leaves. Else something in the chain skips steps or
    waits for some: heads and learning rate would fall out of step with it.
    """

    def full(tree: Any, value: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.full(leaf.shape, value, leaf.dtype), tree)

    @jax.jit  # of the chain only what the counts depend on is compiled
    def following(count: Any, value: Any) -> list[Any]:
        state = jax.tree.map(lambda leaf: count.astype(leaf.dtype) if is_count(leaf) else leaf, init(full(params, 1)))
        new = update(full(grads, value), state, full(params, 1), losses=full(losses, 1))[1]
        leaves = jax.tree.leaves(new)
        return [leaves[place] for place in paths]

    for count, value in PROBES:
        found = jax.device_get(following(jnp.int32(count), jnp.float32(value)))
        for path, number in zip(paths.values(), found, strict=True):
            if number != count + 1:
                link, name = path.partition("/")[0], path.rpartition("/")[2]
                place = f"optimizer[{int(link)}]" if link.isdigit() else "optimizer"
                raise InputError(
                    f"{place}: its count {name!r} goes from {count} to {number} in one step; what skips steps or "
                    "waits for some falls out of step with the learning rate and with the heads of other tasks. "
                    "micro_batches = N adds up gradients; a task that is not finite is left out without it"
                )


def check_descent(calls: tuple[str, ...], lr: optax.Schedule, params: Params, tasks: tuple[str, ...]) -> None:
    """Refuses a chain by its first update: NaN, up the gradients, 0 everywhere, or weight decay that adds.

    It is built again for a stand-in: one parameter of each name in the encoder and in each head of the step, with two
    numbers an axis; with one task's gradients, which aggregators pass on. All parameters are 0 at first, so that weight
    decay does nothing, and some gradients are 0; then all gradients are 0. A chain passes that runs on the real
    parameters alone, or whose state is large even here.
    """
    chosen: dict[tuple[str, str], str] = {}
    for path in trees.paths(params):
        part, _, rest = path.partition("/")
        head = rest.partition("/")[0] if part == "heads" else ""
        if not head or head in tasks:
            chosen.setdefault((head, path.rpartition("/")[2]), path)
    few = trees.split(params, tuple(path for path in trees.paths(params) if path not in chosen.values()))[1]
    zeros = jax.tree.map(lambda leaf: np.zeros([min(size, 2) for size in leaf.shape], leaf.dtype), few)
    ones, paths = jax.tree.map(np.ones_like, zeros), trees.paths(few)
    slopes = jax.tree.map(
        lambda leaf: np.arange(leaf.size, dtype=leaf.dtype).reshape(leaf.shape) + (leaf.size == 1), zeros
    )
    about = {"losses": jnp.ones(len(tasks)), "finite": {task: jnp.array(True) for task in tasks}}

    def gains(step: int, grads: Any, params: Any, along: Any) -> list[Any]:
        updates = tx.update(grads, tx.init(params), params, step=step, **about)[0]
        return jax.tree.leaves(jax.tree.map(jnp.vdot, updates, along))

    try:
        tx = build_chain(calls, chain_context(lr, few, len(tasks)))
        if trees.count(jax.eval_shape(tx.init, zeros)) > LARGEST_STATE:  # the memory check may refuse it
            return
        compiled = jax.jit(gains)
        first, second = (jax.device_get(compiled(step, slopes, zeros, slopes)) for step in (0, 1))  # of a warm-up, too
        outwards = [jax.device_get(compiled(1, zeros, own, own)) for own in (ones, jax.tree.map(np.negative, ones))]
        moves = any(first + second)
        state = None if moves else tx.init(zeros)
        for step in () if moves else STEPS:
            updates, state = tx.update(slopes, state, zeros, step=step, **about)
            moves = moves or any(leaf.any() for leaf in jax.tree.leaves(updates))
    except Exception:  # noqa: BLE001 - masks of one's own may name parameters that are not chosen
        return
    for path, *own in zip(paths, first, second, strict=True):
        if np.isnan(own).any():  # infinite is what a very large rate makes of it
            raise InputError(
                f"optimizer: the first update of {path} is NaN, though its gradient is a number; look at arguments "
                "such as eps, b1 and b2: eps = 0 divides 0 by 0 where a gradient is 0, and b1 = 1 likewise"
            )
        if min(own) >= 0 and max(own) > 0:
            raise InputError(
                f"optimizer: the first update of {path} goes up its gradient, and the loss with it; a chain takes one "
                "step against the gradient, of a positive size and for all parameters, such as adam(lr) or sgd(lr)"
            )
    for path, *own in zip(paths, *outwards, strict=True):
        if min(own) > 0:
            raise InputError(
                f"optimizer: weight decay makes {path} larger in every step; write adamw(lr, weight_decay=0.01), or "
                "add_decayed_weights(0.01) before what turns the sign, such as scale_by_learning_rate(lr)"
            )
    if not moves:
        raise InputError(
            "optimizer: all updates are 0, so nothing would be trained; a limit or a factor of 0, as in "
            "clip_by_global_norm(0), switches no call off: leave the call out"
        )


def _signature(leaf: Any) -> tuple[Any, ...]:
    return (leaf.shape, leaf.dtype)
