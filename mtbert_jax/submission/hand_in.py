"""Prediction files to hand in: written by a run, or made elsewhere, and checked."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mtbert_jax.data.predictions import prediction_file, write_predictions
from mtbert_jax.data.readers import SPLITS
from mtbert_jax.errors import InputError
from mtbert_jax.inference import Predictor, load_predictor, output_folder
from mtbert_jax.submission.course import COURSE, check_pair, faults
from mtbert_jax.tasks import kind_of
from mtbert_jax.training.evaluate import not_finite

FAULTS = 5
"""Of a file: how many are told."""


class Checked(NamedTuple):
    """A prediction file: what it must hold, what is wrong with it, how many values were set to a range's end."""

    path: Path
    rows: int
    faults: list[str]
    clipped: int = 0


def hand_in(
    runs: Sequence[Path] = (),
    output: Path | None = None,
    checkpoint: str = "best",
    data_dir: str | None = None,
    check: Sequence[Path] = (),
    data: Sequence[Path] = (),
) -> Iterator[str]:
    """Writes and checks the prediction files of a run, or checks those of others; tells what came of it, line by line.

    Args:
        runs: The run folder, or those of an ensemble; none checks files that were made elsewhere.
        output: Folder of the files; `submission` in the run folder if left out. An ensemble needs one.
        checkpoint: `best`, by the config's `checkpoint_metric`, or `latest`.
        data_dir: Folder of the data files, in place of the run's.
        check: Prediction files of the course's tasks, made elsewhere.
        data: The data file of each of them, in the same order.

    Raises:
        InputError: What was given is wrong, or a prediction file is.
    """
    if bool(runs) == bool(check):
        raise InputError("give a run folder, or files to check: mtbert submission --check FILE ... --data FILE ...")
    if not runs:
        checked = check_elsewhere(check, data)
    elif data:
        raise InputError("--data goes with --check; --data-dir names the folder of a run's data files")
    else:
        folder = output_folder(runs, output, "submission")
        model = load_predictor(runs, checkpoint, data_dir)
        checked = write_submission(model, folder)
        for name in ("sst", "para", "sts"):
            if name not in model.tasks:
                yield f"no task {name}: its two files are not there"
    for path, rows, wrong, clipped in checked:
        note = f"; {clipped} set to the nearer end of the range" if clipped else ""
        yield f"{path}: {f'{len(wrong)} faults' if wrong else f'{rows} predictions, as they must be'}{note}"
        yield from (f"  {fault}" for fault in wrong[:FAULTS])
    if bad := [one for one in checked if one.faults]:
        raise InputError(f"{len(bad)} of {len(checked)} prediction files are wrong: {bad[0].faults[0]}")


def write_submission(model: Predictor, folder: Path) -> list[Checked]:
    """Writes the dev and test files of all tasks of a run, of every row, and checks what was written.

    Raises:
        InputError: A task has no dev or no test file, or logits that are not finite; nothing has been written.
    """
    tasks = {name: task for name, task in model.tasks.items() if not kind_of(task).auxiliary}
    if not tasks:
        raise InputError("no task of this run predicts labels; there is nothing to hand in")
    for task in tasks.values():
        for split in SPLITS[1:]:
            if not getattr(task, split):
                raise InputError(f'task {task.name} has no {split} file to predict; give its name as {split} = "..."')
    checked, said = [], {}
    for split in SPLITS[1:]:
        datasets = model.datasets(split, labels=False)
        said[split] = datasets, model.score(datasets)[1]
        for line in not_finite(split, *said[split]).values():
            raise InputError(f"{line}; there is nothing to hand in")
    for split, (datasets, logits) in said.items():
        for name, task in tasks.items():
            known = COURSE[name].output_column if name in COURSE else f"Predicted_{name.capitalize()}"
            task = replace(task, output_column=task.output_column or known)
            ids, skipped = datasets[name].ids, datasets[name].skipped
            path, predicted = folder / prediction_file(task, split), kind_of(task).predict(logits[name])
            whole = np.clip(predicted, min(task.label_range), max(task.label_range)) if task.label_range else predicted
            write_predictions(path, task, ids, whole)
            wrong = list(faults(path, task, ids))
            if skipped:
                wrong.append(f"{path}: {len(skipped)} rows of the data file cannot be read, the first: {skipped[0]}")
            clipped = int(np.sum((whole != predicted) & ~np.isnan(predicted)))
            checked.append(Checked(path, len(ids), wrong, clipped))
    return checked


def check_elsewhere(paths: Sequence[Path], data: Sequence[Path]) -> list[Checked]:
    """Checks prediction files of the course's tasks, whoever wrote them, beside their data files, in the same order."""
    if len(paths) != len(data):
        raise InputError(f"--check names {len(paths)} files and --data {len(data)}: each needs its data file, in order")
    return [Checked(path, *check_pair(path, source)) for path, source in zip(paths, data, strict=True)]
