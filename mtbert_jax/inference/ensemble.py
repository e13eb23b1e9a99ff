"""An ensemble: the mean of what the models of several runs say."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from mtbert_jax.config import Task
from mtbert_jax.config.schema import convert
from mtbert_jax.data.dataset import Dataset, encode
from mtbert_jax.data.readers import Split, data_files
from mtbert_jax.errors import InputError
from mtbert_jax.files import must_be_writable, real
from mtbert_jax.inference.multitask import MultitaskModel
from mtbert_jax.inference.predictor import Predictor
from mtbert_jax.tasks import kind_of
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.source import seed_folders


@dataclass(frozen=True, eq=False)
class Ensemble(Predictor):
    """Predicts by the mean of the logits of several runs' models, each task by those that have it.

    The models may differ in all but their tasks: in seed, encoder, tokenizer, recipe. A task's fields and data files
    are those of the first model that has it. Tasks that only serve the encoder, such as masked language modelling, are
    left out.

    Attributes:
        models: The models.

    Raises:
        InputError: There is no model, or no task that predicts labels, or a task is another one in two models.
    """

    models: Sequence[MultitaskModel]

    def __post_init__(self) -> None:
        given = tuple(self.models) if isinstance(self.models, Iterable) else None
        if given is None or not all(isinstance(model, MultitaskModel) for model in given):
            raise InputError(
                "an ensemble takes a list of models, each of one run, such as [run.model, other.model]; "
                "Ensemble.from_checkpoints takes run folders"
            )
        object.__setattr__(self, "models", given)  # an iterator would end after the first look
        if not self.models:
            raise InputError("an ensemble needs at least one model")
        if not self.tasks:
            raise InputError("an ensemble needs a task that predicts labels; these models only have auxiliary ones")
        for name in self.tasks:
            (first, one), *others = (
                (number, model.tasks[name]) for number, model in enumerate(self.models, 1) if name in model.tasks
            )
            for number, other in others:
                for what, own, theirs in _differences(one, other):
                    raise InputError(
                        f"task {name} is not the same in all models: its {what} is {own!r} in model {first} and "
                        f"{theirs!r} in model {number}"
                    )

    @classmethod
    def from_checkpoints(
        cls, runs: Iterable[str | Path], which: str = "best", data_dir: str | None = None
    ) -> "Ensemble":
        """Loads the models of several run folders; arguments and errors are those of `MultitaskModel.from_checkpoint`.

        A folder that holds the runs of several seeds stands for all of them.

        Raises:
            InputError: A run is named twice, besides.
        """
        folders = _run_folders(runs)
        for number, folder in enumerate(folders):
            if real(folder) in map(real, folders[:number]):
                raise InputError(f"{folder} is named twice, and would count twice; name it once")
        return cls(tuple(MultitaskModel.from_checkpoint(folder, which, data_dir) for folder in folders))

    @property
    def tasks(self) -> dict[str, Task]:
        """The tasks by name: each as the first model has it."""
        return {name: model.tasks[name] for name, model in self._owners()}

    @property
    def title(self) -> str:
        """The number of models, in words."""
        return f"mean of {len(self.models)} runs"

    def with_both_orders(self, tasks: Sequence[str]) -> "Ensemble":
        """The same, which scores the pairs of these tasks in both orders, and those of no other task."""
        for name in convert(tuple[str, ...], tasks, "tasks"):
            self.task(name)
        return Ensemble(
            tuple(model.with_both_orders([name for name in tasks if name in model.tasks]) for model in self.models)
        )

    def datasets(self, split: Split, labels: bool = True) -> dict[str, Dataset]:
        """One split of every task that has a file for it; `labels` as in `read_split`."""
        return {name: self.dataset(name, split, labels) for name, task in self.tasks.items() if getattr(task, split)}

    def dataset(self, task: str, split: Split, labels: bool = True) -> Dataset:
        """One split of one task; `labels` and errors as in `read_split`."""
        self.task(task)
        return dict(self._owners())[task].dataset(task, split, labels)

    def logits(self, task: str, texts: Sequence[tuple[str, ...]]) -> Float[np.ndarray, "example output"]:
        """Mean logits of texts of one's own, in their order."""
        return _mean([model.logits(task, texts) for model in self._having(task)])

    def cut_off(self, task: str, texts: Sequence[tuple[str, ...]]) -> int:
        """How many texts of one's own are longer than a model reads, by the model for which most are."""
        return max(model.cut_off(task, texts) for model in self._having(task))

    def split_logits(self, datasets: dict[str, Dataset]) -> dict[str, Float[np.ndarray, "example output"]]:
        """Mean logits of all examples of `datasets`, by task."""
        return {
            name: _mean(
                [model.split_logits({name: _as_read_by(model, name, data)})[name] for model in self._having(name)]
            )
            for name, data in datasets.items()
        }

    def __repr__(self) -> str:
        return f"Ensemble({', '.join(map(repr, self.models))})"

    def _owners(self) -> Iterator[tuple[str, MultitaskModel]]:
        """Every task that predicts labels, with the first model that has it."""
        seen = set()
        for model in self.models:
            for name, task in model.tasks.items():
                if name not in seen and not kind_of(task).auxiliary:
                    seen.add(name)
                    yield name, model

    def _having(self, task: str) -> list[MultitaskModel]:
        return [model for model in self.models if task in model.tasks]


def load_predictor(runs: Sequence[Path], which: str = "best", data_dir: str | None = None) -> MultitaskModel | Ensemble:
    """The model of a run folder, or the ensemble of several; errors are those of both."""
    if len(folders := _run_folders(runs)) == 1:
        return MultitaskModel.from_checkpoint(folders[0], which, data_dir)
    return Ensemble.from_checkpoints(runs, which, data_dir)


def files_read_of(runs: Sequence[Path], model: MultitaskModel | Ensemble) -> list[tuple[Path, str]]:
    """Every data file of a model, or of all models of an ensemble, and every file of their runs; each in words."""
    models = model.models if isinstance(model, Ensemble) else (model,)
    data = [file for one in models for file in data_files(one.setup.config)]
    return [*data, *(file for folder in _run_folders(runs) for file in RunFolder(folder).read_again())]


def output_folder(runs: Sequence[Path], output: Path | None, name: Literal["predictions", "submission"]) -> Path:
    """Where files of these runs go: `output`, or the folder of that name in the folder of a single run.

    Raises:
        InputError: There is no run, or there are several and no `output`; or the folder cannot be written, or is a
            run's own for something else.
    """
    folders = _run_folders(runs)
    if output is None and len(folders) > 1:
        raise InputError(f"several runs have no folder of {name} in common; name one with --output")
    found = output or folders[0] / name
    for own in (own for folder in folders for own in RunFolder(folder).folders):
        if real(own) == real(found) and (len(folders) > 1 or own.name != name):
            raise InputError(f"--output {found} is {own.name} of the run {own.parent}; name another folder")
    must_be_writable(found, folder=True)
    return found


def _run_folders(paths: Iterable[str | Path]) -> list[Path]:
    """The run folders; for a folder with the runs of several seeds, those.

    Raises:
        InputError: There is none.
    """
    found = []
    if isinstance(paths, str | PathLike):
        raise InputError(f"expected a list of run folders, got a single one: write [{str(paths)!r}]")
    for path in map(Path, paths):
        found += [own.path for own in seed_folders(path).values()] or [path]
    if not found:
        raise InputError("give one or more run folders")
    return found


def _differences(one: Task, other: Task) -> Iterator[tuple[str, Any, Any]]:
    """What two tasks of one name must have alike, so that the mean of their logits means something, and have not."""
    kinds = kind_of(one), kind_of(other)
    classes = zip(kinds[0].classes(one), kinds[1].classes(other), strict=False)
    pairs: list[tuple[str, Any, Any]] = [
        ("kind", one.kind, other.kind),
        ("number of texts", len(one.text), len(other.text)),
        ("number of outputs", kinds[0].num_outputs(one), kinds[1].num_outputs(other)),
        ("label_range", one.label_range, other.label_range),
        *((f"class {number}", *names) for number, names in enumerate(classes)),
    ]
    return (pair for pair in pairs if pair[1] != pair[2])


def _as_read_by(model: MultitaskModel, name: str, data: Dataset) -> Dataset:
    """The same examples, encoded by a model's own tokenizer and cut off where it cuts them off."""
    tokens = encode(model.setup.config, model.tasks[name], model.setup.tokenizer, data.texts)
    return data._replace(tokens=tokens, other_order=None)


def _mean(logits: list[Float[np.ndarray, "example output"]]) -> Float[np.ndarray, "example output"]:
    """The mean, float32; summed in float64, since `LOWEST` is the lowest float32 there is."""
    return np.asarray(np.mean(logits, axis=0, dtype=np.float64), np.float32)
