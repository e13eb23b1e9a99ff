"""The command `augment`: a training file with the pairs that follow from its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mtbert_jax.config import Config, Task
from mtbert_jax.config.schema import nearest
from mtbert_jax.data.closure import Closure, close
from mtbert_jax.data.readers import read_for_run
from mtbert_jax.errors import InputError, plain
from mtbert_jax.files import input_errors, json_lines, must_be_writable, write_whole
from mtbert_jax.tasks import kind_of

SHOWN = 5
"""Contradictions that are named by their ids."""


def augment_pairs(config: Config, name: str | None, out: Path, cap: int, negatives: bool) -> list[str]:
    """Writes the training file of a task over pairs with new pairs behind its own, as JSON Lines.

    Args:
        config: Its tasks and seed.
        name: The task; the only one over pairs with the labels 0 and 1 if left out.
        out: The file.
        cap: Most new pairs from one group of texts, or from two; 0 for no limit.
        negatives: Whether new negative pairs are written, too.

    Returns:
        What was made, line by line.

    Raises:
        InputError: There is no such task, or its file cannot be read, or the new one not be written.
    """
    task = _task(config, name)
    if out.suffix.lower() not in (".jsonl", ".ndjson"):
        raise InputError(f"--write {out}: JSON Lines are written; let the name end in .jsonl")
    if cap < 0:
        raise InputError(f"--cap = {cap}: must be at least 0")
    must_be_writable(out)
    read = read_for_run(config, task, "train")
    found = close(read.examples, cap, config.seed)
    if not negatives:
        found = found._replace(negatives=[])
    rows = [_row(task, example.texts, example.label, example.id) for example in read.examples]
    rows += list(_new_rows(task, found, {example.id for example in read.examples}))
    with input_errors(f"cannot write {out}"):
        write_whole(out, json_lines(rows))
    lines = [
        f"{len(read.examples)} pairs of {task.train}: {found.groups} groups of three texts or more, the largest of "
        f"{found.largest}",
        f"{len(found.positives)} new positive pairs, {len(found.negatives)} new negative ones, without labels by people"
        + (f"; {found.left_out} more left out by --cap {cap}" if found.left_out else ""),
    ]
    if read.skipped:
        lines.append(f"{len(read.skipped)} bad rows left out, the first: {read.skipped[0]}")
    if read.unlabelled:
        lines.append(
            f"{len(read.unlabelled)} rows of {task.train} have {kind_of(task).lacks(task)} for it and are left out"
        )
    if found.contradictions:
        ids = [read.examples[place].id for place in found.contradictions]
        more = f", and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
        lines.append(
            f"{len(ids)} negative pairs lie in one group, so that labels contradict each other: ids "
            f"{', '.join(ids[:SHOWN])}{more}; nothing follows from them, and they are kept as they are"
        )
    command = f"--tasks.{task.name}.train {out.resolve()}"
    return [plain(line) for line in (*lines, f"written: {out}; train on it with {command}")]


def _task(config: Config, name: str | None) -> Task:
    tasks = {task.name: task for task in config.resolved_tasks() if task.train}
    fits = [name for name, task in tasks.items() if len(task.text) == 2 and _has_zero_or_one(task)]
    if name is None and len(fits) == 1:
        return tasks[fits[0]]
    if name is not None and name in fits:
        return tasks[name]
    known = ", ".join(fits) or "none"
    if name is None:
        raise InputError(f"--task: name a task over pairs with the labels 0 and 1 (this config has: {known})")
    why = "has no two texts with the labels 0 and 1" if name in tasks else "is no task with a training file"
    raise InputError(f"--task {name}: {why}{nearest(name, fits)} (this config has: {known})")


def _has_zero_or_one(task: Task) -> bool:
    """Whether each label is 0 or 1, and neither shares of the two nor any number of them."""
    kind = kind_of(task)
    return kind.one_class_each and kind.classes(task) == ("0", "1")


def _row(task: Task, texts: tuple[str, ...], label: Any, name: str) -> dict[str, Any]:
    own = {task.id: name} if task.id else {}
    return {**own, **dict(zip(task.text, texts, strict=True)), task.label: int(label)}


def _new_rows(task: Task, found: Closure, taken: set[str]) -> Iterator[dict[str, Any]]:
    number = 0
    for label, pairs in ((1, found.positives), (0, found.negatives)):
        for pair in pairs:
            number += 1
            while f"closure-{number}" in taken:
                number += 1
            yield _row(task, pair, label, f"closure-{number}")
