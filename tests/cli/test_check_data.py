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
    assert (status, err, facts["problems"], facts["warnings"]) == (0, "", [], [])
    assert set(facts) == {"splits", "overlaps", "lengths", "stages", "problems", "warnings", "remarks"}
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
    assert err.startswith(
        "mtbert: training would refuse these data: task sts: 2 bad rows, the first: sts-dev.csv:23: column "
    )
    assert err.count("\n") == 1
    assert "sts-dev.csv:24" in out
    assert facts["splits"][7]["bad"][0] == {
        "reason": "column 'similarity' is not a number from 0.0 to 5.0",
        "rows": 1,
        "lines": [23],
        "advice": 'bad_rows = "skip" would leave such rows out',
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


def test_what_is_read_is_not_written_over(toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = next(path for path in (tmp_path / "data").iterdir() if path.name == load_config(toml).tasks[0].train)
    above = tmp_path / "above.toml"
    above.write_text(f'include = "{toml.name}"\n')
    encoder = Path(load_config(toml).encoder) / "tokenizer.json"
    cases = {
        above: "is the config",
        toml: "is a file that the config includes",
        data: f"is the train file of task {load_config(toml).tasks[0].name}",
        encoder: "lies in the folder of the encoder",
    }
    before = [path.read_text() for path in cases]
    for path, told in cases.items():
        assert main(["check-data", str(above), "--json", str(path)]) == 2
        assert capsys.readouterr().err == f"mtbert: --json {path} {told}; name another file\n"
    assert before == [path.read_text() for path in cases]


def test_a_config_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-data"]) == 2
    assert "give a config: mtbert check-data CONFIG.toml" in capsys.readouterr().err


def test_it_leaves_no_run_folder(toml: Path) -> None:
    assert main(["check-data", str(toml)]) == 0
    assert not Path(load_config(toml).out).exists()


def one_task(tmp_path: Path, encoder: Path, file: str, text: str, **fields: str) -> Path:
    """A config of one task, over the same encoder."""
    (tmp_path / file).write_text(text)
    task = {"name": '"q"', "text": '["sentence"]', "id": '""', "train": f'"{file}"', "dev": f'"{file}"', **fields}
    path = tmp_path / "one.toml"
    lines = (f"{key} = {value}" for key, value in task.items())
    path.write_text(
        "\n".join([f'encoder = "{encoder}"', f'data_dir = "{tmp_path}"', "max_length = 40", "[[tasks]]", *lines]) + "\n"
    )
    return path


@pytest.mark.parametrize(
    ("file", "text", "fields", "reason"),
    [
        ("b.csv", "sentence,label\nfilm,True\nsong,False\n", {"kind": '"binary"'}, "column 'label' is not a whole"),
        ("c.csv", "sentence,label\nfilm,1.0\nsong,0.0\n", {"classes": '["0", "1"]'}, "column 'label' is not one of"),
        ("d.jsonl", '[[1], [2]]', {"num_classes": "2"}, "is not a JSON object"),
        ("e.jsonl", '{"sentence": ["a"], "label": 1}\n{"sentence": "b", "label": null}', {"num_classes": "2"}, "field"),
    ],
)  # fmt: skip
def test_where_every_row_is_bad_the_reasons_and_lines_are_told(
    file: str, text: str, fields: dict[str, str], reason: str,
    small_encoder_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = one_task(tmp_path, small_encoder_dir, file, text, **fields)
    for flags in ([], ["--bad-rows", "skip"]):
        status, facts = run(path, tmp_path, *flags)
        out, err = capsys.readouterr()
        first = min(bad["lines"][0] for bad in facts["splits"][0]["bad"])
        assert (status, facts["splits"][0]["rows"], facts["stages"]) == (2, 0, [])
        assert sum(bad["rows"] for bad in facts["splits"][0]["bad"]) == 2
        assert f"task q: only bad rows, the first: {file}:{first}: {reason}" in err
        assert f"{file}:{first}" in out
        assert "skip" not in err
        assert err.count("\n") == 1
    assert main(["train", str(path), "--dry-run", "--bad-rows", "skip"]) == 2
    assert f"no usable rows: 2 bad ones, the first in line {first}: " in capsys.readouterr().err


def test_ids_that_come_twice_are_advised_without_loss(
    small_encoder_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "id,sentence,label\n1,film,1\n\n1,song,0\n"
    path = one_task(tmp_path, small_encoder_dir, "a.csv", text, num_classes="2", id='"id"')
    assert main(["check-data", str(path)]) == main(["train", str(path), "--dry-run"]) == 2
    for err in capsys.readouterr().err.splitlines():
        assert "a.csv:4: " in err
        assert 'id = "" numbers the rows instead, and keeps them all' in err
        assert "skip" not in err
    status, facts = run(path, tmp_path, "--tasks.0.id", "")
    assert (status, facts["splits"][0]["rows"]) == (0, 2)


def test_test_labels_that_are_secret_are_no_fault(small_encoder_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("label\tsentence\n-1\tfilm\n\tsong\n1\tmeal\n")
    path = one_task(tmp_path, small_encoder_dir, "a.csv", "sentence,label\nfilm,1\n", num_classes="2", test='"t.tsv"')
    status, facts = run(path, tmp_path)
    (test,) = (split for split in facts["splits"] if split["split"] == "test")
    assert (status, test["rows"], test["labelled"], test["bad"]) == (0, 3, 1, [])
    assert test["unlabelled"] == {"rows": 2, "lines": [2, 3]}


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("sentence\tlabels\nfilm\t1\n", "; did you mean 'labels'?"),
        ('{"sentence": "film", "lable": 1}\n', "; did you mean 'lable'?"),
        ('{"sentence": "film", "lable": 1}\n{"sentence": "song", "label": 1}\n', ""),
        ("sentence\tlabel2\nfilm\t1\n", ""),  # another task's
        ("sentence\tother\nfilm\t1\n", ""),
    ],
)
def test_a_test_file_with_a_column_like_the_labels_is_remarked_on(
    text: str, hint: str, small_encoder_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "t.txt").write_text(text)
    rows = "sentence,label,label2\nfilm,1,1\nsong,0,0\n"
    path = one_task(tmp_path, small_encoder_dir, "a.csv", rows, num_classes="2", test='"t.txt"')
    other = 'name = "r"\ntext = ["sentence"]\nid = ""\nlabel = "label2"\nnum_classes = 2\ntrain = "a.csv"\n'
    path.write_text(f"{path.read_text()}[[tasks]]\n{other}")
    told = [line for line in run(path, tmp_path)[1]["remarks"] if "no column" in line]
    assert told == [f"task q, test: no row has a label, since there is no column 'label'{hint}"][: len(hint)]


def test_stray_quotes_are_named_before_rows_are_lost(
    small_encoder_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = 'label\tsentence\tx\n1\t"the film\tthe\n0\tthe film"\tthe\n1\tfilm\tfilm\n0\tthe\tfilm\n'
    path = one_task(tmp_path, small_encoder_dir, "q.tsv", text, num_classes="2")
    assert main(["check-data", str(path)]) == 2
    assert "q.tsv:2: cannot be read as a table: a quote opens here and closes in line 3" in capsys.readouterr().err
    status, facts = run(path, tmp_path, "--tasks.0.no-quotes")
    assert (status, facts["splits"][0]["rows"]) == (0, 4)


def test_rows_of_several_lines_are_shown(
    small_encoder_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = one_task(
        tmp_path, small_encoder_dir, "a.csv", 'sentence,label\n"the, film\nwas",1\nsong,0\n', num_classes="2"
    )
    status, facts = run(path, tmp_path)
    assert (status, facts["splits"][0]["several"]) == (0, {"rows": 1, "lines": [2]})
    assert "rows of several lines" in capsys.readouterr().out


def test_blank_labels_of_one_task_in_a_shared_file_are_left_out_and_counted(
    small_encoder_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "sentence,label,other\nfilm,1,\nsong,,1\nmeal,0,0\n"
    path = one_task(tmp_path, small_encoder_dir, "a.csv", text, num_classes="2")
    own = path.read_text().partition("[[tasks]]")[2]
    path.write_text(path.read_text() + "[[tasks]]" + own.replace('"q"', '"r"') + 'label = "other"\n')
    status, facts = run(path, tmp_path)
    assert status == 0
    assert [(split["rows"], split["unlabelled"]["lines"]) for split in facts["splits"][::2]] == [(2, [3]), (2, [2])]
    (tmp_path / "a.csv").write_text(text + "trip,7,1\n")
    capsys.readouterr()
    assert main(["train", str(path), "--dry-run"]) == 2
    assert "a.csv:5: column 'label' is '7'" in capsys.readouterr().err


def verdict_of(capsys: pytest.CaptureFixture[str], toml: Path, tmp_path: Path, *flags: str) -> list[str]:
    run(toml, tmp_path, *flags)
    head, _, verdict = capsys.readouterr().out.rpartition("verdict: ")
    assert head
    return verdict.splitlines()


def test_it_ends_in_a_verdict(
    small_encoder_dir: Path, toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["film", "song", "meal", "the film", "the song", "the meal"]
    rows = "".join(f"{word},{number % 2}\n" for number, word in enumerate(words))
    (tmp_path / "dev.csv").write_text("sentence,label\n" + "".join(f"a {word},1\n" for word in words))
    path = one_task(tmp_path, small_encoder_dir, "a.csv", f"sentence,label\n{rows}", num_classes="2", dev='"dev.csv"')
    first, *more = verdict_of(capsys, path, tmp_path, "--bad-rows", "skip")
    assert first.startswith("these data can be trained on")
    assert [line for line in more if "task" in line] == [
        "- task q, dev: 100% of the labels are 1, so that always saying so has that accuracy"
    ]
    (tmp_path / "dev.csv").write_text("sentence,label\nfilm,0\nsong,0\nnew meal,1\nmeal,2\n")
    _, *more = verdict_of(
        capsys, path, tmp_path, "--bad-rows", "skip", "--tasks.0.num-classes", "3", "--max-length", "3"
    )
    assert [line for line in more if "task" in line] == [
        "- task q, train: 3 of 6 rows are cut off after 3 tokens (max_length)",
        "- task q, train: no row of class 2",
        "- task q, dev: 1 of 4 rows are cut off after 3 tokens (max_length)",
        "- task q: 3 of 4 dev rows also stand in train; scores on them say less about new texts",
    ]
    assert run(path, tmp_path)[1]["remarks"][-1].startswith("task q: ")
    refused = verdict_of(capsys, toml, tmp_path, "--tasks.1.train", "", "--tasks.2.train", "")
    assert refused == [
        "training would refuse these data:",
        '- task para has no train file; give its name as train = "..."',
        '- task sts has no train file; give its name as train = "..."',
    ]


def test_without_dev_files_there_is_no_best_checkpoint(
    small_encoder_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "sentence,label\nfilm,0\nFilm,1\nsong,\n"
    path = one_task(tmp_path, small_encoder_dir, "a.csv", text, num_classes="2", dev='""')
    _, *more = verdict_of(capsys, path, tmp_path, "--bad-rows", "skip")
    assert "- task q, train: 1 bad rows are left out" in more
    assert "- task q, train: 1 rows repeat an earlier text with another label" in more
    assert "- no task has a dev file: no checkpoint can be called the best" in more
