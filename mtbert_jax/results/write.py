"""The results and prediction files that a run ends with."""

import json
import logging
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mtbert_jax.config import Config
from mtbert_jax.config.schema import finite, to_dict
from mtbert_jax.data.dataset import Dataset
from mtbert_jax.data.readers import SPLITS, Split
from mtbert_jax.errors import plain
from mtbert_jax.files import write_whole
from mtbert_jax.inference import MultitaskModel
from mtbert_jax.machine import commit, machine_summary, peak_memory
from mtbert_jax.parallel import common_layout
from mtbert_jax.tasks import score
from mtbert_jax.training.active import labels_of
from mtbert_jax.training.checkpoint import Checkpoints
from mtbert_jax.training.evaluate import not_finite
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.logits import load_logits, save_logits
from mtbert_jax.version import __version__

logger = logging.getLogger(__name__)


def write_results(
    folder: RunFolder, config: Config, read: Mapping[Split, dict[str, Dataset]] | None = None
) -> dict[str, Any]:
    """Writes the results and prediction files of the best checkpoint: dev, and test where there are files for it.

    Dev logits that training has kept are not computed again. Dev scores are on disk before a test file is scored, with
    the mark `pending` until that is done. `read` are the splits by task, where they have been read already.

    Returns:
        What ``results.json`` holds: config, seed, step, the run's digest, scores by split; wall time of training in
            seconds and peak memory in bytes, over all resumptions; machine, versions, and the commit, where this runs
            from a checkout.
    """
    layout = common_layout()
    model = MultitaskModel.from_checkpoint(folder.path, config=config, layout=layout)
    results: dict[str, Any] = {"config": to_dict(config), "seed": config.seed, "step": model.step}
    if identity := folder.load_identity():
        results["run"] = identity
    kept = None if read is None or jax.process_count() > 1 else load_logits(folder, model.step)
    read = {split: model.setup.datasets(split) for split in SPLITS[1:]} if read is None else read
    for split, datasets in read.items():
        logits = kept if split == "dev" else None
        if logits is not None and _are_of(logits, datasets):
            scores = score(model.setup.tasks, logits, labels_of(datasets))
        else:
            scores, logits = model.score(datasets)
            if split == "dev" and logits and layout.leads:
                save_logits(folder, model.step, logits)
        if scores:
            results[split] = scores
        cost = _cost(folder)  # of all processes: they open the checkpoints together
        if layout.leads:
            pending = {"pending": ["test"]} if split == "dev" and read["test"] else {}
            written = finite({**results, **cost, **pending})
            write_whole(folder.results, json.dumps(written, indent=2, allow_nan=False) + "\n")
            model.write_predictions(folder.predictions, split, datasets, logits)
            for line in not_finite(split, datasets, logits).values():
                logger.warning("%s; its scores are undefined, and no prediction file is written", plain(line))
    return {**results, **cost}


def _are_of(logits: Mapping[str, np.ndarray], datasets: Mapping[str, Dataset]) -> bool:
    """Whether logits that were kept are of these datasets, as far as can be seen."""
    return {name: len(values) for name, values in logits.items()} == {n: len(d.ids) for n, d in datasets.items()}


def _cost(folder: RunFolder) -> dict[str, Any]:
    """What the run took, and on what."""
    with Checkpoints(folder.checkpoints, run=folder.load_identity()) as checkpoints:
        progress = next(iter(checkpoints.standings.values()))
    made = commit()
    return {
        "seconds": progress.seconds,
        "peak_memory_bytes": max(progress.peak_memory, peak_memory()),
        "device": machine_summary(),
        "versions": {"jax": jax.__version__, "mtbert_jax": __version__, **({"commit": made} if made else {})},
    }
