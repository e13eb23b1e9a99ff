"""What each row of the study costs: examples a second of its last stage, and peak memory, on an otherwise idle machine.

Every config trains on steps of its own epoch over real files, taken at evenly spaced ranks of size, each run once
before timing begins. It takes turns with one config that all are set beside, a round of all steps each. A row that
trains on one task a step takes as many examples in more steps. Peak memory is the whole process's.

    python benchmarks/cost.py --data-dir path/to/cs224n --out benchmarks/results/cost.json
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from workers import Worker, machine, parse

STUDY = Path(__file__).parents[1] / "configs" / "study"


def main() -> None:
    """Measures, prints a table, writes JSON after every row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="examples/data")
    parser.add_argument("--configs", nargs="+", type=Path, default=sorted(STUDY.glob("minilm_*.toml")))
    parser.add_argument("--against", type=Path, default=STUDY / "minilm_pcgrad.toml")
    parser.add_argument("--examples", type=int, default=576, help="in a round of each")
    parser.add_argument("--rounds", type=int, default=3)
    given = parse(parser, render)
    settings = {"against": given.against.stem, "examples": given.examples, "rounds": given.rounds}
    document: dict[str, Any] = {"machine": machine(), "settings": settings, "rows": []}
    for config in given.configs:
        document["rows"].append(measure(config, given))
        if given.out:
            given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(render(document))


def measure(config: Path, given: argparse.Namespace) -> dict[str, Any]:
    """One row."""
    pair = []
    for path in (config, given.against):
        spec = {"config": str(path.absolute()), "data_dir": str(Path(given.data_dir).absolute())}
        pair.append(Worker(path.stem, "cost_worker.py", {**spec, "examples": given.examples}))
    for _ in range(given.rounds):
        for worker in pair:
            for _ in range(worker.ready["steps"]):
                worker.step()
    rounds = [_rounds(worker, given.rounds) for worker in pair]  # seconds an example
    own, _ = ends = [worker.end() for worker in pair]
    ratios = sorted(a / b for a, b in zip(*rounds, strict=True))
    print(f"{config.stem}: {1 / statistics.median(rounds[0]):.0f} examples/s", flush=True)
    return {
        "config": config.stem,
        "examples_per_second": 1 / statistics.median(rounds[0]),
        "time_over_against": {"median": statistics.median(ratios), "low": ratios[0], "high": ratios[-1]},
        "peak_memory_bytes": own["peak_memory_bytes"],
        "peak_memory_bytes_against": ends[1]["peak_memory_bytes"],
        "seconds_an_example": rounds[0],
        **pair[0].ready,
    }


def _rounds(worker: Worker, rounds: int) -> list[float]:
    size = worker.ready["steps"]
    return [sum(worker.seconds[r * size : (r + 1) * size]) / worker.ready["examples"] for r in range(rounds)]


def render(document: dict[str, Any]) -> str:
    """The table in Markdown."""
    against = document["settings"]["against"]
    lines = [f"| config | examples/s | time over {against} | peak memory |", "| --- | ---: | ---: | ---: |"]
    for row in document["rows"]:
        ratio = row["time_over_against"]
        span = f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
        memory = f"{row['peak_memory_bytes'] / 1e9:.1f} GB"
        lines.append(f"| {row['config']} | {row['examples_per_second']:.0f} | {span} | {memory} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
