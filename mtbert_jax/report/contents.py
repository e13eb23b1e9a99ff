"""What a run folder tells: its config, its records, its scores, and its dev predictions beside the data files."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mtbert_jax.config import Config, TaskConfig
from mtbert_jax.data.readers import SPLITS, read_for_run
from mtbert_jax.errors import InputError
from mtbert_jax.results.rows import dev_predictions
from mtbert_jax.tasks import kind_of
from mtbert_jax.tasks.arrays import stack_labels
from mtbert_jax.tasks.losses import of_places
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.logits import load_logits
from mtbert_jax.training.records import Record, read_metrics
from mtbert_jax.types import Example

MOST_WINDOWS = 40  # points of a curve of training records


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
        bare = cls.read_records(path, name, data_dir)
        folder, config, results = bare.folder, bare.config, bare.results
        notes, sizes, judged = [], {}, {}
        if results is None and folder.results.exists():
            notes.append(f"{folder.results} is not what a run writes; mtbert train {path} --resume writes it again")
        if not config.tasks:
            notes.append(f"{folder.config} has no [[tasks]], which every run has; was the file cut off?")
        logits = load_logits(folder) or {}
        for task in config.resolved_tasks():
            try:
                read = {s: read_for_run(config, task, s).examples for s in SPLITS if getattr(task, s)}
                sizes[task.name] = {str(split): len(examples) for split, examples in read.items()}
                if results is not None and read.get("dev") and not kind_of(task).auxiliary:
                    judged[task.name] = _judge(folder, task, read["dev"], logits.get(task.name))
            except InputError as error:
                notes.append(f"task {task.name}: {error}")
        return replace(bare, sizes=sizes, judged=judged, notes=tuple(notes))

    @classmethod
    def read_records(cls, path: Path, name: str, data_dir: str | None = None) -> "RunContents":
        """Reads config, records and results of a run folder, and no data file or prediction."""
        folder = RunFolder(path)
        config = folder.load_config()
        config = replace(config, data_dir=data_dir or config.data_dir, out=str(path))
        return cls(name, folder, config, tuple(read_metrics(folder.metrics)), folder.load_results(), {}, {}, ())

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
        found = [(record["step"], _number(record, keys)) for record in self.of(kind)]
        return [step for step, value in found if value is not None], [value for _, value in found if value is not None]

    def means(self, *keys: str) -> tuple[list[int], list[float]]:
        """Last steps of `windows`, and means there of one number of the training records, weighted by their steps."""
        steps, values = [], []
        for window in self.windows:
            value, count = _weighted(window, keys)
            if count:
                steps.append(window[-1].record["step"])
                values.append(value)
        return steps, values

    @cached_property
    def parts(self) -> list["Part"]:
        """Training records, each with the number of steps that it is about: those since the record before it."""
        found, before = [], 0
        for record in self.of("train"):
            found.append(Part(record, max(record["step"] - before, 1)))
            before = record["step"]
        return found

    @cached_property
    def window_steps(self) -> int:
        """Steps of a window: those of a usual record, or a multiple, so that there are about `MOST_WINDOWS` of them."""
        counts = [part.steps for part in self.parts]
        usual = max(set(counts), key=lambda count: (counts.count(count), count), default=1)
        return usual * max(1, -(-sum(counts) // (usual * MOST_WINDOWS)))

    @cached_property
    def windows(self) -> list[list["Part"]]:
        """Training records in windows of about as many steps each, none across stages.

        The last record of a stage is about the steps that are left, often few, and its means scatter more than those of
        the others. So a rest of less than a window belongs to the window before it, unless the stage has two
        only.
        """
        found: list[list[Part]] = []
        for _, own in itertools.groupby(self.parts, key=lambda part: part.record["stage"]):
            stage: list[list[Part]] = [[]]
            for part in own:
                if sum(one.steps for one in stage[-1]) >= self.window_steps:
                    stage.append([])
                stage[-1].append(part)
            if len(stage) > 2 and sum(one.steps for one in stage[-1]) < self.window_steps:
                stage[-2:] = [stage[-2] + stage[-1]]
            found += stage
        return found

    def share(self, *keys: str) -> tuple[float, int]:
        """Mean of one number over all training records that have it, weighted by their steps; and these steps."""
        return _weighted(self.parts, keys)

    def names(self, key: str) -> list[str]:
        """Tasks, or pairs of them, that training records have a number of."""
        return list(dict.fromkeys(name for record in self.of("train") for name in record.get(key, {})))


class Part(NamedTuple):
    """A training record, and the number of steps that it is about."""

    record: Record
    steps: int


def _number(record: Record, keys: Sequence[str]) -> float | None:
    value: Any = record
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return float(value) if isinstance(value, int | float) else None


def _weighted(parts: Sequence[Part], keys: Sequence[str]) -> tuple[float, int]:
    """Mean of one number over the parts that have it, weighted by their steps; and the number of these steps."""
    known = [(part.steps, value) for part in parts if (value := _number(part.record, keys)) is not None]
    steps = sum(count for count, _ in known)
    return sum(count * value for count, value in known) / max(steps, 1), steps


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
