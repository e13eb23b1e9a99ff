"""An epoch of real files beside PyTorch's: our lengths against dynamic padding, examples per second of a sample.

Both sides train on the same examples, which is checked first. The peers shuffle, cut into batches of 16 and pad each
batch of a task to its longest example; we pad to the lengths that the config finds. A whole epoch takes too long to
repeat, so each side takes the same number of steps of its own epoch: its steps are sorted by size and taken at evenly
spaced ranks. Sides step in turn, and every round passes over the whole sample. `tuned, our batches` is the loop by hand
in PyTorch on exactly our batches. Evaluation scores batches of dev examples: ours sorted, the peers' as they come.

Host work (tokens, padding) is done before and timed on neither side. All steps run once before timing begins, which for
us compiles every shape: the seconds of these first steps are reported apart.

    python benchmarks/epoch.py --data-dir path/to/cs224n [--methods sequential pcgrad smart_pcgrad evaluate]
"""

import argparse
import dataclasses
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import step as steps_of
from step import OURS, SIZES, available, worker
from workers import alternate, machine, parse

from mtbert_jax.config import load_config
from mtbert_jax.data.batches import TrainBatches, evaluation_batches, make_batch
from mtbert_jax.data.dataset import Dataset
from mtbert_jax.training.setup import Setup

SIDES = {
    **{name: ("ours", name) for name in OURS},
    **{name: ("peers", name) for name in ("tuned", "tuned autocast", "peer", "peer autocast")},
    **{f"{name}, our batches": ("ours", name) for name in ("tuned", "tuned autocast")},
}
"""Which batches each side takes, and which side of step.py takes them."""
PACKED = 96
Step = dict[str, tuple[np.ndarray, int]]
"""For each task of a step: rows, and the length that they are padded to."""


def main() -> None:
    """Checks, measures, prints a table, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="examples/data")
    parser.add_argument("--config", default="configs/minilm_pcgrad.toml")
    parser.add_argument("--encoder", default="weights/minilm", help="for its tokenizer; weights are random")
    parser.add_argument("--methods", nargs="+", default=["sequential", "pcgrad", "smart_pcgrad", "evaluate"])
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    given = parse(parser, render)
    sides = available(given.sides, lambda side: str(steps_of.SIDES[SIDES[side][1]]["side"]))
    setup = Setup.load(dataclasses.replace(load_config(given.config), data_dir=given.data_dir), Path(given.encoder))
    train, dev = setup.datasets("train"), setup.datasets("dev")
    rows = []
    for method in given.methods:
        splits = evaluation_steps(setup, dev) if method == "evaluate" else training_steps(setup, train, method)
        datasets = dev if method == "evaluate" else train
        rows += measure(method, setup, datasets, splits, sides, given.steps, given.rounds)
    paths = ("out", "render", "data_dir", "encoder")
    settings = {name: value for name, value in vars(given).items() if name not in paths}
    padding = {name: padding_of(data.tokens.lengths, setup, train) for name, data in train.items()}
    document = {"machine": machine(), "settings": settings, "padding": padding, "rows": rows}
    print(render(document))
    if given.out:
        given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def training_steps(setup: Setup, train: dict[str, Dataset], method: str) -> dict[str, list[Step]]:
    """The steps of an epoch, ours and the peers', checked to hold the same examples."""
    order = "sequential" if method == "sequential" else "round_robin"
    stage = dataclasses.replace(setup.config.resolved_stages()[0], order=order, epochs=1.0, steps=None)
    ours = setup.batches(0, stage, train)
    rng = np.random.default_rng(0)
    shuffled = {
        name: np.array_split(rng.permutation(len(data.ids)), ours.tasks[name].per_epoch) for name, data in train.items()
    }
    for name, data in train.items():
        mine = [ours.tasks[name].rows(index)[0] for index in range(ours.tasks[name].per_epoch)]
        for whose, batches in (("our", mine), ("the peers'", shuffled[name])):
            if not np.array_equal(np.sort(np.concatenate(batches)), np.arange(len(data.ids))):
                raise SystemExit(f"{name}: {whose} epoch does not hold every example once")

    def peers(name: str, index: int) -> tuple[np.ndarray, int]:
        rows = shuffled[name][index % len(shuffled[name])]
        return rows, int(train[name].tokens.lengths[rows].max())

    return {
        "ours": _epoch(ours, lambda name, index: ours.tasks[name].rows(index)),
        "peers": _epoch(ours, peers),
    }


def _epoch(batches: TrainBatches, rows: Callable[[str, int], tuple[np.ndarray, int]]) -> list[Step]:
    steps = range(batches.steps_per_epoch)
    return [{name: rows(name, index) for name, index in batches.indices(step).items()} for step in steps]


def evaluation_steps(setup: Setup, dev: dict[str, Dataset]) -> dict[str, list[Step]]:
    """Batches of dev examples: ours, sorted by length, and as the files have them."""
    size, lengths = setup.config.eval_batch_size, setup.lengths(dev)
    ours: list[Step] = []
    peers: list[Step] = []
    for name, data in dev.items():
        for rows, batch in evaluation_batches(data.tokens, data.labels, size, lengths[name]):
            ours.append({name: (rows, batch.input_ids.shape[1])})
        for start in range(0, len(data.ids), size):
            rows = np.arange(start, min(start + size, len(data.ids)))
            peers.append({name: (rows, int(data.tokens.lengths[rows].max()))})
    return {"ours": ours, "peers": peers}


def tokens(step: Step) -> int:
    """Tokens of a step, padding included."""
    return sum(len(rows) * length for rows, length in step.values())


def sample(steps: Sequence[Step], count: int) -> list[Step]:
    """Steps at evenly spaced ranks of size, in an order that has nothing to do with it."""
    ranked = sorted(steps, key=tokens)
    places = ((np.arange(count) + 0.5) / count * len(ranked)).astype(int)
    return [ranked[place] for place in np.random.default_rng(1).permutation(places)]


def measure(
    method: str,
    setup: Setup,
    datasets: dict[str, Dataset],
    splits: dict[str, list[Step]],
    sides: list[str],
    count: int,
    rounds: int,
) -> list[dict[str, Any]]:
    """One row per side."""
    chosen = {whose: sample(steps, count) for whose, steps in splits.items()}
    examples = {whose: sum(len(rows) for step in steps for rows, _ in step.values()) for whose, steps in chosen.items()}
    full = {"evaluate": setup.config.eval_batch_size}.get(method, setup.config.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        for whose, steps in chosen.items():
            store(Path(folder) / f"{whose}.npz", steps, datasets, full)
        spec = {
            "sizes": SIZES["minilm"],
            "batch": full,
            "pooling": setup.config.head.pooling,
            "method": "plain" if method == "sequential" else method,
        }
        workers = {
            side: worker(method, SIDES[side][1], {**spec, "batches": str(Path(folder) / f"{SIDES[side][0]}.npz")})
            for side in sides
        }
        alternate(list(workers.values()), rounds * count)
    rows = []
    for side, each in workers.items():
        whose = SIDES[side][0]
        totals = np.array(each.seconds).reshape(rounds, count).sum(1)
        row = {"method": method, "side": side, "examples_per_second": examples[whose] / statistics.median(totals)}
        row["round_seconds"] = totals.tolist()
        whole = splits[whose]
        real = sum(int(datasets[name].tokens.lengths[rows].sum()) for step in whole for name, (rows, _) in step.items())
        row["tokens_over_real_ones"] = sum(map(tokens, whole)) / real
        rows.append({**row, **each.ready, **each.end()})
    for own in (row for row in rows if row["side"] in OURS):
        for row in rows:
            share = examples["ours"] / examples[SIDES[row["side"]][0]]
            ratios = sorted(share * np.array(row["round_seconds"]) / np.array(own["round_seconds"]))
            if row is not own:
                name = f"{own['side'].replace('jax', 'ours').replace(' ', '_')}_over_this"
                row[name] = {"median": statistics.median(ratios), "low": ratios[0], "high": ratios[-1]}
    return rows


def store(path: Path, steps: list[Step], datasets: dict[str, Dataset], full: int) -> None:
    """The arrays of every step, as ``<step>/<task>/<field>``."""
    arrays: dict[str, np.ndarray] = {}
    for number, step in enumerate(steps):
        for name, (rows, length) in step.items():
            data = datasets[name]
            batch = make_batch(data.tokens, data.labels, rows, length, full)
            fields = {field: value for field, value in batch._asdict().items() if value is not None}
            arrays |= {f"{number}/{name}/{field}": np.asarray(value) for field, value in fields.items()}
    np.savez(path, **arrays)  # type: ignore[arg-type]


def padding_of(lengths: np.ndarray, setup: Setup, train: dict[str, Dataset]) -> dict[str, float]:
    """Tokens computed for one task, relative to its real ones: our lengths, and examples packed into rows of 96."""
    rungs = next(iter(setup.lengths(train, alike=True).values()))
    room = np.zeros(PACKED + 1, int)  # rows by the room that they have left
    packed = 0
    for length in np.sort(lengths)[::-1]:
        fitting = np.flatnonzero(room[length:])
        if length > PACKED:
            packed += int(length)
        elif len(fitting):
            left = int(length + fitting[0])
            room[left] -= 1
            room[left - length] += 1
        else:
            packed += PACKED
            room[PACKED - length] += 1
    real = float(lengths.sum())
    return {"fitted": float(rungs[np.searchsorted(rungs, lengths)].sum()) / real, f"packed_{PACKED}": packed / real}


def render(document: dict[str, Any]) -> str:
    """The table, as Markdown."""
    lines = [
        "| epoch | side | examples/s | ours ÷ this | ours in bfloat16 ÷ this | padding | first steps, s | GB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        cells = [row["method"], row["side"], f"{row['examples_per_second']:.0f}"]
        for over in (row.get("ours_over_this"), row.get("ours_bfloat16_over_this")):
            cells.append(f"{over['median']:.2f} [{over['low']:.2f}–{over['high']:.2f}]" if over else "")
        cells += [f"{row['tokens_over_real_ones']:.2f}", f"{row['first_steps_seconds']:.0f}"]
        cells.append(f"{row['peak_memory_bytes'] / 1e9:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
