"""A run that is killed again and again, beside the same run undisturbed."""

import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.records import read_metrics
from tests.reliability.subprocesses import Child, ForkServer, Job

KINDS = ("step", "save", "start", "save")
LAST = 2  # kills after the last step, while scores and predictions are written
OF_THE_CLOCK = {"examples_per_second", "compiled_shapes", "compile_seconds"}
OF_THE_MACHINE = {"seconds", "peak_memory_bytes", "device", "config"}


@dataclass
class Outcome:
    """What a run has survived.

    Attributes:
        kills: Kills by moment: at a random `step`, in a `save`, at the `start`, at the `end`.
        unfinished: Saves that a kill cut off.
        starts: Starts of the killed run.
        steps: Steps of the undisturbed run.
        gathered: Batches that the killed run gathered, those included that it had to do again.
        differences: What differs from the undisturbed run; nothing should.
    """

    kills: Counter[str] = field(default_factory=Counter)
    unfinished: int = 0
    starts: int = 0
    steps: int = 0
    gathered: int = 0
    differences: list[str] = field(default_factory=list)


def survive(server: ForkServer, config: Path, place: Path, kills: int, seed: int = 0, *overrides: str) -> Outcome:
    """Trains `config` below `place` once undisturbed and once killed `kills` times; says what differs."""
    whole, parts = RunFolder(place / "whole"), RunFolder(place / "parts")
    outcome, rng = Outcome(), random.Random(seed)
    for folder in (whole, parts):
        shutil.rmtree(folder.path, ignore_errors=True)
    startup = undisturbed(server, job_of(config, whole, overrides), whole)
    outcome.steps = last_step(whole)
    aims = _aims(rng, kills, outcome.steps)
    job = job_of(config, parts, overrides)
    while True:
        child = server.start(job)
        outcome.starts += 1
        kind, target = next(aims, ("", 0))
        if kind:
            if kind == "start":
                _sleep(child, rng.uniform(0, 1.2 * startup))
            elif kind == "end":
                wait_for(child, lambda: last_step(parts) == outcome.steps)
                _sleep(child, rng.uniform(0, 1.0))
            else:
                wait_for(child, lambda least=target: last_step(parts) >= least)
                if kind == "save":
                    wait_for(child, lambda: bool(_unfinished(parts)))
                _sleep(child, rng.uniform(0, 0.03))
            if child.poll() is None:
                child.kill()
                outcome.kills[kind] += 1
                outcome.unfinished += bool(_unfinished(parts))
        if child.wait() == 0:
            break
        if child.wait() != -9:
            raise AssertionError(f"a start ended with status {child.wait()}: {tail(job)}")
    outcome.gathered = len(_batches(parts)[1])
    outcome.differences = list(differences(whole, parts))
    return outcome


def differences(one: RunFolder, other: RunFolder) -> Iterator[str]:
    """What two runs do not have in common to the last bit: batches, records, checkpoints, scores, predictions."""
    for name, of in {"batches": lambda f: _batches(f)[0], "records": _records, "results": _results}.items():
        if of(one) != of(other):
            yield name
    if any(len(sums) > 1 for sums in (*_batches(one)[0].values(), *_batches(other)[0].values())):
        yield "batches of one step"
    steps = [sorted(p.name for p in folder.checkpoints.iterdir()) for folder in (one, other)]
    if steps[0] != steps[1]:
        yield f"checkpoints {steps[0]} and {steps[1]}"
    for step in set(steps[0]) & set(steps[1]):
        a, b = (_arrays(folder.checkpoints / step) for folder in (one, other))
        yield from (f"{name} at step {step}" for name in a.keys() | b.keys() if not _equal(a.get(name), b.get(name)))
    files = [{p.name: p.read_bytes() for p in folder.predictions.glob("*.csv")} for folder in (one, other)]
    if not files[0] or files[0] != files[1]:
        yield "predictions"


def undisturbed(server: ForkServer, job: Job, folder: RunFolder) -> float:
    """Runs to the end; seconds to the first record, on the second of two starts, when programs are compiled."""
    child = server.start(job)
    wait_for(child, lambda: last_step(folder) > 0)
    child.kill()
    shutil.rmtree(folder.path)
    child, since = server.start(job), time.monotonic()
    wait_for(child, lambda: last_step(folder) > 0)
    startup = time.monotonic() - since
    if child.wait(3600) != 0:
        raise AssertionError(f"the undisturbed run failed: {tail(job)}")
    return startup


def job_of(config: Path, folder: RunFolder, overrides: tuple[str, ...] = ()) -> Job:
    """Training, or going on with it, in `folder`; its log and the list of its batches lie beside that."""
    args = ("train", str(config), *overrides, "--out", str(folder.path), "--resume")
    return Job(args, f"{folder.path}.log", f"{folder.path}.batches")


def _aims(rng: random.Random, kills: int, steps: int) -> Iterator[tuple[str, int]]:
    """Moments, evenly over the run: their kind, and the step that must have been reached."""
    last = min(LAST, kills // 4)
    for number in range(kills - last):
        yield KINDS[number % len(KINDS)], int(steps * (number + rng.random()) / (kills - last + 1))
    for _ in range(last):
        yield "end", steps


def _sleep(child: Child, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    wait_for(child, lambda: time.monotonic() >= deadline)


def wait_for(child: Child, ready: Callable[[], bool]) -> None:
    """Returns when `ready` holds, or the process has ended."""
    while child.poll() is None and not ready():
        time.sleep(0.0005)


def last_step(folder: RunFolder) -> int:
    """The step of the newest record."""
    try:
        with folder.metrics.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 4000))
            lines = file.read().split(b"\n")[:-1]
        return int(json.loads(lines[-1])["step"])
    except (OSError, IndexError, ValueError):
        return 0


def _unfinished(folder: RunFolder) -> list[Path]:
    return list(folder.checkpoints.glob("*tmp*"))


def tail(job: Job) -> str:
    """The end of what a job has printed."""
    return Path(job.log).read_text(encoding="utf-8", errors="replace")[-2000:]


def _batches(folder: RunFolder) -> tuple[dict[str, set[str]], list[str]]:
    """Sums of the rows by stage and step, and all lines; the file lies beside the folder."""
    lines = Path(f"{folder.path}.batches").read_text(encoding="utf-8").splitlines()
    found: dict[str, set[str]] = {}
    for line in lines:
        place, _, rows = line.rpartition(" ")
        found.setdefault(place, set()).add(rows)
    return found, lines


def _records(folder: RunFolder) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k not in OF_THE_CLOCK} for record in read_metrics(folder.metrics)]


def _results(folder: RunFolder) -> dict[str, Any]:
    return {k: v for k, v in (folder.load_results() or {}).items() if k not in OF_THE_MACHINE}


def _arrays(step: Path) -> dict[str, np.ndarray]:
    """All arrays of a checkpoint, by item and path, read by orbax alone."""
    found = {}
    with ocp.PyTreeCheckpointer() as reader:
        for item in ("params", "rest", "teacher"):
            if (step / item).is_dir():
                for path, leaf in jax.tree_util.tree_leaves_with_path(reader.restore(step / item)):
                    is_key = jax.numpy.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key)
                    value = jax.random.key_data(leaf) if is_key else leaf
                    found[f"{item}{jax.tree_util.keystr(path)}"] = np.asarray(value)
    return found


def _equal(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    return one is not None and other is not None and one.dtype == other.dtype and one.tobytes() == other.tobytes()
