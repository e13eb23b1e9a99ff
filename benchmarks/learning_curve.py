"""How does a task's dev score grow with its training rows? The task alone, on nested random parts of its file.

    python benchmarks/learning_curve.py --data-dir path/to/cs224n [--task para] [--parts 0.25 0.5 1] [--out FILE.json]

Every part trains for the config's epochs, so half the rows are half the steps; scores are those of the best epoch on
dev. What is finished in the work folder is not run again.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import trials
from workers import machine

from mtbert_jax.config import Config, TaskConfig, load_config
from mtbert_jax.data.readers import read_task
from mtbert_jax.files import write_whole

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Trains on every part, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, type=Path)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "minilm_pcgrad.toml")
    parser.add_argument("--task", default="para")
    parser.add_argument("--parts", nargs="+", type=float, default=[0.25, 0.5, 1.0])
    trials.add_arguments(parser, "runs/learning_curve")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    config = load_config(given.config)
    task = next((task for task in config.tasks if task.name == given.task), None)
    if task is None:
        raise SystemExit(f"--task: {given.config} has no task {given.task}")
    parts = {f"{given.task}_{part:g}": part for part in sorted(given.parts)}
    configs = {
        name: alone(config, task, given.data_dir, given.work / name / "data", part) for name, part in parts.items()
    }
    rows = [
        {
            "part": parts[row.name],
            "rows": len(read_task(task, "train", given.work / row.name / "data")),
            "seeds": row.seeds,
            **row.values[given.task]._asdict(),
        }
        for row in trials.train(configs, given)
    ]
    print(render(rows))
    if given.out:
        document: dict[str, Any] = {"machine": machine(), "config": given.config.name, "task": given.task, "rows": rows}
        write_whole(given.out, json.dumps(document, indent=1) + "\n")


def alone(config: Config, task: TaskConfig, source: Path, folder: Path, part: float) -> Config:
    """The config with this task only, on a part of its rows; a smaller part lies in every larger one."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (task.dev, task.test):
        write_whole(folder / name, (source / name).read_text(encoding="utf-8"))
    head, *lines = (source / task.train).read_text(encoding="utf-8").splitlines(keepends=True)
    kept = np.sort(np.random.default_rng(0).permutation(len(lines))[: round(part * len(lines))])
    write_whole(folder / task.train, head + "".join(lines[index] for index in kept))
    chain = tuple(link for link in config.optimizer if link != "pcgrad()")
    return replace(config, tasks=(task,), data_dir=str(folder), optimizer=chain, order="sequential")


def render(rows: list[dict[str, Any]]) -> str:
    """The table in Markdown."""
    lines = ["| part | rows | seeds | dev |", "| ---: | ---: | ---: | ---: |"]
    for row in rows:
        spread = "" if row["sd"] is None else f" ± {row['sd']:.3f}"
        lines.append(f"| {row['part']:g} | {row['rows']} | {len(row['seeds'])} | {row['mean']:.3f}{spread} |")
    return "\n".join(lines)


if __name__ == "__main__":
    trials.carry_out(main)
