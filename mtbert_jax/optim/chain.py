"""Call strings → one optax chain, and the check that the chain fits the gradients it will get.

``["pcgrad()", "clip_by_global_norm(1.0)", "adam(lr)"]`` names transformations in the order in which they run.
Strings are parsed, never evaluated: a call may hold literals, lists, dicts, nested calls and the context names of
`chain_context`.
"""

import ast
import inspect
import warnings
from typing import Any

import jax
import optax

from mtbert_jax import trees
from mtbert_jax.config.schema import nearest
from mtbert_jax.errors import InputError, first_line
from mtbert_jax.limits import LARGEST_COUNT, LONGEST_CALL
from mtbert_jax.optim import aggregators
from mtbert_jax.optim.registry import AGGREGATORS, known_calls
from mtbert_jax.types import Params

COUNTED = ("num_betas", "order")
"""Parameters of optax that Python loops over, or that programs grow with, whatever they are."""


def chain_context(lr: optax.Schedule, params: Params) -> dict[str, Any]:
    """The names that a call string may use besides calls.

    ``lr``: the stage's learning-rate schedule. ``kernels``: mask of the weight matrices (kernels and embedding tables;
    no biases, no LayerNorm). ``encoder``, ``heads``: masks of the two parts. ``parts``: labels for `optax.partition`,
    the string ``encoder`` or ``heads`` for every leaf.
    """
    return {
        "lr": lr,
        "kernels": trees.mask(params, lambda path: path.rpartition("/")[2] in ("kernel", "embedding")),
        "encoder": trees.mask(params, lambda path: trees.is_below(path, "encoder")),
        "heads": trees.mask(params, lambda path: trees.is_below(path, "heads")),
        "parts": jax.tree_util.tree_map_with_path(lambda path, _: trees.path_of(path).partition("/")[0], params),
    }


def build_chain(calls: tuple[str, ...], context: dict[str, Any]) -> optax.GradientTransformation:
    """The chain that `calls` spell out.

    Raises:
        InputError: A string is no call, a name is unknown (the nearest known one is named), an argument does not fit,
            or what comes out is no gradient transformation.
    """
    return optax.chain(*(_transformation(text, f"optimizer[{n}]", context) for n, text in enumerate(calls, start=1)))


def _transformation(text: str, position: str, context: dict[str, Any]) -> optax.GradientTransformation:
    where = f"{position} = {text if len(text) <= 80 else text[:77] + '...'!r}"
    if len(text) > LONGEST_CALL:
        raise InputError(f"{where}: longer than {LONGEST_CALL} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", SyntaxWarning)
            tree = ast.parse(text.strip(), mode="eval").body
        value = _value(tree, where, context)
    except (SyntaxError, SyntaxWarning, ValueError, MemoryError, RecursionError) as error:
        raise InputError(f'{where}: is no call such as "adam(lr)": {error}') from None
    if isinstance(value, optax.MultiSteps):
        return value.gradient_transformation()
    if not isinstance(value, optax.GradientTransformation):
        hint = f'; write "{text.strip()}()"' if isinstance(value, _NotCalled) else ""
        raise InputError(f"{where}: is not a gradient transformation{hint}")
    return value


def _value(node: ast.expr, where: str, context: dict[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value) if value is None or isinstance(value, (bool, int, float, str)):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(item, where, context) for item in items]
        case ast.Dict(keys=keys, values=values) if None not in keys:
            pairs = zip(keys, values, strict=True)
            return {_key(key, where, context): _value(value, where, context) for key, value in pairs if key}
        case ast.Name(id=name):
            if name in context:
                return context[name]
            if name in known_calls():
                return _NotCalled(name)
            raise InputError(f"{where}: unknown name {name!r}{nearest(name, [*context, *known_calls()])}")
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
            return _call(name, args, keywords, where, context)
    raise InputError(f"{where}: only calls, names, numbers, strings, lists and dicts may stand here")


class _NotCalled:
    """A known transformation that was named without its parentheses."""

    def __init__(self, name: str) -> None:
        self.name = name


def _key(node: ast.expr, where: str, context: dict[str, Any]) -> str:
    key = _value(node, where, context)
    if not isinstance(key, str):
        raise InputError(f"{where}: a dict's keys must be strings")
    return key


def _call(name: str, args: list[ast.expr], keywords: list[ast.keyword], where: str, context: dict[str, Any]) -> Any:
    function = known_calls().get(name)
    if function is None:
        known = f"(aggregators: {', '.join(AGGREGATORS)}; then optax's; --plugins FILE can add one)"
        raise InputError(f"{where}: unknown transformation {name!r}{nearest(name, known_calls())} {known}")
    values = [_value(arg, where, context) for arg in args]
    named = {keyword.arg: _value(keyword.value, where, context) for keyword in keywords if keyword.arg}
    if len(named) < len(keywords):
        raise InputError(f"{where}: '**' is not allowed here")
    missing = next((v.name for v in [*values, *named.values()] if isinstance(v, _NotCalled)), None)
    if missing:
        raise InputError(f"{where}: {missing!r} must be called: {missing}(...)")
    try:
        bound = inspect.signature(function).bind(*values, **named)
        for parameter, value in bound.arguments.items():
            if parameter in COUNTED and isinstance(value, int | float) and value > LARGEST_COUNT:
                raise InputError(f"{parameter} = {value}: must be at most {LARGEST_COUNT}")
        return function(*values, **named)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except Exception as error:  # noqa: BLE001 - optax may refuse its arguments with any exception
        raise InputError(f"{where}: {name} refuses its arguments: {first_line(error)}") from None


def check_chain(tx: optax.GradientTransformation, grads: Any, params: Params) -> None:
    """Checks shapes only, nothing is computed: updates must come out like the parameters, state must stay as it is.

    optax does not check this: without an aggregator, adam would broadcast stacked gradients silently.

    Args:
        tx: The chain.
        grads: Gradients as a step yields them, or their shapes.
        params: Parameters, or their shapes.

    Raises:
        InputError: The chain does not fit.
    """
    try:
        state = jax.eval_shape(tx.init, params)
        updates, new_state = jax.eval_shape(tx.update, grads, state, params)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - any transformation may fail in its own way
        raise InputError(f"optimizer: the chain does not run on these parameters: {first_line(error)}") from None
    shapes = [leaf.shape for leaf in jax.tree.leaves(params)]
    alike = trees.paths(updates) == trees.paths(params)
    if not alike or [leaf.shape for leaf in jax.tree.leaves(updates)] != shapes:
        if alike and any(aggregators.stacked_leaves(updates, params)):
            raise InputError(
                "optimizer: the chain has no aggregator, so every task's gradient would be applied by itself; "
                'put "pcgrad()", "sum_tasks()" or "mean_tasks()" first'
            )
        raise InputError("optimizer: the chain's updates are not shaped like the parameters")
    if jax.tree.map(_signature, new_state) != jax.tree.map(_signature, state):
        raise InputError("optimizer: the chain's state changes its shape or type from step to step; reorder the chain")


def _signature(leaf: Any) -> tuple[Any, ...]:
    return (leaf.shape, leaf.dtype)
