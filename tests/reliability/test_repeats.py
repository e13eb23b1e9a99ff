"""The same seed on the same machine is the same run, to the last bit.

XLA compiles for as many threads as the process may use cores, and splits sums by them: another number of threads means
other last bits. NPROC sets that number, whatever the cores.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mtbert_jax.config import Config
from mtbert_jax.training.folder import RunFolder
from tests.reliability.kills import differences, job_of, tail
from tests.reliability.subprocesses import ForkServer, Job
from tests.reliability.test_kills import everything, written
from tests.tally import Tally

TWO_THREADS = {"NPROC": "2"}


def trained(job: Job, programs: Path) -> None:
    """Trains in a process that compiles everything itself."""
    with ForkServer(programs) as server:
        assert server.start(job).wait() == 0, tail(job)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "cores", "heads", "full"), [(TWO_THREADS, (0, 1), 4, 12), ({}, (0, 0), 20, 80)]
)
def test_a_run_repeats_itself_compiled_anew_and_with_its_token_cache_deleted(
    config: Config,
    tmp_path: Path,
    tally: Tally,
    environment: dict[str, str],
    cores: tuple[int, int],
    heads: int,
    full: int,
) -> None:
    config = replace(everything(config, heads, full), cache_dir=str(tmp_path / "tokens"))
    path = written(config, tmp_path)
    folders = [RunFolder(tmp_path / name) for name in ("first", "again")]
    for folder, number in zip(folders, cores, strict=True):
        job = replace(job_of(path, folder), cores=number, environment=environment)
        trained(job, tmp_path / f"programs of {folder.path.name}")
        shutil.rmtree(config.cache_dir)
    assert list(differences(*folders)) == []
    tally("runs repeated to the last bit", 1)


@pytest.mark.slow
def test_another_seed_is_another_run(config: Config, tmp_path: Path) -> None:
    path = written(everything(config, 2, 4), tmp_path)
    with ForkServer(tmp_path / "programs") as server:
        folders = [RunFolder(tmp_path / str(seed)) for seed in (0, 1)]
        for folder in folders:
            assert server.start(job_of(path, folder, ("--seed", folder.path.name))).wait() == 0
    assert {"batches", "records", "results", "predictions"} <= set(differences(*folders))
