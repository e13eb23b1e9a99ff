"""The transitive closure of pairs, against all paths of a graph; and the command that writes it."""

import dataclasses
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest

import mtbert_jax as mt
from mtbert_jax.cli.main import main
from mtbert_jax.config import Config, TaskConfig, load_config, save_config
from mtbert_jax.data.closure import close
from mtbert_jax.types import Example


def pairs(text: str) -> list[Example]:
    """Examples from words such as ``a=b`` and ``c/d``."""
    made = []
    for number, word in enumerate(text.split()):
        sign = "=" if "=" in word else "/"
        made.append(Example(str(number), tuple(word.split(sign)), float(sign == "=")))
    return made


def test_positive_pairs_close_and_negative_ones_spread() -> None:
    found = close(pairs("a=b b=c c/d d=e f/g"))
    assert [set(pair) for pair in found.positives] == [{"a", "c"}]
    assert {frozenset(pair) for pair in found.negatives} == {
        frozenset(pair) for pair in itertools.product("abc", "de") if set(pair) != {"c", "d"}
    }
    assert (found.groups, found.largest, found.left_out, found.contradictions) == (1, 3, 0, [])
    assert close(pairs("a= =b b/  ")).positives == close(pairs("a= =b /c b/c")).negatives == []  # nothing links these


def test_nothing_follows_from_a_contradiction() -> None:
    found = close(pairs("a=b b=c a/c c/d"))
    assert found.contradictions == [2]
    assert found.positives == []
    assert {frozenset(pair) for pair in found.negatives} == {frozenset("ad"), frozenset("bd")}


def test_case_and_blanks_make_no_other_text_and_the_first_spelling_is_kept() -> None:
    examples = [Example("1", ("How  so?", "Why?"), 1.0), Example("2", ("WHY?", "what for"), 1.0)]
    examples.append(Example("3", ("how so?", "never"), None))
    found = close(examples)
    assert found.positives == [("How  so?", "what for")]
    assert found.negatives == []


@pytest.mark.parametrize("seed", range(6))
def test_it_is_the_closure_of_a_random_graph(seed: int) -> None:
    """All pairs that a path of positive pairs connects, by powers of the adjacency matrix, and none twice."""
    rng = np.random.default_rng(seed)
    size = 12
    edges = rng.integers(0, size, (14, 2))
    edges = edges[edges[:, 0] != edges[:, 1]]
    labels = (rng.random(len(edges)) < 0.6).astype(float)
    examples = [Example(str(n), (f"t{a}", f"t{b}"), x) for n, ((a, b), x) in enumerate(zip(edges, labels, strict=True))]
    found = close(examples)
    adjacent = np.eye(size, dtype=int)
    for (a, b), label in zip(edges, labels, strict=True):
        if label:
            adjacent[a, b] = adjacent[b, a] = 1
    connected = np.linalg.matrix_power(adjacent, size) > 0
    known = {frozenset(map(int, edge)) for edge in edges}
    every = {frozenset(pair) for pair in itertools.combinations(range(size), 2)} - known
    expected = {pair for pair in every if connected[tuple(pair)]}
    apart = np.zeros((size, size), bool)
    for (a, b), label in zip(edges, labels, strict=True):
        if not label and not connected[a, b]:
            apart |= np.outer(connected[a], connected[b]) | np.outer(connected[b], connected[a])
    differ = {pair for pair in every if apart[tuple(pair)]}
    for made, wanted in ((found.positives, expected), (found.negatives, differ)):
        assert {frozenset(int(text[1:]) for text in pair) for pair in made} == wanted
        assert len(made) == len(wanted)


def test_a_cap_draws_from_each_group_by_the_seed() -> None:
    text = " ".join(f"a{n}=a{n + 1}" for n in range(9)) + " b0=b1 b1=b2"
    whole, some, again, other = (
        close(pairs(text)),
        close(pairs(text), 5),
        close(pairs(text), 5),
        close(pairs(text), 5, 1),
    )
    assert len(whole.positives) == 36 + 1
    assert len(some.positives) == 5 + 1
    assert some.left_out == 31
    assert some == again
    assert some.positives != other.positives
    assert set(some.positives) <= set(whole.positives)


def test_the_command_writes_a_file_that_trains(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"id": "closure-1", "sentence1": "the game .", "sentence2": "a game .", "is_duplicate": 1.0},
        {"id": "b", "sentence1": "a game .", "sentence2": "this game .", "is_duplicate": 1.0},
        {"id": "c", "sentence1": "this game .", "sentence2": "the city .", "is_duplicate": 0.0},
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = ("sentence1", "sentence2")
    task = TaskConfig("para", "binary", text=text, label="is_duplicate", train=str(path), max_length=20)
    config = dataclasses.replace(config, tasks=(task,), optimizer=("sgd(lr)",), steps=1, eval_every_steps=1)
    save_config(config, tmp_path / "a.toml")
    out = tmp_path / "more.jsonl"
    assert main(["augment", str(tmp_path / "a.toml"), "--write", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "3 pairs of" in printed
    assert "1 groups of three texts or more, the largest of 3" in printed
    assert "1 new positive pairs, 2 new negative ones" in printed
    assert f"--tasks.para.train {out}" in printed
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert found[:3] == [{**row, "is_duplicate": int(row["is_duplicate"])} for row in rows]  # type: ignore[call-overload]
    assert [row["id"] for row in found[3:]] == ["closure-2", "closure-3", "closure-4"]
    assert {(frozenset((row["sentence1"], row["sentence2"])), row["is_duplicate"]) for row in found[3:]} == {
        (frozenset(("the game .", "this game .")), 1),
        (frozenset(("the game .", "the city .")), 0),
        (frozenset(("a game .", "the city .")), 0),
    }
    assert len(mt.read_task(dataclasses.replace(task, train=str(out)), "train")) == 6
    assert main(["augment", str(tmp_path / "a.toml"), "--write", str(out), "--no-negatives", "--cap", "1"]) == 0
    assert len(out.read_text().splitlines()) == 4
    assert main(["train", str(tmp_path / "a.toml"), "--tasks.para.train", str(out)]) == 0


def test_rows_that_are_left_out_are_told(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("x,y,same,near\na,b,1,.5\nb,c,,.2\nc,d\n")
    para = TaskConfig("para", "binary", ("x", "y"), "same", "", str(tmp_path / "a.csv"))
    near = TaskConfig("near", "regression", ("x", "y"), "near", "", str(tmp_path / "a.csv"))
    save_config(dataclasses.replace(config, tasks=(para, near), bad_rows="skip"), tmp_path / "a.toml")
    assert main(["augment", str(tmp_path / "a.toml"), "--write", str(tmp_path / "b.jsonl")]) == 0
    printed = capsys.readouterr().out
    assert "1 bad rows left out, the first: " in printed
    assert "a.csv have no label for it and are left out" in printed


REAL = Path(os.environ.get("MTBERT_COURSE_DATA", "../shared/data/cs224n"))


@pytest.mark.skipif(not REAL.is_dir(), reason="the course's files are not here")
def test_the_courses_pairs() -> None:
    """The counts that docs/concepts/batching.md gives."""
    (task,) = [task for task in load_config("configs/course_tasks.toml").tasks if task.name == "para"]
    found = close(mt.read_task(task, "train", REAL))
    assert (found.groups, found.largest, found.contradictions) == (439, 56, [])
    assert (len(found.positives), len(found.negatives)) == (5584, 586)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--task", "sst"], "--task sst: has no two texts with the labels 0 and 1 (this config has: para)"),
        (
            ["--task", "par"],
            "--task par: is no task with a training file; did you mean 'para'? (this config has: para)",
        ),
        (["--write", "more.tsv"], "--write more.tsv: JSON Lines are written; let the name end in .jsonl"),
        (["--cap", "-1"], "--cap = -1: must be at least 0"),
        (["--task", "shares"], "--task shares: has no two texts with the labels 0 and 1 (this config has: para)"),
        (["--task", "topics"], "--task topics: has no two texts with the labels 0 and 1 (this config has: para)"),
        (["--write", "no/such/more.jsonl"], "no/such"),
    ],
)
def test_wrong_arguments_are_named(
    args: list[str], message: str, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    para = next(task for task in config.tasks if task.name == "para")
    several = (
        dataclasses.replace(para, name="shares", kind="distribution", num_classes=2),
        dataclasses.replace(para, name="topics", kind="multilabel", classes=("0", "1")),
    )
    save_config(dataclasses.replace(config, tasks=(*config.tasks, *several)), tmp_path / "a.toml")
    assert main(["augment", "a.toml", *args]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.jsonl"))


@pytest.mark.parametrize(
    ("write", "what"),
    [
        ("pairs.jsonl", "the train file of task para"),
        ("./link.jsonl", "the train file of task para"),
        ("dev.jsonl", "the dev file of task para"),
        ("other.jsonl", "the test file of task sst"),
    ],
)
def test_a_data_file_is_not_written_over(
    write: str, what: str, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    text = '{"id": "a", "sentence1": "x", "sentence2": "y", "is_duplicate": 1, "source": "by hand"}\n'
    for name in ("pairs.jsonl", "dev.jsonl", "other.jsonl"):
        (tmp_path / name).write_text(text)
    (tmp_path / "link.jsonl").symlink_to("pairs.jsonl")
    para = next(task for task in config.tasks if task.name == "para")
    para = dataclasses.replace(para, train="pairs.jsonl", dev=str(tmp_path / "dev.jsonl"), test="")
    sst = dataclasses.replace(config.tasks[0], test="other.jsonl")
    save_config(dataclasses.replace(config, tasks=(sst, para), data_dir=str(tmp_path)), tmp_path / "a.toml")
    assert main(["augment", "a.toml", "--write", write]) == 2
    assert capsys.readouterr().err == f"mtbert: --write {Path(write)} is {what}; name another file\n"
    assert all((tmp_path / name).read_text() == text for name in ("pairs.jsonl", "dev.jsonl", "other.jsonl"))
    assert main(["augment", "a.toml", "--write", "new.jsonl"]) == 0
