"""One optimizer step beside PyTorch's: the same work, step by step in turn, medians of paired ratios.

Three tasks × 16 examples × L synthetic tokens, random weights, dropout on. Sides: `jax` (this library), `peer`
(transformers + smart-pytorch + Pytorch-PCGrad as their READMEs say), `tuned` (a stronger loop by hand in PyTorch, with
its fused attention); each in float32, and with products in bfloat16 (`compute_dtype`, `torch.autocast`); the loop also
with its encoder compiled by `torch.compile`. What is not installed is left out and said so. Sides of one method step in
turn, and so does our plain step beside them, unless `--no-beside-plain` saves its memory. `smart_pcgrad` is SMART as
smart-pytorch has it, `smart_ball_pcgrad` SMART in a ball of .1; `lora`, for our sides alone (`--sides jax`), trains the
heads and products of rank 8 beside attention's queries and values.

    python benchmarks/step.py [--model minilm] [--length 64] [--methods plain pcgrad smart_pcgrad] [--rounds 9]
"""

import argparse
import importlib.util
import json
import statistics
from collections.abc import Callable
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
    "mpnet": {
        "model_type": "mpnet",
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "vocab_size": 30527,
        "max_position_embeddings": 514,
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
OURS = {"jax": "float32", "jax bfloat16": "bfloat16"}
"""Our sides, which every other is compared with, and the types of their products."""
SIDES = {
    **{name: {"side": "jax", "compute_dtype": dtype} for name, dtype in OURS.items()},
    "tuned": {"side": "tuned", "compute_dtype": "float32"},
    "tuned autocast": {"side": "tuned", "compute_dtype": "bfloat16"},
    "tuned autocast compiled": {"side": "tuned", "compute_dtype": "bfloat16", "compiled": True},
    "peer": {"side": "peer", "compute_dtype": "float32"},
    "peer autocast": {"side": "peer", "compute_dtype": "bfloat16"},
}


def available(sides: list[str], script: Callable[[str], str]) -> list[str]:
    """Those of the sides whose packages are installed; says which others are left out."""
    kept = [side for side in sides if all(map(importlib.util.find_spec, NEEDS[script(side)]))]
    for side in sides:
        if side not in kept:
            print(f"{side} left out: it needs {', '.join(NEEDS[script(side)])}")
    return kept


def worker(name: str, side: str, spec: dict[str, Any]) -> Worker:
    """A worker that steps as a side does."""
    own = SIDES[side]
    return Worker(f"{side} {name}", "step_jax.py" if own["side"] == "jax" else "step_torch.py", {**spec, **own})


def main() -> None:
    """Runs every method, prints a table, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SIZES, default="minilm")
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--pooling", choices=("cls", "mean"), default="cls")
    parser.add_argument("--methods", nargs="+", default=["plain", "pcgrad", "smart_pcgrad"])
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--beside-plain", action=argparse.BooleanOptionalAction, default=True)
    given = parse(parser, render)
    sides = available(given.sides, lambda side: str(SIDES[side]["side"]))
    spec = {"sizes": SIZES[given.model], "length": given.length, "batch": given.batch, "pooling": given.pooling}
    beside = given.beside_plain
    rows = [row for method in given.methods for row in measure(method, sides, spec, given.rounds, beside)]
    settings = {name: value for name, value in vars(given).items() if name not in ("out", "render")}
    document = {"machine": machine(), "settings": settings, "rows": rows}
    print(render(document))
    if given.out:
        given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def measure(method: str, sides: list[str], spec: dict[str, Any], rounds: int, beside: bool) -> list[dict[str, Any]]:
    """One row per side: its median, and ratios to our steps of the same method and, if `beside`, to our plain one."""
    ours = [side for side in OURS if side in sides]
    wanted = [("plain", side) for side in ours if method != "plain" and beside]
    workers = {
        (one, side): worker(one, side, {**spec, "method": one})
        for one, side in [*wanted, *((method, side) for side in sides)]
    }
    alternate(list(workers.values()), 1)  # a warm-up round
    for each in workers.values():
        each.seconds.clear()
    alternate(list(workers.values()), rounds)
    rows = []
    for (one, side), each in workers.items():
        row = {"method": one, "side": side, "median_seconds": statistics.median(each.seconds), **each.ready}
        for own in ours:
            if side != own:
                row[f"over_{own.replace(' ', '_')}"] = ratio(each, workers[method, own])
        if wanted and (one, side) in [(method, own) for own in ours]:
            row["over_plain"] = ratio(each, workers["plain", side])
        rows.append({**row, **each.end()})
    return rows[len(wanted) :]


def render(document: dict[str, Any]) -> str:
    """The table, as Markdown."""
    lines = [
        "| step | side | seconds | ÷ ours | ÷ ours in bfloat16 | ÷ our plain step | first step, s | peak memory, GB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        cells = [row["method"], row["side"], f"{row['median_seconds']:.3f}"]
        cells += [_range(row.get(f"over_{name}")) for name in ("jax", "jax_bfloat16", "plain")]
        cells += [f"{row['first_steps_seconds']:.1f}", f"{row['peak_memory_bytes'] / 1e9:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _range(ratio: dict[str, float] | None) -> str:
    return f"{ratio['median']:.2f} [{ratio['low']:.2f}–{ratio['high']:.2f}]" if ratio else ""


if __name__ == "__main__":
    main()
