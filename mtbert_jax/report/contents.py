"""What a run folder tells: its config, its records, its scores, and its dev predictions beside the data files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mtbert_jax.config import Config, TaskConfig
from mtbert_jax.data.readers import SPLITS, read_for_run
from mtbert_jax.errors import InputError
from mtbert_jax.results.rows import dev_predictions
from mtbert_jax.tasks import kind_of
from mtbert_jax.tasks.kind import stack_labels
from mtbert_jax.tasks.losses import of_places
from mtbert_jax.training.active import load_logits
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.records import Record, read_metrics
from mtbert_jax.types import Example


class Judgement(NamedTuple):
    """One task's dev file beside what the run's best checkpoint says of it; no losses where no logits are kept."""

    task: TaskConfig
    examples: Sequence[Example]
    predicted: Float[np.ndarray, " example"]
    losses: Float[np.ndarray, " example"] | None

    @property
    def labels(self) -> Float[np.ndarray, " example"]:
        """The labels in the file."""
        return stack_labels(self.task, [example.label for example in self.examples])

    def worst(self, number: int) -> list[int]:
        """Examples that were missed by most: by the largest loss, or else the largest error."""
        errors = kind_of(self.task).errors(self.predicted, self.labels)
        badness = errors if self.losses is None else self.losses
        missed = np.flatnonzero(errors > 0)
        return missed[np.argsort(-badness[missed], kind="stable")][:number].tolist()


@dataclass(frozen=True)
class RunContents:
    """One run.

    Attributes:
        name: What to call it.
        config: Its config, with the data and the run where they are now.
        records: Its records, oldest first.
        results: Its results; None for a run that has not ended.
        sizes: Examples of each task, by split; empty where data files cannot be read.
        judged: Dev predictions, by task.
        notes: What could not be shown, and why.
    """

    name: str
    folder: RunFolder
    config: Config
    records: tuple[Record, ...]
    results: dict[str, Any] | None
    sizes: dict[str, dict[str, int]]
    judged: dict[str, Judgement]
    notes: tuple[str, ...]

    @classmethod
    def read(cls, path: Path, name: str, data_dir: str | None = None) -> "RunContents":
        """Reads a run folder, finished or not; `data_dir` stands in for the config's."""
        folder = RunFolder(path)
        config = folder.load_config()
        config = replace(config, data_dir=data_dir or config.data_dir, out=str(path))
        results, notes, sizes, judged = folder.load_results(), [], {}, {}
        logits = load_logits(folder) or {}
        for task in config.resolved_tasks():
            try:
                read = {s: read_for_run(config, task, s).examples for s in SPLITS if getattr(task, s)}
                sizes[task.name] = {str(split): len(examples) for split, examples in read.items()}
                if results is not None and read.get("dev") and not kind_of(task).auxiliary:
                    judged[task.name] = _judge(folder, task, read["dev"], logits.get(task.name))
            except InputError as error:
                notes.append(f"task {task.name}: {error}")
        return cls(name, folder, config, tuple(read_metrics(folder.metrics)), results, sizes, judged, tuple(notes))

    def without_texts(self) -> "RunContents":
        """The same with ids in place of texts, for data that must not be passed on."""
        judged = {
            name: one._replace(examples=[example._replace(texts=(example.id,)) for example in one.examples])
            for name, one in self.judged.items()
        }
        return replace(self, judged=judged)

    def of(self, kind: str) -> list[Record]:
        """Records of one kind: `train`, `eval` or `stage`."""
        return [record for record in self.records if record["kind"] == kind]

    @property
    def step(self) -> int:
        """The last step that is on record."""
        return max((record["step"] for record in self.records), default=0)

    @property
    def scores(self) -> dict[str, Any]:
        """Dev scores of the best checkpoint; of the last evaluation, where the run has not ended."""
        if self.results is not None:
            return self.results.get("dev", {})
        return next((record["scores"] for record in reversed(self.of("eval"))), {})

    def series(self, kind: str, *keys: str) -> tuple[list[int], list[float]]:
        """Steps and values of one number in all records of a kind that have it."""
        steps, values = [], []
        for record in self.of(kind):
            value: Any = record
            for key in keys:
                value = value.get(key) if isinstance(value, dict) else None
            if isinstance(value, int | float):
                steps.append(record["step"])
                values.append(float(value))
        return steps, values

    def names(self, key: str) -> list[str]:
        """Tasks, or pairs of them, that training records have a number of."""
        return list(dict.fromkeys(name for record in self.of("train") for name in record.get(key, {})))


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """The run folders among `paths` and, where one is none itself, in the folders below it; there must be one."""
    found: list[Path] = []
    for path in paths:
        runs = list(_runs_below(path, 3))
        if not runs:
            raise InputError(f"{path} holds no run: there is no config.toml in it, or in a folder below it")
        found += runs
    return list(dict.fromkeys(found))


def _runs_below(path: Path, depth: int) -> Iterator[Path]:
    if (path / "config.toml").is_file():
        yield path
    elif depth and path.is_dir():
        for below in sorted(path.iterdir()):
            yield from _runs_below(below, depth - 1)


def _judge(folder: RunFolder, task: TaskConfig, examples: Sequence[Example], logits: np.ndarray | None) -> Judgement:
    _, predicted = dev_predictions(folder, task, examples)
    if any(example.label is None for example in examples):
        raise InputError(f"{task.dev} has examples without a label")
    losses = None
    kind = kind_of(task)
    labels = stack_labels(task, [example.label for example in examples]).astype(np.float32)
    places = labels.shape[1:] if kind.has_places else ()
    if logits is not None and not kind.of_batch and logits.shape == (len(examples), *places, kind.num_outputs(task)):
        found = kind.loss(logits, labels)  # type: ignore[arg-type]
        losses = np.asarray(of_places(found, labels >= 0) if places else found, np.float64)
    return Judgement(task, examples, predicted, losses)
