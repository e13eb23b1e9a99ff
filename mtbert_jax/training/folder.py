"""The run folder: where everything of a run lies, and who may write there."""

import hashlib
import json
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mtbert_jax.config import Config, load_config
from mtbert_jax.config.schema import fits, with_nan
from mtbert_jax.encoders.config_json import CONFIG
from mtbert_jax.encoders.tokenizer_settings import SETTINGS, TOKENIZER
from mtbert_jax.errors import InputError
from mtbert_jax.files import (
    lock_file,
    must_be_file,
    must_hold_files,
    must_lie_in,
    read_text,
    real,
    try_to_write,
    write_whole,
)
from mtbert_jax.limits import LARGEST_JSON

IDENTITY = ".run"
"""Key of the run's own digest in ``data.json``, beside the tasks; no task can have this name."""
_SCORE = (float, None)
_SCORES = {"*": (float, {"*": _SCORE}, None), "average?": _SCORE, "plain_average?": _SCORE}
RESULTS = {
    "config?": dict,
    "run?": str,
    "seed?": int,
    "step?": int,
    "dev?": _SCORES,
    "test?": _SCORES,
    "seconds?": (float, None),
    "peak_memory_bytes?": (int, None),
    "device?": str,
    "versions?": {"*": str},
}
"""What a run's results hold, as `fits` reads it."""
logger = logging.getLogger(__name__)


def must_lie_apart(out: Path) -> None:
    """Refuses a place in a folder that a run keeps for itself, such as its checkpoints."""
    for place in (real(out), *real(out).parents):
        run = RunFolder(place.parent)
        if place in run.folders and run.config.is_file() and run.data.is_file():
            raise InputError(f"{out} lies in {place.name} of the run {run.path}; give another --out")


class _Inside:
    """A path in a run folder."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: "RunFolder", _: object = None) -> Path:
        return folder.path / self._name


@dataclass(frozen=True)
class RunFolder:
    """Paths inside the run folder that lies at `path`."""

    path: Path

    config = _Inside("config.toml")
    """The run's config, complete, as TOML."""
    encoder = _Inside("encoder")
    """The encoder's ``config.json`` and tokenizer: with the checkpoints, all that predicting needs."""
    checkpoints = _Inside("checkpoints")
    """Orbax's folder."""
    metrics = _Inside("metrics.jsonl")
    """One JSON record per log interval and evaluation."""
    predictions = _Inside("predictions")
    """Prediction files in the course's format."""
    submission = _Inside("submission")
    """Prediction files to hand in: of every row, checked."""
    data = _Inside("data.json")
    """Digests of the training and dev examples that the run began with, by task and split; and the run's own."""
    logits = _Inside("predictions/dev-logits.npz")
    """Logits of the dev files, by task, in NumPy's format."""
    tensorboard = _Inside("tensorboard")
    """TensorBoard's event files."""
    wandb = _Inside("wandb")
    """What Weights & Biases keeps here."""
    lock = _Inside(".lock")
    """Locked while a process trains here; it tells which."""
    results = _Inside("results.json")
    """Scores of the best checkpoint."""

    def note(self, writer: str) -> Path:
        """What a writer has been given of the records."""
        return self.path / f".{writer}.json"

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders that are a run's own."""
        return (self.checkpoints, self.predictions, self.submission, self.encoder, self.tensorboard, self.wandb)

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that are a run's own, beside those in its folders."""
        return (self.config, self.data, self.metrics, self.results)

    def read_again(self) -> Iterator[tuple[Path, str]]:
        """What later commands read of the folder, each with words for it."""
        written = (path for own in (self.predictions, self.submission) for path in own.glob("*-output.csv"))
        for path in (*self.files, self.logits, *written, self.checkpoints, self.encoder):
            yield path, f"{path.relative_to(self.path)} of the run {self.path}"

    @property
    def has_checkpoint(self) -> bool:
        """Whether a step has been saved here, sound or not."""
        return any(path.name.isdigit() for path in self.checkpoints.glob("*"))

    @property
    def is_used(self) -> bool:
        """Whether a run lies here."""
        return self.config.is_file() or any(self.checkpoints.glob("*"))

    def check_writable(self) -> None:
        """Refuses a folder that cannot be written, or that another process trains in; leaves nothing behind."""
        for path in (*self.files, self.logits, self.lock):
            must_be_file(path)
        below = (self.checkpoints, self.predictions, self.encoder)
        for place in (self.path, *(folder for folder in below if os.path.lexists(folder))):
            try:
                try_to_write(place)
            except OSError as error:
                raise self._unwritable(error, place) from None
        if self.lock.is_file():
            try:
                with self.lock.open("a+", encoding="utf-8") as file:
                    if not lock_file(file):
                        raise self._held(file)
            except OSError as error:
                raise self._unwritable(error, self.lock) from None

    def hold(self) -> IO[str]:
        """Keeps other processes from training here until what is returned is closed, or this process ends.

        Where files cannot be locked, as on Windows and some network drives, nobody is kept out.

        Raises:
            InputError: Another process trains here, or the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = self.lock.open("a+", encoding="utf-8")
            if lock_file(file):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}")
                file.flush()
                return file
        except OSError as error:
            raise self._unwritable(error, self.path) from None
        with file:
            raise self._held(file)

    def _unwritable(self, error: OSError, place: Path) -> InputError:
        inside = "" if place == self.path else f" ({place})"
        return InputError(f"cannot write the run folder {self.path}{inside}: {error.strerror or error}")

    def _held(self, file: IO[str]) -> InputError:
        file.seek(0)
        holder = file.read().strip()
        return InputError(f"{self.path}: another process trains here ({holder}); wait for it, or give another --out")

    def load_results(self) -> dict[str, Any] | None:
        """What ``results.json`` holds; None where it is missing, was cut off, or is not what this run writes."""
        results = self._load(self.results, RESULTS)
        if results is None:
            return None
        if not self.is_own(results.get("run", "")):
            logger.warning("%s: is of another run, and is passed over; was it copied here?", self.results)
            return None
        return {**results, **{split: with_nan(results[split]) for split in ("dev", "test") if split in results}}

    def load_data(self) -> dict[str, dict[str, str]]:
        """What ``data.json`` holds; nothing where `load_results` would be None."""
        return self._load(self.data, {"*": {"*": str}}) or {}

    def load_identity(self) -> str:
        """The digest by which checkpoints are the run's; empty where none is on record."""
        return self.load_data().get(IDENTITY, {}).get("digest", "")

    def is_own(self, run: str) -> bool:
        """Whether a file that carries the digest of a run is this run's; empty where none is on record."""
        own = self.load_identity()
        return not run or not own or run == own

    def sign_encoder(self) -> None:
        """Puts a digest of the encoder's description on record, so that another one is noticed."""
        data = self.load_data()
        own = {**data.get(IDENTITY, {}), "encoder": self._encoder_digest()}
        write_whole(self.data, json.dumps({**data, IDENTITY: own}, indent=1) + "\n")

    def check_encoder(self) -> None:
        """Refuses the description of an encoder that is not what the run has written."""
        wanted = self.load_data().get(IDENTITY, {}).get("encoder", "")
        if wanted and wanted != self._encoder_digest():
            raise InputError(
                f"{self.encoder} is not as the run has written it: config.json or the tokenizer was changed or comes "
                "from another run; put the run's own back"
            )

    def _encoder_digest(self) -> str:
        files = [self.encoder / name for name in (CONFIG, TOKENIZER, SETTINGS)]
        texts = [file.read_bytes().replace(b"\r\n", b"\n") if file.is_file() else b"" for file in files]
        return hashlib.sha256(b"\0".join(texts)).hexdigest()

    def _load(self, file: Path, shape: Any) -> dict[str, Any] | None:
        try:
            must_be_file(file)
            must_lie_in(self.path, file)
            found: dict[str, Any] = json.loads(read_text(file, LARGEST_JSON))
        except (OSError, ValueError, RecursionError, InputError):
            return None
        return found if fits(found, shape) else None

    def load_config(self) -> Config:
        """The config of the run that lies here; `InputError` where there is none, or it leads out of the folder."""
        if not self.config.is_file():
            seeds = sorted(path.parent.name for path in self.path.glob("seed*/config.toml"))
            hint = f"; it holds the runs {', '.join(seeds)}: name one of them" if seeds else ""
            raise InputError(f"{self.path} is no run folder: it has no config.toml{hint}")
        # Whoever made it: it leads nowhere else.
        must_lie_in(self.path, self.config)
        must_hold_files(self.encoder)
        return load_config(self.config, self.path)
