"""Flags before they are read: names of tasks and stages, a config among flags, hints for what other trainers have."""

import contextlib
import dataclasses
import io
import re
from pathlib import Path

import pytest

import mtbert_jax as mt
from mtbert_jax.cli import arguments, parsing
from mtbert_jax.cli.flags import by_number, check_values, config_place, known_flags, with_own_tables
from mtbert_jax.cli.main import COMMANDS, main
from mtbert_jax.config import Config, HeadConfig, StageConfig, save_config
from mtbert_jax.config.elsewhere import HINTS
from tests.runs import checkpointed


@pytest.fixture
def toml(config: Config, tmp_path: Path) -> Path:
    """The tiny config, whose tasks have no heads of their own."""
    tasks = tuple(dataclasses.replace(task, head=None) for task in config.tasks)
    save_config(dataclasses.replace(config, tasks=tasks, steps=1), tmp_path / "tiny.toml")
    return tmp_path / "tiny.toml"


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line in which a command line is refused."""
    capsys.readouterr()
    assert main([*argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    return err


def dry(toml: Path, capsys: pytest.CaptureFixture[str], *argv: str) -> Config:
    """The config that a command line comes to."""
    capsys.readouterr()
    assert main(["train", *(arg if arg != "CONFIG" else str(toml) for arg in argv), "--dry-run"]) == 0
    text = capsys.readouterr().out
    (toml.parent / "read.toml").write_text(text[: text.index("\n0.0M parameters")])
    return mt.load_config(toml.parent / "read.toml")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_flags_are_those_that_help_lists(name: str, config: Config) -> None:
    """Help is tyro's, and knows nothing of ours."""
    staged = dataclasses.replace(config, stages=(StageConfig(smart=config.smart), StageConfig()))
    takes = COMMANDS[name].arguments
    default = takes(staged) if "config" in {field.name for field in dataclasses.fields(takes)} else None
    written = io.StringIO()
    with contextlib.redirect_stdout(written), contextlib.suppress(SystemExit):
        parsing.parse(takes, ["--help"], "mtbert", default=default)
    lines = re.findall(r"^  (?:-h, )?(--.*)$", written.getvalue(), re.MULTILINE)
    listed = {flag for line in lines for flag in re.findall(r"--[a-z][a-z0-9.-]*", line)} - {"--help"}
    ours = known_flags(takes if default is None else default)
    assert listed == set(ours)
    for line in lines:
        flag, _, value = line.partition(" ")
        if flag in ours:  # `--no-…` stands behind a comma
            assert ours[flag] == (2 if "..." in value else 1)


@pytest.mark.parametrize(
    "argv",
    [
        ["--lr", "1e-4", "CONFIG.toml"],
        ["--tasks.sst.batch-size", "8", "CONFIG.toml", "--lr", "1"],
        ["--tasks.0.quotes", "CONFIG.toml"],
        ["--remat", "CONFIG.toml", "--seeds", "0", "1"],
        ["--no-remat", "--lr=1e-4", "CONFIG.toml"],
        ["--optimizer", "pcgrad()", "adam(lr)", "CONFIG.toml"],
        ["--stages.one.two.smart.weight", "-1", "CONFIG.toml", "--resume"],
        ["--learning-rate", "1e-4", "CONFIG.toml"],
        ["--fp16", "CONFIG.toml"],
        ["CONFIG.toml", "--plugins", "other.toml"],
        ["--plugins", "a.py", "CONFIG.toml"],
    ],
)
def test_the_config_stands_anywhere(argv: list[str]) -> None:
    assert config_place(arguments.Train, argv) == argv.index("CONFIG.toml")


@pytest.mark.parametrize("argv", [[], ["--lr", "1e-4"], ["--resume"], ["--out", "x.toml"], ["--help"], ["-h"]])
def test_there_may_be_no_config(argv: list[str]) -> None:
    assert config_place(arguments.Train, argv) is None


def test_a_run_folder_may_stand_behind_flags() -> None:
    assert config_place(arguments.Train, ["--resume", "runs/demo", "--lr", "1"]) == 1
    assert config_place(arguments.CheckData, ["--json", "facts.json", "demo.toml"]) == 2


def test_flags_may_come_first(toml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = dry(toml, capsys, "--lr", "1e-4", "--optimizer", "mean_tasks()", "adam(lr)", "CONFIG", "--seed", "3")
    assert (first.lr, first.optimizer, first.seed) == (1e-4, ("mean_tasks()", "adam(lr)"), 3)
    assert main(["check-data", "--max-length", "30", str(toml), "--lengths", "30"]) == 0


def test_tasks_and_stages_have_names_on_the_command_line(toml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages = '[[stages]]\nname = "heads only"\nsteps = 1\n[[stages]]\nsteps = 1\n[[stages]]\nname = "a.b"\nsteps = 1\n'
    toml.write_text(toml.read_text().replace("stages = []\n", "") + stages)
    flags = [
        "--tasks.sts.batch-size",
        "8",
        "--tasks.0.batch-size=2",
        "--tasks.para.no-quotes",
        "--stages.stage2.lr",
        "0.5",
    ]
    flags += ["--stages.heads only.steps", "3", "--stages.a.b.steps", "2", "--tasks.sst.head.dropout", "0.3"]
    flags += ["--head.hidden-layers", "2", "--stages.2.smart.weight", "1.5"]
    read = dry(toml, capsys, "CONFIG", *flags)
    assert [task.batch_size for task in read.tasks] == [2, None, 8]
    assert [task.quotes for task in read.tasks] == [True, False, True]
    assert [(stage.lr, stage.steps) for stage in read.stages] == [(None, 3), (0.5, 1), (None, 2)]
    assert [task.head for task in read.tasks] == [HeadConfig(dropout=0.3), None, None]
    assert [stage.smart and stage.smart.weight for stage in read.stages] == [None, None, 1.5]


def test_a_table_of_its_own_begins_as_the_runs(config: Config) -> None:
    bare = dataclasses.replace(config, tasks=tuple(dataclasses.replace(task, head=None) for task in config.tasks))
    bare = dataclasses.replace(bare, head=HeadConfig(pooling="mean"), stages=(StageConfig(),))
    flags = by_number(["--tasks.para.head.dropout", "0.1", "--stages.stage1.proximal.weight=1"], bare)
    filled = with_own_tables(bare, flags)
    assert [task.head for task in filled.tasks] == [None, bare.head, None]
    assert (filled.stages[0].proximal, filled.stages[0].smart) == (bare.proximal, None)
    assert filled.resolved_tasks() == bare.resolved_tasks()


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--tasks.sstt.lr", "no task 'sstt'; did you mean 'sst'? (tasks: sst, para, sts; or a number from 0)"),
        ("--tasks.3.batch-size", "no task '3' (tasks: sst, para, sts; or a number from 0)"),
        ("--stages.full.lr", "no stage 'full' (this config has no [[stages]])"),
        ("--tasks.sst.batch-sise", "--tasks.sst.batch-sise: a task has no 'batch-sise'; did you mean 'batch-size'?"),
        ("--tasks.0.lr", "--tasks.0.lr: a task has no 'lr'"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest(
    flag: str, expected: str, toml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in refused(capsys, "train", str(toml), flag, "1")
    assert expected in refused(capsys, "check-data", flag, "1", str(toml))


@pytest.mark.parametrize(
    ("flag", "ours"),
    [
        ("--learning-rate", "--lr"),
        ("--learning_rate", "--lr"),
        ("--num-epochs", "--epochs"),
        ("--num_train_epochs", "--epochs"),
        ("--per-device-train-batch-size", "--batch-size"),
        ("--output-dir", "--out"),
        ("--output_dir", "--out"),
        ("--model-name-or-path", "--encoder"),
        ("--max_seq_length", "--max-length"),
        ("--gradient_accumulation_steps", "--micro-batches"),
        ("--warmup-steps", "--warmup-fraction, a share of the steps"),
        ("--fp16", "--compute-dtype bfloat16"),
        ("--max_steps", "--steps"),
        ("--use_gpu", "the environment variable JAX_PLATFORMS (cpu, cuda)"),
        ("--config", "the config itself, first and without a flag"),
    ],
)
def test_what_other_trainers_call_a_flag_gets_a_hint(
    flag: str, ours: str, toml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = f"mtbert: mtbert train has no {flag}; use {ours} (see mtbert train --help)\n"
    assert refused(capsys, "train", str(toml), flag, "1") == expected
    assert refused(capsys, "train", f"{flag}=1", str(toml)) == expected


def test_hints_name_flags_that_there_are_for_names_that_there_are_not(config: Config) -> None:
    known = known_flags(arguments.Train(dataclasses.replace(config, stages=())))
    named = {flag.replace("NAME", "0") for ours in HINTS.values() for flag in re.findall(r"--[A-Za-z.-]*[a-z]", ours)}
    assert named <= set(known)
    assert [name for name in HINTS if f"--{name}" in known] == []
    assert len(HINTS) > 100


def test_an_unknown_flag_of_any_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "evaluate", "runs/x", "--spilt", "dev")
    assert line == "mtbert: mtbert evaluate has no --spilt; did you mean '--split'? (see mtbert evaluate --help)\n"
    assert "has no --learning-rate (see" in refused(capsys, "predict", "runs/x", "--learning-rate", "1")
    assert "did you mean '--format'" in refused(capsys, "export", "runs/x", "--fromat=hf")
    assert "give a config" in refused(capsys, "train", "--learning-rate", "1e-4")


@pytest.mark.parametrize("flag", ["--verbose", "--quiet", "--num-workers", "--threads", "--task", "--smart.lambda"])
def test_a_flag_that_is_like_none_gets_no_hint(flag: str, toml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Least of all one that deletes a run, or waits for other processes."""
    line = refused(capsys, "train", str(toml), flag, "1")
    assert line == f"mtbert: mtbert train has no {flag} (see mtbert train --help)\n"


@pytest.mark.parametrize(
    ("name", "text", "format"),
    [
        ("a.yaml", "lr: 1e-4\ntasks:\n  - name: sst\n", "YAML"),
        ("a.yml", "# ours\n---\nlr: 1e-4\n", "YAML"),
        ("a.json", '{"lr": 1e-4}\n', "JSON"),
        ("a.toml", '\n{\n  "lr": 1e-4\n}\n', "JSON"),
        ("a.toml", "# ours\nencoder: tiny\n", "YAML"),
        ("a.toml", "lr = high\n", ""),
    ],
)
def test_configs_of_other_formats_get_a_hint(
    name: str, text: str, format: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(text)
    line = refused(capsys, "train", str(tmp_path / name))
    assert "is not a TOML file" in line
    assert ("configs are TOML, and this looks like " in line) == bool(format)
    assert format in line
    assert refused(capsys, "train", "--optimizer", "adam(lr)", str(tmp_path / name)) == line


def test_messages_count_as_flags_do(toml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From 0, with the name beside the number; where two configs differ, by the name alone."""
    assert "tasks[0] (sst): batch_size = 0" in refused(capsys, "train", str(toml), "--tasks.0.batch-size", "0")
    assert "optimizer[1] = 'adm(lr)'" in refused(capsys, "train", str(toml), "--optimizer", "pcgrad()", "adm(lr)")
    wrong = toml.with_name("wrong.toml")
    wrong.write_text(toml.read_text().replace('name = "para"', 'name = "para"\nlable = 1'))
    assert "tasks[1] (para): unknown key 'lable'" in refused(capsys, "train", str(wrong))
    checkpointed(mt.load_config(toml))
    line = refused(
        capsys,
        "train",
        str(toml),
        "--resume",
        "--tasks.sts.batch-size",
        "8",
        "--optimizer",
        "pcgrad()",
        "sgd(lr)",
    )
    assert "tasks.sts.batch_size: None → 8" in line
    assert "optimizer[1]: " in line


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train", "CONFIG", "--steps", "2.0"], "--steps: expected a whole number, got '2.0'"),
        (["train", "CONFIG", "--lr="], "--lr: expected a number, got ''"),
        (["train", "CONFIG", "--lr", "--remat"], "--lr: a value must follow (see mtbert train --help)"),
        (["train", "CONFIG", "--lengths", "8,16"], "--lengths: expected a whole number, got '8,16'"),
        (
            ["train", "CONFIG", "--schedule", "linaer"],
            "--schedule = 'linaer' is none of 'constant', 'linear', 'cosine'; did",
        ),
        (["train", "CONFIG", "--writers", "csv"], "--writers = 'csv' is none of 'tensorboard', 'wandb'"),
        (["train", "CONFIG", "--tasks.sts.loss-weight", "x"], "--tasks.2.loss-weight: expected a number, got 'x'"),
        (
            ["train", "CONFIG", "--remat", "true"],
            "'true' belongs to no flag; --remat takes none (see mtbert train --help)",
        ),
        (["train", "CONFIG", "--lr", "1", "-2"], "'-2' belongs to no flag; --lr takes one value"),
        (["train", "CONFIG", "-x"], "mtbert train has no -x (see mtbert train --help)"),
        (["evaluate", "a", "--split", "dve"], "--split = 'dve' is none of 'train', 'dev', 'test'; did you mean 'dev'?"),
        (["evaluate", "a", "--json", "b"], "'b' belongs to no flag; --json takes none (see mtbert evaluate --help)"),
        (["export", "--format", "hf"], "run is missing (see mtbert export --help)"),
        (
            ["evaluate", "--both-orders", "sts", "a"],
            "no runs: --both-orders takes all words that follow it",
        ),
        (["ablate", "CONFIG", "--seeds", "x"], "--seeds: expected a whole number, got 'x'"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    argv: list[str], message: str, toml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, *(str(toml) if arg == "CONFIG" else arg for arg in argv)).startswith(f"mtbert: {message}")


@pytest.mark.parametrize(
    "args",
    [["a", "b", "--json"], ["--json", "a", "b"], ["--split=dev", "a"], ["--split", "x", "-h"], ["--both-orders"]],
)
def test_what_can_be_read_is_not_refused(args: list[str]) -> None:
    check_values(arguments.Evaluate, args, "mtbert evaluate")


def test_a_field_can_be_left_out_again(toml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read = dry(toml, capsys, "CONFIG", "--steps", "None", "--epochs", "-1e-3", "--epochs", "0.5", "--lengths")
    assert (read.steps, read.epochs, read.lengths) == (None, 0.5, ())
