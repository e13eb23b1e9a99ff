"""What both orders of a pair give a finished run: dev scores of (a, b), of (b, a), and of the mean of their logits.

    python benchmarks/both_orders.py RUN [--data-dir DIR] [--out FILE.json]

Nothing is trained. Intervals (95 %, bootstrap over the dev pairs) are of what the mean is better by than (a, b).
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from mtbert_jax.inference import MultitaskModel
from mtbert_jax.results.intervals import Judged, bootstrap
from mtbert_jax.tasks import primary_metric
from mtbert_jax.tasks.arrays import predictions


def main() -> None:
    """Scores the run's tasks over pairs in either order, prints a row for each, and writes them where told to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data-dir")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    model = MultitaskModel.from_checkpoint(given.run, data_dir=given.data_dir).with_both_orders(())
    logits = []
    tasks = {name: task for name, task in model.setup.tasks.items() if len(task.text) == 2}
    for turned in (False, True):
        some = [replace(task, text=task.text[::-1] if turned else task.text) for task in tasks.values()]
        config = replace(model.setup.config, tasks=tuple(some))
        one = replace(model, setup=model.setup.with_config(config))
        datasets = one.setup.datasets("dev")
        logits.append(one.score(datasets)[1])
    rows = []
    for name, task in tasks.items():
        labels = datasets[name].labels.astype(np.float64)
        ways = [logits[0][name], logits[1][name], (logits[0][name] + logits[1][name]) / 2]
        first, other, both = (predictions(task, values) for values in ways)
        metric = primary_metric(task)
        judged = ({name: Judged(task, values[None], labels)} for values in (both, first))
        row = {
            "task": name,
            "examples": len(labels),
            "metric": metric.name,
            "first": float(metric(first, labels)),
            "other": float(metric(other, labels)),
            "both": float(metric(both, labels)),
            "interval": bootstrap(*judged)[name],
            "other_prediction": float(np.mean(first != other)) if task.kind == "binary" else None,
        }
        print(json.dumps(row))
        rows.append(row)
    if given.out:
        about = {"run": given.run.resolve().parent.name, "seed": model.setup.config.seed, "step": model.step}
        given.out.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
