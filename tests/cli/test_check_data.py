"""The command `check-data`, as a person uses it."""

import json
import shutil
from pathlib import Path

import pytest

from mtbert_jax.cli.main import main
from mtbert_jax.config import Config, load_config, save_config


@pytest.fixture
def toml(config: Config, tmp_path: Path) -> Path:
    """The tiny config as a file, over data and an encoder of its own; of the encoder, only the tokenizer is there."""
    shutil.copytree(config.data_dir, tmp_path / "data")
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    shutil.copy(Path(config.encoder) / "tokenizer.json", encoder)
    path = tmp_path / "tiny.toml"
    save_config(config, path)
    edited = path.read_text().replace(config.data_dir, str(tmp_path / "data")).replace(config.encoder, str(encoder))
    path.write_text(edited)
    return path


def run(toml: Path, tmp_path: Path, *flags: str) -> tuple[int, dict]:
    status = main(["check-data", str(toml), "--json", str(tmp_path / "facts.json"), *flags])
    return status, json.loads((tmp_path / "facts.json").read_text())


def test_it_tells_people_and_machines_the_same(toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, facts = run(toml, tmp_path)
    out, err = capsys.readouterr()
    assert (status, err, facts["problems"]) == (0, "", [])
    assert set(facts) == {"splits", "overlaps", "lengths", "stages", "problems"}
    assert [(s["task"], s["split"], s["rows"]) for s in facts["splits"]][:3] == [
        ("sst", "train", 37),
        ("sst", "dev", 21),
        ("sst", "test", 11),
    ]
    train = facts["splits"][0]
    assert sum(train["classes"].values()) == train["labelled"] == 37
    assert f"0: {train['classes']['0']} ({train['classes']['0'] / 37:.1%})" in out
    assert facts["lengths"] == {"sst": [48], "para": [48], "sts": [48]}
    (stage,) = facts["stages"]
    assert (stage["steps"], stage["shapes"]) == (6, [[4, 48, 18]])
    assert "4 × 48 (18)" in out
    assert "\x1b" not in out


def test_a_field_given_on_the_command_line_counts(toml: Path, tmp_path: Path) -> None:
    status, facts = run(toml, tmp_path, "--max-length", "16", "--lengths", "16", "--batch-size", "8")
    assert status == 0
    assert facts["stages"][0]["shapes"] == [[8, 16, 15]]  # an epoch, which is shorter than 6 steps
    assert [s["limit"] for s in facts["splits"]] == [16] * 9
    assert any(s["cut"] for s in facts["splits"])


def test_a_stage_on_kept_features_has_no_shapes_of_tokens(
    toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = '[[stages]]\nname = "heads"\nfreeze = ["encoder"]\ncache_features = true\n[[stages]]\nname = "all"\n'
    toml.write_text(toml.read_text().replace("stages = []\n", "") + stages)
    status, facts = run(toml, tmp_path)
    heads, everything = facts["stages"]
    assert (status, heads["shapes"], heads["computed_per_token"]) == (0, [], None)
    assert everything["shapes"] == [[4, 48, 18]]
    assert "features, kept" in capsys.readouterr().out


def test_it_quotes_no_text(toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not even where a text stands in a label's column."""
    data = tmp_path / "data" / "ids-sst-train.csv"
    data.write_text(data.read_text() + "7\tnew\t1\tthe secret was told\n8\tnewer\tthe secret film was good\t1\n")
    with (tmp_path / "data" / "ids-sst-dev.csv").open("a") as dev:
        dev.write("8\tnewest\tthe secret film was good\t1\n")
    assert run(toml, tmp_path)[0] == 2
    text = "".join(capsys.readouterr()) + (tmp_path / "facts.json").read_text()
    assert "secret" not in text
    assert "23 = 40" in text  # the dev row, and the training row


def test_what_training_would_refuse_is_named_after_all_is_told(
    toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "data" / "sts-dev.csv").open("a") as file:
        file.write("8\tnew\tone\ttwo\t5.5\n9\tnewer\tone\n")
    status, facts = run(toml, tmp_path)
    out, err = capsys.readouterr()
    assert status == 2
    assert err.startswith("mtbert: training would refuse these data: task sts: 2 bad rows, the first: sts-dev.csv:23 ")
    assert err.count("\n") == 1
    assert "sts-dev.csv:24" in out
    assert facts["splits"][7]["bad"][0] == {
        "reason": "column 'similarity' is not a number from 0.0 to 5.0",
        "rows": 1,
        "lines": [23],
    }
    assert main(["train", str(toml), "--dry-run"]) == 2  # as was said
    assert run(toml, tmp_path, "--bad-rows", "skip")[0] == 0


def test_a_task_without_a_training_file_has_no_batches(toml: Path, tmp_path: Path) -> None:
    status, facts = run(toml, tmp_path, "--tasks.1.train", "")
    assert status == 2
    assert facts["problems"] == ['task para has no train file; give its name as train = "..."']
    assert (facts["stages"], len(facts["splits"])) == ([], 8)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--data-dir", "nowhere"], "data folder nowhere does not exist"),
        (["--tasks.0.dev", "none.csv"], "cannot read the data file"),
        (["--tasks.0.label", "sentimen"], "no column 'sentimen'; did you mean 'sentiment'?"),
        (["--batch-size", "0"], "batch_size = 0: must be at least 1"),
        (["--json", "nowhere/facts.json"], "cannot write nowhere/facts.json"),
    ],
)
def test_bad_input_is_one_line(toml: Path, flags: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-data", str(toml), *flags]) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert err.count("\n") == 1


def test_a_config_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-data"]) == 2
    assert "give a config: mtbert check-data CONFIG.toml" in capsys.readouterr().err


def test_it_leaves_no_run_folder(toml: Path) -> None:
    assert main(["check-data", str(toml)]) == 0
    assert not Path(load_config(toml).out).exists()
