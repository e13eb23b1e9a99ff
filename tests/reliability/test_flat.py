"""A long run needs no more at its end than at its beginning."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest

from mtbert_jax.config import Config
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.records import read_metrics
from tests.reliability.kills import job_of, last_step, tail
from tests.reliability.nursery import Nursery
from tests.reliability.test_kills import everything, written
from tests.tally import Tally
from tests.training.test_prepare import shapes_of_the_first_epoch

STEPS = 20_000


@dataclass(frozen=True)
class Need:
    """What a process holds at one moment: bytes of resident memory, open files, threads."""

    memory: float
    files: float
    threads: float


def need_of(pid: int) -> Need:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines())
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Need(1024 * int(status["VmRSS"].split()[0]), files, int(status["Threads"]))


def median(needs: list[Need]) -> Need:
    def of(read: Callable[[Need], float]) -> float:
        return statistics.median(read(need) for need in needs)

    return Need(of(lambda n: n.memory), of(lambda n: n.files), of(lambda n: n.threads))


@pytest.mark.slow
def test_memory_files_threads_and_shapes_stay_as_they_were_over_20_000_steps(
    config: Config, tmp_path: Path, tally: Tally
) -> None:
    config = replace(everything(config, 20, STEPS), log_every_steps=50, eval_every_steps=2000, save_every_steps=1000)
    config = replace(config, batch_size=2, lengths=(8, 16))
    folder = RunFolder(tmp_path / "run")
    job = replace(job_of(written(config, tmp_path), folder), environment={"XLA_FLAGS": ""})  # fully optimized
    needs: dict[int, list[Need]] = {}
    with Nursery(tmp_path / "programs") as nursery:
        child = nursery.start(job)
        while child.poll() is None:
            quarter = 4 * last_step(folder) // STEPS
            if quarter < 4:
                needs.setdefault(quarter, []).append(need_of(child.pid))
            time.sleep(0.1)
    assert child.wait() == 0, tail(job)
    early, late = median(needs[1]), median(needs[3])
    assert late.memory < 1.01 * early.memory, (asdict(early), asdict(late))
    assert (late.files, late.threads) == (early.files, early.threads)
    *_, stage = (record for record in read_metrics(folder.metrics) if record["kind"] == "stage")
    assert stage["compiled_shapes"] == len(shapes_of_the_first_epoch(config, "full")) + 1
    tally("steps of one run, flat in memory", STEPS)
