"""Runs the trials of a search for a recipe, each a few changes to one config, and keeps a record of every one.

    python benchmarks/recipe.py --data-dir path/to/cs224n [--trials FILE.toml] [--only NAME ...] [--out FILE.json]

FILE.toml, `recipe.toml` by default, names the trials and says why each was made. What is finished in the work folder is
not run again, and a trial keeps its record in FILE.json when only others are run. A record has the scores of both
halves of dev, too: a recipe can be chosen on one of them and confirmed on the other, which had no part in the choice.
"""

import argparse
import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import trials

from mtbert_jax.config import Config, load_config
from mtbert_jax.config.includes import lay_over
from mtbert_jax.config.schema import from_dict, to_dict
from mtbert_jax.files import write_whole
from mtbert_jax.results.intervals import scores_of
from mtbert_jax.results.rows import Row
from mtbert_jax.tasks.scores import AVERAGES
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.records import read_metrics

HERE = Path(__file__).parent


def main() -> None:
    """Runs trials, writes their records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--trials", type=Path, default=HERE / "recipe.toml")
    parser.add_argument("--only", nargs="+", default=[])
    trials.add_arguments(parser, "runs/recipe")
    parser.add_argument("--out", type=Path, help="by default in results/, named like the file of the trials")
    given = parser.parse_args()
    out = given.out or HERE / "results" / f"{given.trials.stem}.json"
    document = tomllib.loads(given.trials.read_text(encoding="utf-8"))
    if unknown := set(given.only) - set(document["trials"]):
        raise SystemExit(f"--only: {given.trials} has no trial {', '.join(sorted(unknown))}")
    chosen = [name for name in document["trials"] if name in (given.only or document["trials"])]
    base = replace(load_config(given.trials.parent / document["base"]), data_dir=given.data_dir)
    configs = {name: changed(base, document["changes"], document["trials"], name) for name in chosen}
    rows = trials.train(configs, given)
    kept = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {}
    kept |= {row.name: record(row, document["trials"][row.name], given.work / row.name) for row in rows}
    ordered = {name: kept[name] for name in document["trials"] if name in kept}
    write_whole(out, json.dumps(ordered, indent=1) + "\n")


def changed(base: Config, common: dict[str, Any], every: dict[str, Any], name: str) -> Config:
    """`base` with what all trials change, and with what this one does, on top of the trial that it is built on."""
    chain = [name]
    while (below := every[chain[-1]].get("on")) is not None:
        chain.append(below)
    values = lay_over(to_dict(base), common, by_name=("tasks",))
    for one in reversed(chain):
        values = lay_over(values, every[one].get("changes", {}), by_name=("tasks",))
    return from_dict(Config, values, name)


def record(row: Row, trial: dict[str, Any], runs: Path) -> dict[str, Any]:
    """What a trial was and what came of it; of one with an aggregator, the last weights that it gave, by seed."""
    dev = {name: {"mean": value.mean, "sd": value.sd} for name, value in row.values.items() if name != AVERAGES[1]}
    times = {"seconds": row.seconds, "peak_memory_bytes": row.peak_memory}
    weights = [last_weights(RunFolder(runs / f"seed{seed}")) for seed in row.seeds]
    found = {"weights": weights} if any(weights) else {}
    return {
        **trial,
        "seeds": row.seeds,
        "dev": dev,
        "averages": row.scores(AVERAGES[0]),
        "halves": halves(row),
        **found,
        **times,
    }


def last_weights(folder: RunFolder) -> dict[str, float]:
    """What the aggregator gave each task's gradient over the last recorded steps; empty where none is on record."""
    records = [one["weight"] for one in read_metrics(folder.metrics) if one.get("weight")]
    return records[-1] if records else {}


def halves(row: Row) -> list[dict[str, float]]:
    """Scores on each half of dev, means over seeds: the same halves, drawn once, for every trial."""
    parts: list[list[np.ndarray]] = [[], []]
    for judged in row.judged.values():
        order = np.random.default_rng(0).permutation(len(judged.labels))
        for part, chosen in zip(parts, np.array_split(order, 2), strict=True):
            part.append(chosen[None])
    names = [*row.judged, *AVERAGES]
    found = [dict(zip(names, scores_of(row.judged, part)[:, 0].tolist(), strict=True)) for part in parts if part]
    return [{name: value for name, value in half.items() if name != AVERAGES[1]} for half in found]


if __name__ == "__main__":
    trials.carry_out(main)
