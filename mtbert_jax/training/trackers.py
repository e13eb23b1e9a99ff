"""Where records go besides ``metrics.jsonl``: TensorBoard, Weights & Biases.

A writer is never worth a run: one that fails is named once, and training goes on without it. What each has been given
is noted in the run folder *before* it is given, so that no record reaches it twice, whatever kills the run.
"""

import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from mtbert_jax.errors import InputError, first_line, plain
from mtbert_jax.files import write_whole
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.records import Record, numbers

logger = logging.getLogger(__name__)


class TrackerBackend(Protocol):
    """Takes the records of a run, in the order in which they go to ``metrics.jsonl``."""

    def write(self, record: Record) -> None:
        """Takes one record."""

    def close(self) -> None:
        """The run ends, or pauses: nothing comes after this."""


class TensorBoard:
    """Event files in ``tensorboard/`` of the run folder, by tensorboardX.

    Not by its `SummaryWriter`, whose thread could die of a full disk without a word, and then be waited for.
    """

    def __init__(self, folder: RunFolder, config: dict[str, Any], identity: str) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        folder.tensorboard.mkdir(exist_ok=True)
        # Its own name ends with a second: another file that was opened in the same one would be lost.
        self._file = EventsWriter(str(folder.tensorboard / "events"), f".{secrets.token_hex(4)}")

    def write(self, record: Record) -> None:
        """A curve per number; it is on disk when this returns."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        for name, value in numbers(record):
            self._file.write_event(Event(step=record["step"], wall_time=time.time(), summary=scalar(name, value)))
        self._file.flush()

    def close(self) -> None:
        """Closes the event file."""
        self._file.close()


class WeightsAndBiases:
    """A run of Weights & Biases, whose own environment variables say where, such as ``WANDB_PROJECT``, ``WANDB_MODE``.

    It is the same run when this one is resumed.
    """

    def __init__(self, folder: RunFolder, config: dict[str, Any], identity: str) -> None:
        import wandb

        self._run = wandb.init(
            id=identity,
            name=os.environ.get("WANDB_NAME") or str(folder.path),
            dir=str(folder.path),
            config=config,
            resume="allow",
            reinit="create_new",  # runs of several seeds each have their own
        )

    def write(self, record: Record) -> None:
        """A curve per number."""
        self._run.log(dict(numbers(record)), step=record["step"])

    def close(self) -> None:
        """Waits until all is sent."""
        self._run.finish()


BACKENDS: dict[str, Callable[[RunFolder, dict[str, Any], str], TrackerBackend]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}


def check_trackers(names: Sequence[str]) -> None:
    """Refuses writers whose packages are missing; the message says how to install them."""
    for name in names:
        try:
            if name == "tensorboard":
                import tensorboardX  # noqa: F401
            else:
                import wandb  # noqa: F401
        except ImportError:
            package = {"tensorboard": "tensorboardX"}.get(name, name)
            raise InputError(f'writers: "{name}" needs the package {package}: pip install {package}') from None


class Tracker:
    """A writer that gets every record once, and may fail.

    Its note in the run folder holds its identity, and after which record it goes on: a step, and the kinds of record of
    that step.
    """

    def __init__(self, name: str, folder: RunFolder, config: dict[str, Any]) -> None:
        self._name, self._path = name, folder.note(name)
        self._note: dict[str, Any] = {"id": secrets.token_hex(8), "step": -1, "kinds": []} | _read_note(self._path)
        self._writer: TrackerBackend | None = None

        def opened() -> None:
            write_whole(self._path, json.dumps(self._note))
            self._writer = BACKENDS[name](folder, config, self._note["id"])

        self._tried(opened)

    def write(self, record: Record) -> None:
        """Passes a record on that has not been passed on before."""
        writer, step, name = self._writer, record["step"], record.get("kind", "")
        known = self._note["kinds"] if step == self._note["step"] else []
        if writer is None or step < self._note["step"] or name in known:
            return
        self._note |= {"step": step, "kinds": [*known, name]}

        def given() -> None:
            write_whole(self._path, json.dumps(self._note))
            writer.write(record)

        self._tried(given)

    def close(self) -> None:
        """Closes the writer, if it is still there."""
        if self._writer is not None:
            self._tried(self._writer.close)
        self._writer = None

    def _tried(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001 - somebody else's code, and a run of days must not end for it
            self._writer = None
            what = plain(f"writer {self._name}: {type(error).__name__}: {first_line(error)}")
            logger.warning("%s; training goes on without it, --resume tries it again", what)


def _read_note(path: Path) -> dict[str, Any]:
    """What is noted; nothing where that cannot be read."""
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        return {"id": str(note["id"]), "step": int(note["step"]), "kinds": list(note["kinds"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
