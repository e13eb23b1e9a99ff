"""What a run tells while it runs: ``metrics.jsonl``, and a progress display on a terminal, plain lines elsewhere."""

import itertools
import json
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mtbert_jax.config.schema import finite, fits
from mtbert_jax.errors import InputError
from mtbert_jax.files import must_be_file, must_lie_in, write_whole
from mtbert_jax.limits import LARGEST_RECORDS, MEBIBYTE
from mtbert_jax.training.step import StepMetrics

Record = dict[str, Any]
PLACE = ("kind", "stage", "step", "epoch")
"""What every record says of itself, before its numbers."""
_NUMBERS = {"*": (float, None)}
_ANY = {"kind": str, "stage": str, "step": int, "epoch?": float}
SHAPES = {
    "train": {
        **_ANY,
        **dict.fromkeys(("loss", "cosine?", "conflict?"), _NUMBERS),
        "*": _NUMBERS,  # penalties, under the names of their regularisers' titles
        "left_out?": {"*": int},
        "lr": (float, None),
        "examples_per_second": float,
    },
    "eval": {**_ANY, "split": str, "scores": {"*": (float, None, _NUMBERS)}},
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
    """All records of a run, oldest first; a line that was being written when the process died is left out.

    So is any other that is no record.

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
    """Examples per second since it was made."""

    def __init__(self) -> None:
        self.since = time.monotonic()
        self.examples = 0.0

    @property
    def rate(self) -> float:
        """Examples per second; true only once the device has been waited for."""
        return self.examples / max(time.monotonic() - self.since, 1e-9)


def step_record(steps: list[StepMetrics], rate: float, lr: float) -> Record:
    """One record of several steps: mean losses, penalties and cosines between tasks, and what was left out.

    Args:
        steps: Metrics of the steps since the last record, on the host.
        rate: Examples per second.
        lr: Learning rate of the last of these steps.
    """
    losses: dict[str, list[float]] = {}
    penalties: dict[str, dict[str, list[float]]] = {}
    cosine: dict[str, list[float]] = {}
    conflicts: dict[str, list[bool]] = {}
    left_out: dict[str, int] = {}
    for step in steps:
        names = list(step.losses)
        for name in names:
            if step.finite[name]:
                losses.setdefault(name, []).append(float(step.losses[name]))
                for penalty, values in step.penalties.items():
                    if name in values:
                        penalties.setdefault(penalty, {}).setdefault(name, []).append(float(values[name]))
            else:
                left_out[name] = left_out.get(name, 0) + 1
        if step.cosines is not None:
            for i, j in itertools.combinations(range(len(names)), 2):
                pair = f"{names[i]}/{names[j]}"
                cosine.setdefault(pair, []).append(float(step.cosines[i, j]))
                conflicts.setdefault(pair, []).append(bool(step.cosines[i, j] < 0))
    record: Record = {"loss": _means(losses)}
    record |= {penalty: _means(values) for penalty, values in penalties.items()}
    if cosine:
        record |= {"cosine": _means(cosine), "conflict": _means(conflicts)}
    if left_out:
        record["left_out"] = left_out
    return {**record, "lr": lr, "examples_per_second": rate}


def mean_record(records: Sequence[Record]) -> Record:
    """What is shown of several runs' records: their losses' means, and all their examples."""
    if len(records) == 1:
        return records[0]
    losses: dict[str, list[float]] = {}
    left_out: dict[str, int] = {}
    for record in records:
        for task, loss in record["loss"].items():
            losses.setdefault(task, []).append(loss)
        for task, count in record.get("left_out", {}).items():
            left_out[task] = left_out.get(task, 0) + count
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
    arrays = (None if step["cosines"] is None else np.array(step["cosines"], np.float32) for step in packed)
    return [
        StepMetrics(
            losses=_with_nan(step["losses"]),
            penalties={name: _with_nan(values) for name, values in step.get("penalties", {}).items()},
            finite=step["finite"],
            cosines=cosines,  # type: ignore[arg-type]
        )
        for step, cosines in zip(packed, arrays, strict=True)
    ]


def _with_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: math.nan if value is None else value for name, value in values.items()}


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
