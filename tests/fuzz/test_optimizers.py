"""Call strings of optimizers: any function of the three namespaces with any arguments, and strings that are spoiled."""

import inspect
from pathlib import Path

import pytest
from hypothesis import strategies as st

from mtbert_jax.optim.chain import build_chain, check_chain
from mtbert_jax.optim.registry import known_calls
from tests.fuzz.attempts import fuzz, outcome
from tests.fuzz.strategies import ODD_TEXTS, spoiled
from tests.optim.test_chain import CONTEXT, GRADS, PARAMS
from tests.tally import Tally

NAMES = sorted(known_calls())
TRANSFORMATIONS = ["adam(lr)", "scale(2)", "masked(scale(2), heads)", "chain(clip(1.0), sgd(0.1))", "pcgrad()"]
CHAIN = "chain(clip_by_global_norm(1.0), masked(adamw(lr, weight_decay=-1e-2, mask=kernels), {'heads': [4]}))"
ATOMS = [
    *("0", "1", "-1", "2", "3.5", "1e-300", "1e400", "-1e400", "1e300", "100", str(10**9), str(10**30), "9" * 1900),
    *("True", "None", "[]", "{}", "()", "[1, 2]", "[[1.0, 2.0], [3.0, 4.0]]", "{'a': 1}", "{1: 2}", "{'encoder': lr}"),
    *("lr", "kernels", "encoder", "heads", "parts", "adam", "''", "'mean'", "'encoder'", "'float32'", "b'a'", "1j"),
    *("...", "lr()", "lr.__class__", "kernels['encoder']", "[i for i in [1]]", "lambda step: 1", "f'{lr}'", "*[1]"),
    *("(a := 1)", "1 if lr else 2", "not lr", "2 ** 9 ** 9 ** 9", "'a' * 10 ** 12", "__builtins__", "open('x', 'w')"),
    *map(repr, ODD_TEXTS[:20]),
]
atoms = st.one_of(st.sampled_from(ATOMS), st.sampled_from(TRANSFORMATIONS), st.sampled_from(NAMES))
plain_atoms = st.sampled_from([*ATOMS[:7], *TRANSFORMATIONS, "True", "None", "lr", "kernels", "heads"])


def fitting(parameter: str) -> str:
    """An argument that a parameter of that name is likely to take."""
    if parameter in ("learning_rate", "step_size_fn", "schedule"):
        return "lr"
    if "mask" in parameter:
        return "kernels"
    return "adam(lr)" if parameter in ("inner", "opt", "base_optimizer", "optimizer") else "2"


@st.composite
def calls(draw: st.DrawFn, depth: int = 2) -> str:
    """A call of some function, by the names of its parameters, with arguments that may or may not fit."""
    name = draw(st.sampled_from(NAMES))
    argument = st.one_of(plain_atoms, plain_atoms, atoms, *([calls(depth - 1)] if depth else []))
    known = inspect.signature(known_calls()[name]).parameters
    given = {parameter: fitting(parameter) for parameter, about in known.items() if about.default is about.empty}
    for parameter in draw(st.lists(st.sampled_from([*known, *known, "x"]), max_size=2, unique=True)):
        given[parameter] = draw(argument)
    first = [draw(argument)] if draw(st.integers(0, 9)) == 0 else []
    return f"{name}({', '.join([*first, *(f'{parameter}={value}' for parameter, value in given.items())])})"


@st.composite
def chains(draw: st.DrawFn) -> tuple[str, ...]:
    """One or two links, behind an aggregator mostly."""
    links = []
    for _ in range(draw(st.sampled_from([1, 1, 2]))):
        match draw(st.integers(0, 9)):
            case 0:
                links.append(draw(spoiled(CHAIN.encode())).decode("utf-8", "surrogateescape"))
            case 1:
                links.append(draw(atoms))
            case _:
                links.append(draw(calls()))
    return (*draw(st.sampled_from([("sum_tasks()",), ("sum_tasks()",), ()])), *links)


@pytest.mark.filterwarnings("ignore")  # optax has some of its own
@pytest.mark.parametrize("cases", [pytest.param(60), pytest.param(600, marks=pytest.mark.slow)])
def test_any_chain_is_built_and_fits_or_is_refused(cases: int, tmp_path: Path, tally: Tally) -> None:
    place = tmp_path / "nothing"

    def case(given: tuple[str, ...]) -> None:
        outcome(lambda: check_chain(build_chain(given, CONTEXT), GRADS, PARAMS), place, "optimizer")

    tally("optimizer strings fuzzed", fuzz(chains(), case, cases))
