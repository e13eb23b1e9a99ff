"""Seconds from the command to the losses of its first step: the first time ever, and with programs and tokens kept.

    python benchmarks/startup.py --data-dir path/to/cs224n [--against path/to/another/checkout] [--rounds 3]

Each round trains until the first step's losses are printed, with an empty cache folder and then again with the one that
this has filled; with `--against`, checkouts take turns. The run is killed then.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from workers import HERE, machine, parse


def main() -> None:
    """Measures, prints a table, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="examples/data")
    parser.add_argument("--config", default="configs/minilm_pcgrad.toml")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="the rest: further flags of mtbert train")
    parser.add_argument("--against", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    given = parse(parser, render)
    checkouts = {"this": HERE.parent} | ({"other": given.against.resolve()} if given.against else {})
    train = ["train", given.config, "--data-dir", given.data_dir, "--compute-dtype", "auto", *given.flags]
    rows: dict[tuple[str, str], list[float]] = {
        (name, cache): [] for name in checkouts for cache in ("empty", "filled")
    }
    for _ in range(given.rounds):
        for name, checkout in checkouts.items():
            with tempfile.TemporaryDirectory() as folder:
                for cache in ("empty", "filled"):
                    rows[name, cache].append(first_step(checkout, [*train, "--out", f"{folder}/{cache}"], folder))
    document = {
        "machine": machine(),
        "settings": {"config": given.config, "flags": given.flags, "rounds": given.rounds},
        "rows": [
            {"checkout": name, "cache": cache, "seconds": seconds, "median": statistics.median(seconds)}
            for (name, cache), seconds in rows.items()
        ],
    }
    print(render(document))
    if given.out:
        given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def first_step(checkout: Path, arguments: list[str], caches: str) -> float:
    """Seconds until a run's first line of losses."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "XDG_CACHE_HOME": f"{caches}/cache"}
    since, said = time.monotonic(), []
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "mtbert_jax", *arguments],  # -P: this folder's own package must not come first
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout or ():
            said.append(line)
            if ": step 1/" in line:
                seconds = time.monotonic() - since
                process.kill()
                return seconds
    raise SystemExit(f"no first step: {''.join(said)}")


def render(document: dict[str, Any]) -> str:
    """The table, as Markdown."""
    lines = ["| checkout | cache | first step after, s | least and most |", "|---|---|---|---|"]
    for row in document["rows"]:
        least, most = min(row["seconds"]), max(row["seconds"])
        lines.append(f"| {row['checkout']} | {row['cache']} | {row['median']:.1f} | {least:.1f} to {most:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
