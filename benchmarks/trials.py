"""Configs that a script makes itself, trained like those of an ablation; what is finished is not run again."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from mtbert_jax.ablation.execute import execute
from mtbert_jax.ablation.planned import plan_runs
from mtbert_jax.config import Config, save_config
from mtbert_jax.results.rows import Row
from mtbert_jax.training.interrupt import Interrupted


def add_arguments(parser: argparse.ArgumentParser, work: str) -> None:
    """The seeds, how many processes run at a time, and the work folder, which is `work` where none is given."""
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path(work))


def train(configs: Mapping[str, Config], given: argparse.Namespace) -> list[Row]:
    """Trains every config with every seed below the work folder; prints what failed, gives a row for all others."""
    given.work.mkdir(parents=True, exist_ok=True)
    sources = [(given.work / f"{name}.toml", config) for name, config in configs.items()]
    for path, config in sources:
        save_config(config, path)
    outcome = execute(plan_runs(sources, given.seeds, given.work), given.work, at_once=given.at_once)
    for line in outcome.failed:
        print(line)
    return [row for row in outcome.rows if row.seeds]


def carry_out(main: Callable[[], None]) -> None:
    """Runs a script's `main`; a signal ends it in one line, with the exit status that the signal asks for."""
    try:
        main()
    except Interrupted as interrupted:
        print("interrupted; go on with the same command")
        raise SystemExit(interrupted.status) from None
