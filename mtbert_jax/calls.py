"""Call strings such as ``adamw(lr, weight_decay=0.01)``: parsed, never evaluated.

A call may hold literals, lists, dicts, nested calls and the names of its vocabulary; nothing else of Python is read.
"""

import ast
import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from mtbert_jax.config.schema import nearest
from mtbert_jax.errors import InputError, first_line
from mtbert_jax.limits import LARGEST_COUNT, LONGEST_CALL

T = TypeVar("T")
NO_CALL = (SyntaxError, SyntaxWarning, ValueError, MemoryError, RecursionError)
"""What Python raises on reading a text that is no expression, or one of no use."""


@dataclass(frozen=True)
class Vocabulary(Generic[T]):
    """What the call strings of one field of a config may say.

    Attributes:
        unknown: What is said of an unknown call.
        example: A call that is right.
        calls: Functions by name.
        accept: The outermost call's value as it is wanted; None where it is nothing of the kind.
        wanted: What `accept` wants, with its article.
        known: All that could stand in place of an unknown call.
        names: Values by name.
        counted: Parameters that Python loops over, or that programs grow with, whatever they are.
        refused: Calls that exist and must not be made, with the reason and what to do instead.
    """

    unknown: str
    example: str
    calls: Mapping[str, Callable[..., Any]]
    accept: Callable[[Any], T | None]
    wanted: str
    known: str
    names: Mapping[str, Any] = field(default_factory=dict)
    counted: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)


def place(text: str, position: str) -> str:
    """A call string and its place in the config, for a message."""
    return f"{position} = {text if len(text) <= 80 else text[:77] + '...'!r}"


def read_call(text: str, position: str, vocabulary: Vocabulary[T]) -> T:
    """What a call string makes; `position` is its place in the config, such as ``optimizer[2]``.

    Raises:
        InputError: The string is no call, a name is unknown, an argument does not fit, or the value is not what is
            wanted.
    """
    where = place(text, position)
    if len(text) > LONGEST_CALL:
        raise InputError(f"{where}: longer than {LONGEST_CALL} characters")
    try:
        value = _Reader(where, vocabulary).value(_tree(text))
    except NO_CALL as error:
        raise InputError(f'{where}: is no call such as "{vocabulary.example}": {error}') from None
    accepted = None if isinstance(value, _NotCalled) else vocabulary.accept(value)
    if accepted is None:
        hint = f'; write "{text.strip()}()"' if isinstance(value, _NotCalled) else ""
        raise InputError(f"{where}: is not {vocabulary.wanted}{hint}")
    return accepted


def names_in(text: str) -> set[str]:
    """All names in a call string, its functions' among them; none where it is no call."""
    try:
        return {node.id for node in ast.walk(_tree(text)) if isinstance(node, ast.Name)}
    except NO_CALL:
        return set()


def _tree(text: str) -> ast.expr:
    with warnings.catch_warnings():
        warnings.simplefilter("error", SyntaxWarning)
        return ast.parse(text.strip(), mode="eval").body


class _NotCalled(NamedTuple):
    """A known function that was named without its parentheses."""

    name: str


@dataclass(frozen=True)
class _Reader:
    """The walker over the syntax tree of one string."""

    where: str
    vocabulary: Vocabulary[Any]

    def value(self, node: ast.expr) -> Any:
        known, where = self.vocabulary, self.where
        match node:
            case ast.Constant(value=value) if value is None or isinstance(value, (bool, int, float, str)):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return -number
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return [self.value(item) for item in items]
            case ast.Dict(keys=keys, values=values) if None not in keys:
                return {self.key(key): self.value(value) for key, value in zip(keys, values, strict=True) if key}
            case ast.Name(id=name):
                if name in known.names:
                    return known.names[name]
                if name in known.calls or name in known.refused:
                    return _NotCalled(name)
                raise InputError(f"{where}: unknown name {name!r}{nearest(name, [*known.names, *known.calls])}")
            case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
                return self.call(name, args, keywords)
        raise InputError(f"{where}: only calls, names, numbers, strings, lists and dicts may stand here")

    def key(self, node: ast.expr) -> str:
        key = self.value(node)
        if not isinstance(key, str):
            raise InputError(f"{self.where}: a dict's keys must be strings")
        return key

    def call(self, name: str, args: list[ast.expr], keywords: list[ast.keyword]) -> Any:
        known, where = self.vocabulary, self.where
        if name in known.refused:
            raise InputError(f"{where}: {name} {known.refused[name]}")
        function = known.calls.get(name)
        if function is None:
            raise InputError(f"{where}: {known.unknown} {name!r}{nearest(name, known.calls)} ({known.known})")
        values = [self.value(arg) for arg in args]
        named = {keyword.arg: self.value(keyword.value) for keyword in keywords if keyword.arg}
        if len(named) < len(keywords):
            raise InputError(f"{where}: '**' is not allowed here")
        missing = next((v.name for v in [*values, *named.values()] if isinstance(v, _NotCalled)), None)
        if missing:
            raise InputError(f"{where}: {missing!r} must be called: {missing}(...)")
        try:
            for parameter, value in inspect.signature(function).bind(*values, **named).arguments.items():
                if parameter in known.counted and isinstance(value, int | float) and value > LARGEST_COUNT:
                    raise InputError(f"{parameter} = {value}: must be at most {LARGEST_COUNT}")
            return function(*values, **named)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        except Exception as error:  # noqa: BLE001 - a function may refuse its arguments with any exception
            raise InputError(f"{where}: {name} refuses its arguments: {first_line(error)}") from None
