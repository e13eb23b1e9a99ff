"""Full disks, signals and damaged checkpoints: one message each, and then the run goes on as if nothing had been."""

import contextlib
import dataclasses
import errno
import itertools
import os
import random
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mtbert_jax.config import Config
from mtbert_jax.training.folder import RunFolder
from tests.reliability.kills import differences, job_of, last_step, tail, undisturbed, wait_for
from tests.reliability.subprocesses import ForkServer, Job
from tests.reliability.test_kills import everything, written
from tests.tally import Tally

FULL = os.strerror(errno.ENOSPC)


def newest(folder: RunFolder) -> Path:
    return max((p for p in folder.checkpoints.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))


def arrays(step: Path) -> Path:
    """The file that holds most of a step's arrays."""
    return max((p for p in (step / "rest").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def cut(step: Path, rng: random.Random) -> None:
    path = arrays(step)
    path.write_bytes(path.read_bytes()[: rng.randrange(100)])


def flip(step: Path, rng: random.Random) -> None:
    path = arrays(step)
    data = bytearray(path.read_bytes())
    for _ in range(20):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def empty(step: Path, _: random.Random) -> None:
    shutil.rmtree(step)
    step.mkdir()


def undescribed(step: Path, _: random.Random) -> None:
    (step / "about" / "metadata").write_bytes(b'{"config": ')


def stop(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


class Trouble:
    """What can happen to the run in `folder`; each method goes through one start of it."""

    def __init__(self, server: ForkServer, job: Job, folder: RunFolder, rng: random.Random) -> None:
        self.server, self.job, self.folder, self.rng = server, job, folder, rng
        self.count = 0

    def start(self, act: Callable[[int], None] | None = None, **changes: int | str) -> tuple[int, str]:
        """One start, and what may be done to its process after a few more steps; exit status, and what it said."""
        job = dataclasses.replace(self.job, log=f"{self.folder.path}.log{self.count}", **changes)
        self.count += 1
        target = last_step(self.folder) + self.rng.randint(2, 5)
        child = self.server.start(job)
        if act:
            wait_for(child, lambda: last_step(self.folder) >= target)
            act(child.pid)
        status, said = child.wait(), tail(job)
        assert "Traceback" not in said, said
        return status, said

    def disk(self, operation: int, below: str = "") -> None:
        """No file can be made from some operation on; the run is stopped where it does not come to that."""
        status, said = self.start(act=stop, fault=operation, folder=str(self.folder.path / below))
        assert (status in (1, 2) and FULL in said) or status == 0, (status, said)
        assert len(re.findall(r"^mtbert: ", said, re.MULTILINE)) == (status != 0), said

    def large_file(self) -> None:
        """Records or arrays no longer fit into a file."""
        status, said = self.start(file_limit=6000)
        assert status == 1
        assert os.strerror(errno.EFBIG) in said

    def signal(self, number: signal.Signals) -> None:
        status, said = self.start(act=lambda pid: os.kill(pid, number))
        assert status == (130 if number == signal.SIGINT else 0)
        assert "interrupted and saved; go on with: mtbert train" in said
        assert newest(self.folder).name == str(last_step(self.folder))

    def damage(self, how: Callable[[Path, random.Random], None]) -> None:
        """The newest checkpoint is damaged; the one before it is what the run goes on from."""
        step = newest(self.folder)
        how(step, self.rng)
        status, said = self.start(act=lambda pid: os.kill(pid, signal.SIGTERM))
        assert status == 0
        assert re.search(rf"^checkpoint of step {step.name} cannot be read: ", said, re.MULTILINE), said
        assert (self.folder.checkpoints / "aside" / f"{step.name}.0").is_dir()


def troubles(trouble: Trouble, count: int) -> Iterator[Callable[[], None]]:
    rng = trouble.rng
    kinds = (
        lambda: trouble.signal(signal.SIGTERM),
        lambda: trouble.damage(flip),
        lambda: trouble.disk(rng.randint(1, 60)),
        lambda: trouble.signal(signal.SIGINT),
        lambda: trouble.damage(cut),
        lambda: trouble.disk(rng.randint(1, 20), "checkpoints"),
        lambda: trouble.damage(empty),
        trouble.large_file,
        lambda: trouble.damage(undescribed),
        lambda: trouble.disk(rng.randint(1, 3), "metrics.jsonl"),
    )
    return itertools.islice(itertools.cycle(kinds), count)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "heads", "full"), [(30, 20, 300)])
def test_whatever_stops_a_run_is_said_in_one_message_and_it_goes_on(
    config: Config, tmp_path: Path, tally: Tally, count: int, heads: int, full: int
) -> None:
    path = written(everything(config, heads, full), tmp_path)
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    with ForkServer(tmp_path / "programs") as server:
        undisturbed(server, job_of(path, whole), whole)
        trouble = Trouble(server, job_of(path, parts), parts, random.Random(0))
        for meet in troubles(trouble, count):
            meet()
        assert last_step(parts) < heads + full
        assert trouble.start()[0] == 0
    tally("faults injected", count)
    shutil.rmtree(parts.checkpoints / "aside")
    assert list(differences(whole, parts)) == []
