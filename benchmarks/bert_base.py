"""Every row of the study for bert-base, once: its dry run, then a short run with random weights of that size.

For a machine that has no hub: it shows that the configs are whole, and what a run needs; scores mean nothing. Training
files are the first rows of the bundled corpus, so an epoch is one batch of each task; the stage that trains heads keeps
its ten epochs, the other takes two. Only paths and epochs differ from what the config says.

    python benchmarks/bert_base.py [--only baseline ...] --out benchmarks/results/bert_base.json
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from workers import machine, parse

from mtbert_jax.training.records import read_metrics

ROOT = Path(__file__).parents[1]
ROWS = {path.stem: path for path in sorted((ROOT / "configs" / "study").glob("*.toml")) if "minilm" not in path.stem}
EPOCHS = 2
SPLITS = {"train": 16, "dev": 16, "test-student": 4}


def main() -> None:
    """Runs what was asked for, prints a table, writes JSON after every row; exit status 1 if a row failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--vocabulary", type=Path, default=ROOT / "weights" / "minilm", help="bert-base's has the same")
    given = parse(parser, render)
    kept = json.loads(given.out.read_text(encoding="utf-8"))["rows"] if given.out and given.out.is_file() else []
    rows = {row["config"]: row for row in kept}
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        make_encoder(place / "bert-base", given.vocabulary)
        make_data(place / "data")
        for name in given.only:
            rows[name] = measure(name, place)
            print(render({"rows": [rows[name]]}).splitlines()[-1], flush=True)
            document = {"machine": machine(), "rows": [rows[name] for name in ROWS if name in rows]}
            if given.out:
                given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(render(document))
    raise SystemExit(any(rows[name]["exit_status"] for name in given.only))


def make_encoder(folder: Path, vocabulary: Path) -> None:
    """An encoder of bert-base's size, with random weights and another's WordPiece vocabulary."""
    import jax
    import jax.numpy as jnp

    import mtbert_jax as mt
    from mtbert_jax.encoders.bert import BertConfig
    from mtbert_jax.encoders.tokenizer import load_tokenizer

    config = BertConfig()
    ids = jnp.ones((1, 1), jnp.int32)
    params = jax.jit(mt.BertEncoder(config).init)(jax.random.key(0), ids)["params"]
    mt.save_pretrained(folder, config, params, load_tokenizer(vocabulary))


def make_data(folder: Path) -> None:
    """The first rows of every file of the bundled corpus."""
    folder.mkdir()
    for split, rows in SPLITS.items():
        for path in (ROOT / "examples" / "data").glob(f"*-{split}.csv"):
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            (folder / path.name).write_text("".join(lines[: rows + 1]), encoding="utf-8")


def measure(name: str, place: Path) -> dict[str, Any]:
    """One row: its dry run, its run, and what that left behind."""
    out = place / name
    where = ["--encoder", str(place / "bert-base"), "--data-dir", str(place / "data"), "--out", str(out)]
    words = ["train", str(ROWS[name]), *where, "--epochs", str(EPOCHS), "--log-every-steps", "1"]
    dry = mtbert(*words, "--dry-run")
    since = time.perf_counter()
    run = mtbert(*words) if dry.returncode == 0 else dry
    row: dict[str, Any] = {
        "config": name,
        "exit_status": run.returncode,
        "seconds": time.perf_counter() - since,
    }
    if run.returncode:
        return {**row, "message": run.stderr.strip().splitlines()[-1:]}
    steps = [record for record in read_metrics(out / "metrics.jsonl") if record["kind"] == "train"]
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    row["steps"] = dict(Counter(record["stage"] for record in steps))
    row["terms"] = sorted({"smoothness", "proximal", "cosine"} & set(steps[-1]))
    row["left_out"] = sum("left_out" in record for record in steps)
    row["last_losses"] = steps[-1]["loss"]
    row["peak_memory_bytes"] = results["peak_memory_bytes"]
    row["prediction_files"] = len(list((out / "predictions").glob("*-output.csv")))
    shutil.rmtree(out)
    return row


def mtbert(*words: str) -> subprocess.CompletedProcess[str]:
    """The command line, in a process of its own."""
    environment = {**os.environ, "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "mtbert_jax", *words], capture_output=True, text=True, cwd=ROOT, env=environment
    )


def render(document: dict[str, Any]) -> str:
    """The table in Markdown."""
    lines = ["| config | steps | terms of the last step | peak memory | seconds |", "| --- | --- | --- | ---: | ---: |"]
    for row in document["rows"]:
        if row["exit_status"]:
            lines.append(f"| {row['config']} | exit status {row['exit_status']} | | | |")
            continue
        steps = ", ".join(f"{stage} {number}" for stage, number in row["steps"].items())
        terms = ", ".join(row["terms"]).replace("cosine", "cosines")
        memory = f"{row['peak_memory_bytes'] / 1e9:.1f} GB"
        lines.append(f"| {row['config']} | {steps} | {terms} | {memory} | {row['seconds']:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
