"""A long run needs no more at its end than at its beginning."""

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import pytest

from mtbert_jax.config import Config
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.records import read_metrics
from tests.reliability.kills import job_of, last_step, tail
from tests.reliability.subprocesses import ForkServer
from tests.reliability.test_kills import everything, written
from tests.tally import Tally
from tests.training.test_prepare import shapes_of_the_first_epoch

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads /proc, which Linux has")
STEPS = 20_000


@dataclass(frozen=True)
class Need:
    """What a process holds at one moment: bytes of resident memory, open files, and its threads' numbers.

    Workers of tensorstore's pool are left out: it writes checkpoints, ends a thread that had no work for 20 seconds
    and starts it again for the next save, so their number tells how fast steps go, and nothing else.
    """

    memory: int
    files: int
    threads: frozenset[str]


def need_of(pid: int) -> Need:
    process = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text(encoding="ascii").splitlines())
    files = len(list((process / "fd").iterdir()))
    return Need(1024 * int(status["VmRSS"].split()[0]), files, frozenset(_threads(process / "task")))


def _threads(tasks: Path) -> Iterator[str]:
    for task in tasks.iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended since it was listed
            if (task / "comm").read_text(encoding="ascii").strip() != "ts_pool_worker":
                yield task.name


def lasting(needs: list[Need]) -> set[str]:
    """Threads that were there most of the time."""
    seen = Counter(thread for need in needs for thread in need.threads)
    return {thread for thread, times in seen.items() if times > len(needs) / 2}


@pytest.mark.slow
def test_memory_files_threads_and_shapes_stay_as_they_were_over_20_000_steps(
    config: Config, tmp_path: Path, tally: Tally
) -> None:
    config = replace(everything(config, 20, STEPS), log_every_steps=50, eval_every_steps=2000, save_every_steps=1000)
    config = replace(config, batch_size=2, lengths=(8, 16))
    folder = RunFolder(tmp_path / "run")
    job = replace(job_of(written(config, tmp_path), folder), environment={"XLA_FLAGS": ""})  # fully optimized
    needs: dict[int, list[Need]] = {}
    with ForkServer(tmp_path / "programs") as server:
        child = server.start(job)
        while child.poll() is None:
            quarter = 4 * last_step(folder) // STEPS
            if quarter < 4:
                needs.setdefault(quarter, []).append(need_of(child.pid))
            time.sleep(0.1)
    assert child.wait() == 0, tail(job)
    early, late = needs[1], needs[3]
    memory = [median(need.memory for need in quarter) for quarter in (early, late)]
    assert memory[1] < 1.01 * memory[0], memory
    files = [median(need.files for need in quarter) for quarter in (early, late)]
    assert files[1] == files[0], files
    one_overseer = 1  # of tensorstore's pool: it comes and goes as the workers do, and has no name to know it by
    threads = lasting(early), lasting(late)
    assert len(threads[1] - threads[0]) <= one_overseer, threads
    assert len(threads[0] - threads[1]) <= one_overseer, threads
    *_, stage = (record for record in read_metrics(folder.metrics) if record["kind"] == "stage")
    assert stage["compiled_shapes"] == len(shapes_of_the_first_epoch(config, "full")) + 1
    tally("steps of one run, flat in memory", STEPS)


def test_threads_that_stay_are_seen_and_those_of_the_pool_are_not() -> None:
    def needs() -> list[Need]:
        return [need_of(os.getpid()) for _ in range(3)]

    done, before = threading.Event(), needs()
    threads = [threading.Thread(target=done.wait) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
        staying = {str(thread.native_id) for thread in threads}
        after = needs()
        assert staying <= lasting(after) - lasting(before)
        assert lasting(after[:1] + before) & staying == set()  # there once, not most of the time
        pooled = str(threads[0].native_id)
        Path(f"/proc/self/task/{pooled}/comm").write_text("ts_pool_worker", encoding="ascii")
        assert lasting(needs()) & staying == staying - {pooled}
    finally:
        done.set()
        for thread in threads:
            thread.join()
