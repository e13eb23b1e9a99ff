"""What each command takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mtbert_jax.config import Config

RunPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(help="The run folder.")]
RunPaths = Annotated[
    tuple[Path, ...],
    tyro.conf.Positional,
    tyro.conf.arg(help="The run folder; of several, or of one that holds several seeds, the mean of their logits."),
]
Which = Annotated[
    Literal["best", "latest"],
    tyro.conf.arg(help="Which checkpoint: the best by the config's `checkpoint_metric`, or the latest."),
]
BothOrders = Annotated[
    tuple[str, ...] | None,
    tyro.conf.arg(
        help="Tasks over pairs to score in both orders, in place of those whose `both_orders` the run has set; none if "
        "no name follows."
    ),
]
DataDir = Annotated[str | None, tyro.conf.arg(help="Folder of the data files, in place of the run's.")]
_PLUGINS = "Python files to run first, which may register task kinds, encoder families, aggregators and regularisers."
Plugins = Annotated[tuple[Path, ...], tyro.conf.arg(help=_PLUGINS)]


@dataclass(frozen=True)
class Train:
    """Trains a run: heads and encoder on every task of the config, with checkpoints, records and prediction files.

    Give a config: `mtbert train CONFIG.toml`. Any field below replaces the config's; tasks and stages have their names,
    too: `--tasks.sst.batch-size 8`. `mtbert train RUN --resume` goes on with a run by the config in its folder;
    `--init-from RUN` begins a new one with its encoder and heads.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    resume: bool = False
    """Go on with the run in the run folder, from its newest checkpoint."""
    overwrite: bool = False
    """Delete the run in the run folder first."""
    dry_run: bool = False
    """Say what would be trained, on what, in which shapes and how much memory, and stop."""
    plugins: Plugins = ()
    coordinator: str | None = None
    """Train with others: `HOST:PORT` of process 0, or `auto`, where the cluster tells (SLURM, Open MPI, TPU pods)."""
    num_processes: int | None = None
    """Number of processes, where the cluster does not tell."""
    process_id: int | None = None
    """Number of this process, from 0, where the cluster does not tell."""


@dataclass(frozen=True)
class CheckData:
    """Says what the data of a config hold: rows, bad rows, labels, lengths in tokens, texts that come twice, batches.

    Give a config first: `mtbert check-data CONFIG.toml`. Of the encoder only the tokenizer is read. Rows are named by
    their lines; no text is printed. The exit status is 2 if training would refuse the data.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    json: Path | None = None
    """Write the same as JSON to this file, too."""
    plugins: Plugins = ()


@dataclass(frozen=True)
class Augment:
    """Writes a training file of pairs with the pairs that follow from its own: the transitive closure of its labels.

    Give a config first: `mtbert augment CONFIG.toml --task para --write more.jsonl`. If a and b mean the same, and b
    and c do, so do a and c; if a and d differ, so do d and all that mean the same as a. The new file has the old rows
    and the new ones, as JSON Lines with the task's columns.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    task: str | None = None
    """Name of a task over pairs with the labels 0 and 1; may be left out where there is one only."""
    write: Path = Path("augmented.jsonl")
    """The file that is written, JSON Lines."""
    cap: int = 10
    """Most new pairs from one group of texts that mean the same, or from two that differ; 0 for no limit."""
    negatives: bool = True
    """Write new negative pairs, too."""
    plugins: Plugins = ()


@dataclass(frozen=True)
class Evaluate:
    """Scores a run on one split of every task that has labels there, and prints a table, or JSON.

    Several runs are scored as an ensemble: `mtbert evaluate RUN RUN` scores the mean of their logits.
    """

    runs: RunPaths = ()
    split: Literal["train", "dev", "test"] = "dev"
    """The split."""
    checkpoint: Which = "best"
    data_dir: DataDir = None
    both_orders: BothOrders = None
    json: bool = False
    """Print the scores as JSON."""
    plugins: Plugins = ()


@dataclass(frozen=True)
class Predict:
    """Predicts one's own texts with `--task`, or else writes the prediction files of all tasks.

    With `--task`, texts come from `--input` or standard input: one example a line, the two texts of a pair separated
    by a tab; or a JSON list of texts; or JSON Lines, or a table with a header, that have the task's text columns. Out
    come JSON Lines with label and probabilities. Without it, `predictions/` in the run folder (or `--output`) gets
    `<task>-dev-output.csv` and `<task>-test-output.csv`: plain CSV, or the course's format for tasks with an
    `output_column`.

    With `--task` and `--soft-labels` a training file for `kind = "distribution"` is written: the texts of `--input`, or
    of the task's training file, with this run's probabilities as labels.

    Several runs predict as an ensemble, by the mean of their logits.
    """

    runs: RunPaths = ()
    task: str | None = None
    """Name of a task."""
    input: Path | None = None
    """File of texts; standard input if left out."""
    output: Path | None = None
    """File of the labels, or folder of the prediction files; standard output or the run folder if left out."""
    soft_labels: Path | None = None
    """File of probabilities as labels, JSON Lines, that another run can be trained on."""
    checkpoint: Which = "best"
    data_dir: DataDir = None
    both_orders: BothOrders = None
    plugins: Plugins = ()


@dataclass(frozen=True)
class Submission:
    """Writes the dev and test prediction files of a run in the course's format, and checks them; or checks others.

    Several runs predict as an ensemble, by the mean of their logits, and need `--output`.

    `mtbert submission RUN` predicts every row, whether or not its label can be used, and sets similarities beyond the
    task's range to its ends. `mtbert submission --check FILE ... --data FILE ...` checks files that were made
    elsewhere: header, ids in the data file's order, none missing, doubled or unknown, and every prediction.
    """

    runs: RunPaths = ()
    output: Path | None = None
    """Folder of the files; `submission` in the run folder if left out."""
    checkpoint: Which = "best"
    data_dir: DataDir = None
    check: tuple[Path, ...] = ()
    """Prediction files of the course's tasks to be checked; the header tells the task."""
    data: tuple[Path, ...] = ()
    """With `--check`: the data file of each of them, in the same order."""
    plugins: Plugins = ()


@dataclass(frozen=True)
class Ablate:
    """Trains several configs with several seeds, one after the other, and sets their dev scores side by side.

    What follows `--` goes to every run, as `mtbert train` takes it: `mtbert ablate a.toml b.toml -- --steps 500`. Runs
    lie in `<out>/<config name>/seed<N>`, tables (Markdown, CSV, JSON) in `<out>`. The same command goes on where it was
    stopped; once all runs are finished it only writes the tables.
    """

    configs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """The configs; each is a row of the table."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """The seeds."""
    out: Path = Path("runs/ablation")
    """Folder of the run folders and the tables."""
    together: Literal["auto", "on", "off"] = "auto"
    """Train all seeds of a config in one program, as many as fit into memory; `auto`: where there is a GPU or TPU."""
    at_once: int = 1
    """Processes at the same time, each on its share of the CPU's cores; on a CPU more work gets done so."""
    against: tuple[str, ...] = ()
    """Names of configs that a second table sets the others beside; the first config if left out."""


@dataclass(frozen=True)
class Report:
    """Writes one HTML page about a run, or about several beside each other.

    A folder that is no run itself stands for all runs below it. Runs that differ in their seed only share a row.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Run folders, finished or not, or folders of such."""
    out: Path | None = None
    """The page; `report.html` in the folder that was given, or here, where several were."""
    data_dir: str | None = None
    """Folder of the data files, in place of the runs'."""
    hide_texts: bool = False
    """Shows the ids of mistakes instead of their texts, for data that must not be passed on."""
    plugins: Plugins = ()


@dataclass(frozen=True)
class Export:
    """Writes a checkpoint for use elsewhere, and prints the folder: encoder, heads, tokenizer and a page about them.

    `hf`: an encoder for `AutoModel`, heads as safetensors, and a model card with the code that joins them. `stablehlo`:
    a program per task by `jax.export`, for CPUs and NVIDIA GPUs, and a script that needs JAX and a tokenizer only.
    """

    run: RunPath
    format: Literal["hf", "stablehlo"]
    """For `transformers`, or for plain JAX."""
    out: Path | None = None
    """The folder of the export; `export/<format>` in the run folder if left out."""
    checkpoint: Which = "best"
    overwrite: bool = False
    """Replace an earlier export."""
    plugins: Plugins = ()


@dataclass(frozen=True)
class Completion:
    """Prints what a shell reads to complete commands, flags and file names.

    bash: `eval "$(mtbert completion bash)"` in ~/.bashrc; zsh: `mtbert completion zsh > DIR/_mtbert`, for a DIR in
    $fpath; fish: `mtbert completion fish > ~/.config/fish/completions/mtbert.fish`.
    """

    shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional]
    """The shell."""
