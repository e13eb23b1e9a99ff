"""One optimizer step beside PyTorch's: the same work, step by step in turn, medians of paired ratios.

Three tasks × 16 examples × L synthetic tokens, random weights, dropout on, float32. Sides: `jax` (this library), `peer`
(transformers + smart-pytorch + Pytorch-PCGrad as their READMEs say), `tuned` (a stronger loop by hand in PyTorch). What
is not installed is left out and said so. Sides of one method step in turn, and so does our plain step beside them.

    python benchmarks/step.py [--model minilm] [--length 64] [--methods plain pcgrad smart_pcgrad] [--rounds 9]
"""

import argparse
import importlib.util
import json
import statistics
from typing import Any

from workers import Worker, alternate, machine, parse, ratio

SIZES = {
    "minilm": {
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
        "vocab_size": 30522,
    },
    "bert-base": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "vocab_size": 30522,
    },
    "bert-large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "vocab_size": 30522,
    },
}
NEEDS = {"jax": (), "tuned": ("torch", "transformers"), "peer": ("torch", "transformers", "smart_pytorch", "pcgrad")}


def main() -> None:
    """Runs every method, prints a table, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SIZES, default="minilm")
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--pooling", choices=("cls", "mean"), default="cls")
    parser.add_argument("--compute-dtype", default="float32")
    parser.add_argument("--methods", nargs="+", default=["plain", "pcgrad", "smart_pcgrad"])
    parser.add_argument("--sides", nargs="+", choices=NEEDS, default=list(NEEDS))
    parser.add_argument("--rounds", type=int, default=9)
    given = parse(parser, render)
    sides = [side for side in given.sides if all(map(importlib.util.find_spec, NEEDS[side]))]
    for side in given.sides:
        if side not in sides:
            print(f"{side} left out: it needs {', '.join(NEEDS[side])}")

    spec = {"sizes": SIZES[given.model], "length": given.length, "batch": given.batch, "pooling": given.pooling}
    spec["compute_dtype"] = given.compute_dtype
    rows = [row for method in given.methods for row in measure(method, sides, spec, given.rounds)]
    settings = {name: value for name, value in vars(given).items() if name not in ("out", "render")}
    document = {"machine": machine(), "settings": settings, "rows": rows}
    print(render(document))
    if given.out:
        given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def measure(method: str, sides: list[str], spec: dict[str, Any], rounds: int) -> list[dict[str, Any]]:
    """One row per side: its median, and ratios to our step of the same method and to our plain one."""
    wanted = [("plain", "jax")] if method != "plain" and "jax" in sides else []
    workers = {
        (one, side): Worker(
            f"{side} {one}",
            "step_jax.py" if side == "jax" else "step_torch.py",
            {**spec, "method": one, "side": side},
        )
        for one, side in [*wanted, *((method, side) for side in sides)]
    }
    alternate(list(workers.values()), 1)  # a warm-up round
    for worker in workers.values():
        worker.seconds.clear()
    alternate(list(workers.values()), rounds)
    rows = []
    for (one, side), worker in workers.items():
        row = {"method": one, "side": side, "median_seconds": statistics.median(worker.seconds), **worker.ready}
        if side != "jax" and "jax" in sides:
            row["over_jax"] = ratio(worker, workers[method, "jax"])
        if side == "jax" and one != "plain":
            row["over_plain"] = ratio(worker, workers["plain", "jax"])
        rows.append({**row, **worker.end()})
    return rows[len(wanted) :]


def render(document: dict[str, Any]) -> str:
    """The table, as Markdown."""
    lines = [
        "| step | side | seconds | ÷ ours | ÷ our plain step | first step, s | peak memory, GB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        cells = [row["method"], row["side"], f"{row['median_seconds']:.3f}"]
        cells += [_range(row.get("over_jax")), _range(row.get("over_plain"))]
        cells += [f"{row['first_steps_seconds']:.1f}", f"{row['peak_memory_bytes'] / 1e9:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _range(ratio: dict[str, float] | None) -> str:
    return f"{ratio['median']:.2f} [{ratio['low']:.2f}–{ratio['high']:.2f}]" if ratio else ""


if __name__ == "__main__":
    main()
