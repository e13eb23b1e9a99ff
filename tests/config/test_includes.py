"""Configs that include others: what wins, what merges, and what is refused."""

import os
from pathlib import Path

import pytest

from mtbert_jax.checks import check_config
from mtbert_jax.config import HeadConfig, ProximalConfig, SmartConfig, includes, load_config
from mtbert_jax.config.includes import lay_over, read_all
from mtbert_jax.errors import InputError

TASKS = """
[[tasks]]
name = "sst"
kind = "classification"
num_classes = 5
train = "sst.csv"
[tasks.head]
hidden_layers = 3
dropout = 0.5

[[tasks]]
name = "sts"
kind = "regression"
train = "sts.csv"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "study").mkdir()
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as error:
        load_config(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_include_gives_what_the_file_leaves_out(folder: Path) -> None:
    write(folder / "base.toml", "lr = 1.0\nseed = 7\n" + TASKS)
    config = load_config(write(folder / "run.toml", 'include = "base.toml"\nlr = 2.0\n'))
    assert (config.lr, config.seed, [task.name for task in config.tasks]) == (2.0, 7, ["sst", "sts"])


def test_an_include_is_relative_to_the_file_that_it_stands_in(folder: Path) -> None:
    write(folder / "tasks.toml", TASKS)
    write(folder / "study" / "base.toml", 'include = "../tasks.toml"\nlr = 1.0\n')
    write(folder / "study" / "row.toml", 'include = "base.toml"\nseed = 3\n')
    config = load_config(write(folder / "run.toml", 'include = "study/row.toml"\nbatch_size = 2\n'))
    assert (config.lr, config.seed, config.batch_size, len(config.tasks)) == (1.0, 3, 2, 2)


def test_later_files_win_over_earlier_ones_and_the_file_itself_over_all(folder: Path) -> None:
    write(folder / "a.toml", "lr = 1.0\nseed = 1\nepochs = 1\nbatch_size = 1\n")
    write(folder / "b.toml", "lr = 2.0\nseed = 2\nepochs = 2\n")
    write(folder / "c.toml", 'include = "a.toml"\nepochs = 3.0\n')
    config = load_config(write(folder / "run.toml", 'include = ["b.toml", "c.toml"]\nlr = 4.0\n'))
    assert (config.lr, config.seed, config.epochs, config.batch_size) == (4.0, 1, 3.0, 1)


def test_a_file_that_is_reached_twice_counts_where_it_is_reached_first(folder: Path) -> None:
    """Two rows over one base: what the first row changed must not be undone by the base of the second."""
    write(folder / "base.toml", 'lr = 1.0\norder = "sequential"\n')
    write(folder / "one.toml", 'include = "base.toml"\nlr = 2.0\n')
    write(folder / "two.toml", 'include = "./study/../base.toml"\norder = "annealed"\n')
    config = load_config(write(folder / "both.toml", 'include = ["one.toml", "two.toml"]\n'))
    assert (config.lr, config.order) == (2.0, "annealed")
    assert [path.name for path, _ in read_all(folder / "both.toml")] == [
        "base.toml", "one.toml", "two.toml", "both.toml"
    ]  # fmt: skip


def test_a_file_that_is_reached_often_is_followed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(9):
        write(folder / f"{number}.toml", f'include = ["{number + 1}.toml", "{number + 1}.toml"]\n')
    write(folder / "9.toml", "lr = 1.0\n")
    reads: list[Path] = []
    read = includes.read_text
    monkeypatch.setattr(includes, "read_text", lambda path, largest: reads.append(path) or read(path, largest))
    assert load_config(folder / "0.toml").lr == 1.0
    assert len(reads) == 10  # and not the 2**10 ways that lead there


def test_tables_merge_key_by_key(folder: Path) -> None:
    write(folder / "base.toml", "[head]\nhidden_layers = 2\ndropout = 0.3\n[smart]\nweight = 1.0\nsteps = 3\n")
    text = 'include = "base.toml"\n[head]\ndropout = 0.1\n[smart]\npreset = "paper"\n[proximal]\nweight = 0.5\n'
    config = load_config(write(folder / "run.toml", text))
    assert config.head == HeadConfig(hidden_layers=2, dropout=0.1)
    assert config.smart == SmartConfig(weight=1.0, steps=3, preset="paper")
    assert config.proximal == ProximalConfig(weight=0.5)


def test_tasks_merge_by_name_and_new_ones_are_added(folder: Path) -> None:
    write(folder / "base.toml", TASKS)
    changes = '[[tasks]]\nname = "cfimdb"\nmax_length = 99\n[[tasks]]\nname = "sst"\nmax_length = 7\n'
    config = load_config(
        write(folder / "run.toml", f'include = "base.toml"\n{changes}[tasks.head]\npooling = "mean"\n')
    )
    assert [(task.name, task.max_length) for task in config.tasks] == [("sst", 7), ("sts", None), ("cfimdb", 99)]
    sst = config.tasks[0]
    assert (sst.num_classes, sst.train) == (5, "sst.csv")
    assert sst.head == HeadConfig(hidden_layers=3, dropout=0.5, pooling="mean")


def test_tasks_of_several_includes_come_together(folder: Path) -> None:
    write(folder / "three.toml", TASKS)
    write(folder / "one.toml", '[[tasks]]\nname = "cfimdb"\nkind = "binary"\ntrain = "imdb.csv"\n')
    config = load_config(write(folder / "run.toml", 'include = ["three.toml", "one.toml"]\n'))
    assert [task.name for task in config.tasks] == ["sst", "sts", "cfimdb"]
    check_config(config)


def test_two_tasks_of_one_name_in_one_file_stay_a_mistake(folder: Path) -> None:
    write(folder / "base.toml", TASKS)
    twice = '[[tasks]]\nname = "sts"\nkind = "regression"\ntrain = "sts.csv"\n' * 2
    config = load_config(write(folder / "run.toml", f'include = "base.toml"\n{twice}'))
    with pytest.raises(InputError, match="task names must differ, got sst, sts, sts"):
        check_config(config)


def test_other_lists_are_replaced(folder: Path) -> None:
    stages = '[[stages]]\nname = "heads"\nlr = 1.0\n[[stages]]\nname = "full"\n'
    write(folder / "base.toml", f'lengths = [8, 16]\noptimizer = ["sum_tasks()", "adam(lr)"]\n{stages}')
    text = 'include = "base.toml"\nlengths = [4]\noptimizer = ["sgd(lr)"]\n[[stages]]\nname = "heads"\nsteps = 3\n'
    config = load_config(write(folder / "run.toml", text))
    assert (config.lengths, config.optimizer) == ((4,), ("sgd(lr)",))
    assert [(stage.name, stage.lr, stage.steps) for stage in config.stages] == [("heads", None, 3)]


def test_lay_over_leaves_both_as_they_were() -> None:
    old = {"head": {"dropout": 1}, "tasks": [{"name": "a", "head": {"x": 1}}]}
    new = {"head": {"x": 2}, "tasks": [{"name": "a", "head": {"y": 2}}]}
    assert lay_over(old, new, ("tasks",))["tasks"] == [{"name": "a", "head": {"x": 1, "y": 2}}]
    assert old == {"head": {"dropout": 1}, "tasks": [{"name": "a", "head": {"x": 1}}]}
    assert new == {"head": {"x": 2}, "tasks": [{"name": "a", "head": {"y": 2}}]}


@pytest.mark.parametrize(
    "include",
    ["3", '""', '"/etc/base.toml"', '"base.txt"', '"base"', '"a\\u0000.toml"', "[1]", "{ a = 1 }", '["a", 2]'],
)
def test_an_include_is_a_relative_path_to_a_toml_file(include: str, folder: Path) -> None:
    message = refusal(write(folder / "run.toml", f"include = {include}\n"))
    assert message.startswith(f"{folder / 'run.toml'}: include = ")
    assert message.endswith(": give the path of a .toml file, relative to this one, or a list of such paths")


def test_an_included_file_that_is_missing_is_named_with_the_one_that_includes_it(folder: Path) -> None:
    write(folder / "base.toml", 'include = "study/nowhere.toml"\n')
    message = refusal(write(folder / "run.toml", 'include = "base.toml"\n'))
    whose = f"which {folder / 'base.toml'} includes"
    assert message == f"cannot read the config {folder / 'study' / 'nowhere.toml'}, {whose}: No such file or directory"


def test_an_included_file_that_is_no_toml_is_named(folder: Path) -> None:
    write(folder / "base.toml", "lr = ")
    assert "base.toml is not a TOML file: " in refusal(write(folder / "run.toml", 'include = "base.toml"\n'))


def test_files_that_include_each_other_are_refused(folder: Path) -> None:
    write(folder / "a.toml", 'include = "b.toml"\n')
    write(folder / "b.toml", 'include = "study/c.toml"\n')
    write(folder / "study" / "c.toml", 'include = "../b.toml"\n')
    circle = " → ".join(str(folder / name) for name in ("b.toml", "study/c.toml", "study/../b.toml"))
    assert refusal(folder / "a.toml") == f"{folder / 'b.toml'}: its includes lead in a circle: {circle}"
    assert "its includes lead in a circle" in refusal(write(folder / "own.toml", 'include = "own.toml"\n'))


def test_a_wrong_key_in_an_included_file_is_named_there(folder: Path) -> None:
    write(folder / "base.toml", TASKS + '[[tasks]]\nlable = "x"\n')
    write(folder / "middle.toml", 'include = "base.toml"\n')
    message = refusal(write(folder / "run.toml", 'include = "middle.toml"\n'))
    assert message == f"{folder / 'base.toml'}: tasks[2]: unknown key 'lable'; did you mean 'label'?"


def test_a_wrong_value_is_named_in_its_own_file_even_where_another_file_replaces_it(folder: Path) -> None:
    write(folder / "base.toml", 'lr = "high"\n')
    message = refusal(write(folder / "run.toml", 'include = "base.toml"\nlr = 1.0\n'))
    assert message == f"{folder / 'base.toml'}: lr: expected a number, got 'high'"


def test_includes_stay_below_the_folder_above_the_configs(folder: Path) -> None:
    """Neither .. nor a link leads further up; what an included file includes does not either."""
    (folder / "a" / "b").mkdir(parents=True)
    write(folder / "far.toml", "lr = 1.0\n")
    write(folder / "a" / "near.toml", "lr = 2.0\n")
    write(folder / "a" / "climbs.toml", 'include = "../far.toml"\n')
    (folder / "a" / "b" / "link.toml").symlink_to("../../far.toml")
    run = folder / "a" / "b" / "run.toml"
    assert load_config(write(run, 'include = "../near.toml"\n')).lr == 2.0
    up, link = "../../far.toml", "link.toml"
    for include, path in ((up, up), ("../climbs.toml", up), (link, link)):
        message = refusal(write(run, f'include = "{include}"\n'))
        assert message.startswith(f"{folder}/a/b/{path} leads out of {folder}/a, to {folder}/far.toml; includes go up")


def test_an_include_is_a_file(folder: Path) -> None:
    os.mkfifo(folder / "pipe.toml")
    assert refusal(write(folder / "run.toml", 'include = "pipe.toml"\n')) == f"{folder}/pipe.toml is no file"


def test_a_chain_of_includes_has_an_end(folder: Path) -> None:
    for number in range(2000):
        write(folder / f"{number}.toml", f'include = "{number + 1}.toml"\n')
    assert refusal(folder / "0.toml") == f"{folder}/100.toml: this is file 101 that includes lead to; 100 are allowed"


def test_keys_of_very_many_parts_are_refused_before_they_take_minutes(folder: Path) -> None:
    weights = f"[[tasks]]\nclass_weights = {[0.5] * 1000}\n"  # 1000 dots that are of no key
    for parts in ("a" * 300_000, "1" * 300_000):
        path = write(folder / "run.toml", ".".join(parts) + f" = 1\n{weights}")
        assert refusal(path) == f"{path}:1: has more than 200 dots"
    assert len(load_config(write(folder / "run.toml", weights)).tasks[0].class_weights) == 1000


def test_a_config_that_is_no_config_at_all_is_not_read_to_its_end() -> None:
    assert refusal(Path("/dev/zero")) == "/dev/zero is larger than 1 MiB"


def test_byte_order_marks_are_passed_over_in_every_file(folder: Path) -> None:
    write(folder / "tasks.toml", "\ufeff" + TASKS)
    config = load_config(write(folder / "run.toml", '\ufeff# a run\r\ninclude = "tasks.toml"\r\nlr = 1.0\r\n'))
    assert (config.lr, [task.name for task in config.tasks]) == (1.0, ["sst", "sts"])
    assert load_config(write(folder / "first.toml", "\ufeffseed = 3\n")).seed == 3


def test_a_file_in_utf_16_is_named_as_such(folder: Path) -> None:
    (folder / "tasks.toml").write_bytes("lr = 1.0\n".encode("utf-16"))
    message = refusal(write(folder / "run.toml", 'include = "tasks.toml"\n'))
    assert message == f"{folder}/tasks.toml: is not UTF-8 text (byte 0): it begins as UTF-16 does; save it as UTF-8"
