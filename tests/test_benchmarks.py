"""What the benchmarks of an epoch hand to their workers."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from mtbert_jax.config import Config
from mtbert_jax.training.setup import Setup

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("method", ["pcgrad", "sequential", "evaluate"])
def test_workers_read_the_steps_that_were_stored(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Both sides' steps have the examples of the files, and their arrays come back from the file."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    import epoch
    from step_jax import load_steps

    config = dataclasses.replace(config, lengths=(), max_shapes=2)
    setup = Setup.load(config, Path(config.encoder))
    datasets = setup.datasets("dev" if method == "evaluate" else "train")
    splits = (
        epoch.evaluation_steps(setup, datasets)
        if method == "evaluate"
        else epoch.training_steps(setup, datasets, method)
    )
    for steps in splits.values():
        epoch.store(tmp_path / "steps.npz", steps, datasets, config.eval_batch_size)
        read = load_steps(tmp_path / "steps.npz")
        assert [set(step) for step in read] == [set(step) for step in steps]
        for name, data in datasets.items():
            batches = [step[name] for step in read if name in step]
            assert {batch.input_ids.shape[0] for batch in batches} == {config.eval_batch_size}
            assert all(batch.positions is None for batch in batches)
            labels = np.concatenate([batch.labels[batch.weights > 0] for batch in batches])
            np.testing.assert_array_equal(np.sort(labels), np.sort(data.labels))
