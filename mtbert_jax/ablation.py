"""Several configs with several seeds: one run after the other, each in a process of its own, and one table."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

from rich.console import Console
from rich.text import Text

from mtbert_jax.checks import check_config
from mtbert_jax.config import Config
from mtbert_jax.report.rows import Row, make_row, read_results
from mtbert_jax.report.tables import write_tables
from mtbert_jax.schema import difference
from mtbert_jax.training.fit import config_changes
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.interrupt import Interrupted, Interruption
from mtbert_jax.training.records import clock_text
from mtbert_jax.types import InputError

FILES = ("encoder", "revision", "data_dir")  # may change from run to resumed run, yet could be others altogether
# Makes a log end with the error: lines in their order, and no remark of JAX's below it.
LAST_WORDS = {"PYTHONUNBUFFERED": "1", "JAX_TRACEBACK_FILTERING": "off"}
POLL = 0.2  # seconds between two looks at a running cell
TAIL = 4096  # bytes at the end of a log in which its last line is looked for


@dataclass(frozen=True)
class Cell:
    """One config with one seed: one run.

    Attributes:
        source: The config's file.
        config: The run, with its seed and its folder.
        overrides: What the command line replaces of the file's fields.
    """

    source: Path
    config: Config
    overrides: tuple[str, ...] = ()

    @property
    def folder(self) -> RunFolder:
        """The run's folder."""
        return RunFolder(Path(self.config.out))

    @property
    def log(self) -> Path:
        """What the run printed."""
        return self.folder.path / "log.txt"

    @property
    def command(self) -> list[str]:
        """The run as a command: it goes on where the folder stands."""
        own = ["--seed", str(self.config.seed), "--out", self.config.out, "--resume"]
        return [sys.executable, "-m", "mtbert_jax", "train", str(self.source), *own, *self.overrides]

    @property
    def finished(self) -> bool:
        """Whether the results of this very run are there."""
        return read_results(self.folder, self.config) is not None

    def changes(self) -> list[str]:
        """What makes the run in the folder another one than this, one line per field; empty where none is there."""
        return config_changes(self.folder.load_config(), self.config) if self.folder.config.is_file() else []

    def __str__(self) -> str:
        return f"{self.source.stem} seed {self.config.seed}"


@dataclass(frozen=True)
class Together:
    """Cells of one config whose seeds train in one process.

    Attributes:
        cells: Two or more, which differ in their seeds.
    """

    cells: tuple[Cell, ...]

    @property
    def source(self) -> Path:
        """The config's file."""
        return self.cells[0].source

    @property
    def folder(self) -> RunFolder:
        """The folder of the runs' folders."""
        return RunFolder(self.cells[0].folder.path.parent)

    @property
    def log(self) -> Path:
        """What the process printed."""
        return self.folder.path / "log.txt"

    @property
    def command(self) -> list[str]:
        """All runs as one command."""
        seeds = [str(cell.config.seed) for cell in self.cells]
        own = ["--seeds", *seeds, "--out", str(self.folder.path), "--resume"]
        return [sys.executable, "-m", "mtbert_jax", "train", str(self.source), *own, *self.cells[0].overrides]

    @property
    def finished(self) -> bool:
        """Whether the results of all are there."""
        return all(cell.finished for cell in self.cells)

    def changes(self) -> list[str]:
        """What makes a run in a folder another one, as a cell tells it."""
        return next((changes for cell in self.cells if (changes := cell.changes())), [])

    def __str__(self) -> str:
        return f"{self.source.stem} seeds {', '.join(str(cell.config.seed) for cell in self.cells)}"


def jobs(cells: Sequence[Cell], together: bool) -> list[Cell | Together]:
    """The processes that cells run in: one each, or one per config."""
    if not together:
        return list(cells)
    alike = [
        tuple(cell for cell in cells if cell.source == source) for source in dict.fromkeys(c.source for c in cells)
    ]
    return [Together(some) if len(some) > 1 else some[0] for some in alike]


def has_accelerator() -> bool:
    """Whether JAX finds more than a CPU; asked in a process of its own, which lets go of the device again."""
    answer = subprocess.run(
        [sys.executable, "-c", "import jax; print(jax.default_backend())"], capture_output=True, text=True, check=False
    )
    return answer.returncode == 0 and answer.stdout.strip() != "cpu"


def plan(
    configs: Sequence[tuple[Path, Config]], seeds: Sequence[int], out: Path, overrides: Sequence[str] = ()
) -> tuple[Cell, ...]:
    """All cells in the order of their runs: every config with the first seed, then with the second, and so on.

    So the table has all its rows early.

    Args:
        configs: Configs with their files, overrides included.
        seeds: The seeds.
        out: Folder of all run folders.
        overrides: The flags that made them differ from their files.

    Raises:
        InputError: A config is wrong, two cells would share a folder, or a folder holds another run.
    """
    if not seeds:
        raise InputError("give one or more seeds: --seeds 0 1 2")
    stems = [path.stem for path, _ in configs]
    for name, values in (("config name", stems), ("seed", list(map(str, seeds)))):
        twice = [value for value in values if values.count(value) > 1]
        if twice:
            raise InputError(f"{name} {twice[0]} is given twice; each run needs a folder of its own")
    cells = []
    for seed in seeds:
        for path, config in configs:
            folder = out / path.stem / f"seed{seed}"
            cells.append(Cell(path, replace(config, seed=seed, out=str(folder)), tuple(overrides)))
    for cell in cells:
        try:
            check_config(cell.config)
        except InputError as error:
            raise InputError(f"{cell.source}: {error}") from None
        if changes := cell.changes():
            raise InputError(
                f"{cell.folder.path} holds a run with another config ({'; '.join(changes)}); "
                "give another --out, or delete that folder to have it run anew"
            )
    return tuple(cells)


def table(cells: Sequence[Cell]) -> list[Row]:
    """One row per config, in the order of the cells, from what is finished."""
    rows = []
    for source in dict.fromkeys(cell.source for cell in cells):
        runs = [cell for cell in cells if cell.source == source]
        rows.append(make_row(source.stem, runs[0].config, {cell.config.seed: cell.folder for cell in runs}))
    return rows


class Outcome(NamedTuple):
    """How an ablation ended.

    Attributes:
        rows: The table.
        failed: One line for every cell that failed.
    """

    rows: list[Row]
    failed: list[str]


def run(cells: Sequence[Cell], out: Path, console: Console | None = None, together: bool = False) -> Outcome:
    """Runs what is not finished yet; the tables in `out` are written anew after every run.

    Args:
        cells: As `plan` gives them.
        out: The tables' folder.
        console: Where progress is shown; standard error if left out.
        together: Train all seeds of a config in one process.

    Raises:
        Interrupted: A signal came; the running cell has had it too, and has ended.
    """
    console = console or Console(stderr=True)

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    unfinished = [cell for cell in cells if not cell.finished]
    if len(unfinished) < len(cells):
        say(f"{len(cells) - len(unfinished)} of {len(cells)} runs are finished already")
    todo = jobs(unfinished, together)
    for cell in cells:
        for line in _moved(cell):
            say(f"{cell}: {line}; taken for the same, elsewhere")
    rows, failed = None, []
    with Interruption() as interruption:
        for number, job in enumerate(todo, start=1):
            if interruption.status is not None:
                raise Interrupted(interruption.status)
            place = f"[{number}/{len(todo)}] {job}"
            say(f"{place}: started, log in {job.log}")
            since = time.monotonic()
            trouble = run_cell(job, interruption, console)
            took = clock_text(time.monotonic() - since)
            if not trouble:
                say(f"{place}: finished after {took}")
                rows = table(cells)
                write_tables(rows, out)
            elif interruption.status is None:
                say(f"{place}: failed after {took}: {trouble}")
                failed.append(f"{job} failed: {trouble} (log: {job.log})")
            else:
                say(f"{place}: interrupted after {took}")
                raise Interrupted(interruption.status)
    if rows is None:
        rows = table(cells)
        write_tables(rows, out)
    return Outcome(rows, failed)


def _moved(cell: Cell) -> list[str]:
    """Files that the run in a cell's folder had at other places, one line each."""
    if not cell.folder.config.is_file():
        return []
    configs = cell.folder.load_config(), cell.config
    before, after = ({name: getattr(config, name) for name in FILES} for config in configs)
    return difference(before, after)


def run_cell(cell: Cell | Together, interruption: Interruption, console: Console) -> str:
    """Runs one cell to its end, or until a signal that came here, and was passed on, has stopped it.

    Returns:
        Nothing where the run is finished now, else what went wrong.
    """
    try:
        cell.folder.path.mkdir(parents=True, exist_ok=True)
        with cell.log.open("ab") as log:
            if not _lock(log):
                return "another process is still at work in this folder"
            start = log.tell()
            status = console.status(Text("")) if console.is_terminal else contextlib.nullcontext()
            with status as spinner:
                show = (lambda: spinner.update(Text(_last_line(cell.log, start)))) if spinner else None
                code = _wait(cell.command, log, interruption, show)
    except OSError as error:
        return str(error)
    if code == 0 and cell.finished:
        return ""
    if code == 0 and (changes := cell.changes()):
        return f"it was run with another config ({'; '.join(changes)}); has {cell.source} been edited meanwhile?"
    what = f"exit status {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
    return f"{what}: {_last_line(cell.log, start)}"


def _wait(command: list[str], log: BinaryIO, interruption: Interruption, show: Callable[[], None] | None) -> int:
    """Runs a command to its end; a signal that comes meanwhile is passed on, once.

    The process gets a group of its own: of a Ctrl-C, which a terminal sends to the whole group, it sees just the one
    that is passed on.
    """
    with _process(command, log) as process:
        passed = False
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(POLL)
            if interruption.status is not None and not passed:
                process.send_signal(signal.SIGINT if interruption.status == 130 else signal.SIGTERM)
                passed = True
            if show:
                show()


@contextlib.contextmanager
def _process(command: list[str], log: BinaryIO) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(  # noqa: S603 - this very program
        command,
        env={**os.environ, **LAST_WORDS},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:  # a second Ctrl-C: at once
            process.kill()
            process.wait()


def _lock(log: BinaryIO) -> bool:
    """Whether nobody else runs this cell; the lock is the log's, and so also the process's that prints into it."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _last_line(path: Path, start: int) -> str:
    """The last line that is not empty, of what was printed after byte `start`."""
    with path.open("rb") as file:
        file.seek(max(start, path.stat().st_size - TAIL))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines()]
    return next((line for line in reversed(lines) if line), "it printed nothing")
