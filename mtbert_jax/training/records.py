"""What a run tells while it runs: ``metrics.jsonl``, and a progress display on a terminal, plain lines elsewhere."""

import itertools
import json
import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mtbert_jax.config.schema import finite, fits, with_nan
from mtbert_jax.errors import InputError
from mtbert_jax.files import must_be_file, must_lie_in, write_whole
from mtbert_jax.limits import LARGEST_RECORDS, MEBIBYTE
from mtbert_jax.machine import working_seconds
from mtbert_jax.regularizers.base import PLACE
from mtbert_jax.training.update import StepMetrics

Record = dict[str, Any]
_NUMBERS = {"*": (float, None)}
_ANY = {"kind": str, "stage": str, "step": int, "epoch?": float}
SHAPES = {
    "train": {
        **_ANY,
        **dict.fromkeys(("loss", "cosine?", "conflict?", "layer_conflict?", "weight?", "share?"), _NUMBERS),
        "*": _NUMBERS,  # penalties, under the names of their regularisers' titles
        "left_out?": {"*": int},
        "lr?": (float, None),
        "examples_per_second": float,
    },
    "eval": {**_ANY, "split": str, "scores": {"*": (float, None, _NUMBERS)}},
    "affinity": {**_ANY, "effect": {"*": _NUMBERS}},
    "stage": {**_ANY, "compiled_shapes": int, "compile_seconds?": float},
}
"""What each kind of record holds, as `fits` reads it."""


class MetricsFile:
    """Appends records to a JSON Lines file.

    Opened at a step, it first drops the records that lie after it: a resumed run writes those again.
    """

    def __init__(self, path: Path, step: int = 0) -> None:
        kept = [json.dumps(record, ensure_ascii=False) for record in read_metrics(path) if record["step"] <= step]
        write_whole(path, "".join(f"{line}\n" for line in kept) if step else "")
        self._file = path.open("a", encoding="utf-8")

    def write(self, record: Record) -> None:
        """Writes one record and flushes it; NaN and infinities become null, which JSON has a word for."""
        self._file.write(json.dumps(finite(record), ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_metrics(path: Path) -> list[Record]:
    """All records of a run, oldest first, without lines that are none, such as one that a killed process was writing.

    Raises:
        InputError: What lies there is no file of the run, is far too large, or cannot be read.
    """
    must_be_file(path)
    must_lie_in(path.parent, path)
    records = []
    try:
        if path.exists() and path.stat().st_size > LARGEST_RECORDS:
            raise InputError(f"{path} is larger than {LARGEST_RECORDS // MEBIBYTE} MiB")
        with path.open("rb") as file:
            for line in iter(lambda: file.readline(MEBIBYTE), b""):
                with suppress(ValueError, RecursionError):
                    record = json.loads(line)
                    if fits(record, {"kind": str}) and fits(record, SHAPES.get(record["kind"], str)):
                        records.append(record)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    return records


class Clock:
    """Examples per second since it was made, the time that compiling took left out."""

    def __init__(self) -> None:
        self.since = working_seconds()
        self.examples = 0.0

    @property
    def rate(self) -> float:
        """Examples per second; true only once the device has been waited for."""
        return self.examples / max(working_seconds() - self.since, 1e-9)


def step_record(steps: list[StepMetrics], rate: float, lr: float | None) -> Record:
    """One record of several steps: mean losses, penalties, cosines between tasks, weights, and what was left out.

    `rate` is in examples per second, `lr` that of the last step, if there is one.
    """
    found: dict[str, dict[str, list[float]]] = {"loss": {}}
    left_out: Counter[str] = Counter()

    def add(kind: str, name: str, value: Any) -> None:
        found.setdefault(kind, {}).setdefault(name, []).append(float(value))

    for step in steps:
        left_out.update(name for name, finite in step.finite.items() if not finite)
        for kind, values in {"loss": step.losses, **step.penalties}.items():
            for name in values:
                if step.finite[name]:
                    add(kind, name, values[name])
    for step in steps:
        if step.cosines is not None:
            for (i, one), (j, other) in itertools.combinations(enumerate(step.losses), 2):
                add("cosine", f"{one}/{other}", step.cosines[i, j])
                add("conflict", f"{one}/{other}", step.cosines[i, j] < 0)
                for layer, of_layer in step.layers.items():
                    add("layer_conflict", layer, of_layer[i, j] < 0)
        for kind, of_tasks in step.combined.items():
            for task, value in zip(step.losses, of_tasks, strict=True):
                add(kind, task, value)
    record = {kind: _means(values) for kind, values in found.items()}
    counts = {"left_out": dict(left_out)} if left_out else {}
    used = {} if lr is None else {"lr": lr}
    return {**record, **counts, **used, "examples_per_second": rate}


def mean_record(records: Sequence[Record]) -> Record:
    """What is shown of several runs' records: their losses' means, and all their examples."""
    if len(records) == 1:
        return records[0]
    losses: dict[str, list[float]] = {}
    left_out: Counter[str] = Counter()
    for record in records:
        for task, loss in record["loss"].items():
            losses.setdefault(task, []).append(loss)
        left_out.update(record.get("left_out", {}))
    total = sum(record["examples_per_second"] for record in records)
    return {"loss": _means(losses), "left_out": left_out, "examples_per_second": total}


def _means(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: statistics.fmean(numbers) for name, numbers in values.items()}


def pack(steps: list[StepMetrics]) -> tuple[Record, ...]:
    """Metrics of single steps, on the host, as plain values, which JSON keeps exactly; null where not finite.

    Which of NaN and the infinities a number was makes no difference to the record that it becomes part of.
    """
    return tuple(_nulled(jax.tree.map(lambda x: np.asarray(x).tolist(), step._asdict())) for step in steps)


def _nulled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nulled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_nulled(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def unpack(packed: tuple[Record, ...]) -> list[StepMetrics]:
    """What `pack` packed."""

    def arrays(values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: np.array(value, np.float32) for name, value in values.items()}

    return [
        StepMetrics(
            losses=with_nan(step["losses"]),
            penalties=with_nan(step.get("penalties", {})),
            finite=step["finite"],
            cosines=None if step["cosines"] is None else np.array(step["cosines"], np.float32),  # type: ignore[arg-type]
            layers=arrays(step.get("layers", {})),
            combined=arrays(step.get("combined", {})),
        )
        for step in packed
    ]


def numbers(record: Record) -> Iterator[tuple[str, float]]:
    """The finite numbers of a record, each under a name.

    >>> dict(numbers({"kind": "train", "stage": "all", "step": 2, "loss": {"sst": 1.5}, "lr": 0.1}))
    {'train/loss/sst': 1.5, 'train/lr': 0.1}
    >>> dict(numbers({"kind": "eval", "step": 2, "split": "dev", "scores": {"sst": {"f1": 0.5}, "average": 0.5}}))
    {'dev/sst/f1': 0.5, 'dev/average': 0.5}
    """
    values = {name: value for name, value in record.items() if name not in ("kind", "stage", "step", "split", "scores")}
    yield from _flat(record["kind"], values)
    yield from _flat(record.get("split", ""), record.get("scores", {}))


def _flat(prefix: str, values: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(f"{prefix}/{name}", value)
        elif isinstance(value, int | float) and math.isfinite(value):
            yield f"{prefix}/{name}", float(value)


def columns(records: Sequence[Record]) -> dict[str, list[Any]]:
    """Records as columns of one length: `kind`, `stage`, `step`, `epoch`, and every number that `numbers` names.

    >>> columns([{"kind": "train", "stage": "all", "step": 2, "loss": {"sst": 1.5}}])
    {'kind': ['train'], 'stage': ['all'], 'step': [2], 'epoch': [None], 'train/loss/sst': [1.5]}
    """
    places = [{key: record.get(key) for key in PLACE} for record in records]
    others = [{key: value for key, value in record.items() if key != "epoch"} for record in records]
    rows = [{**place, **dict(numbers(record))} for place, record in zip(places, others, strict=True)]
    names = dict.fromkeys((*PLACE, *(name for row in rows for name in row)))
    return {name: [row.get(name) for row in rows] for name in names}
