"""Runs that lie in a folder already: what they go on with, and what is kept out of their folder."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtbert_jax.config import Config, save_config
from mtbert_jax.errors import InputError
from mtbert_jax.training.describe import describe_run
from mtbert_jax.training.existing import identify, open_folder
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.prepare import Prepared, check_config_file, prepare
from tests.conftest import light, tiny_run
from tests.runs import checkpointed


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, small_encoder_dir: Path, data_dir: Path) -> Config:
    """The config of a run of one task with a checkpoint, whose encoder and data lie in folders of its own."""
    place = tmp_path_factory.mktemp("begun")
    encoder = Path(shutil.copytree(small_encoder_dir, place / "encoder"))
    config = light(tiny_run(encoder, Path(shutil.copytree(data_dir, place / "data")), place))
    folder = checkpointed(config)
    open_folder(folder, config, resumed(config).digests)
    return config


@pytest.fixture
def copied(begun: Config, tmp_path: Path) -> Config:
    """The same run with folders that a test may change."""
    shutil.copytree(Path(begun.out).parent, tmp_path / "copy")
    names = {name: str(tmp_path / "copy" / name) for name in ("encoder", "data", "run")}
    config = dataclasses.replace(begun, encoder=names["encoder"], data_dir=names["data"], out=names["run"])
    save_config(config, Path(config.out) / "config.toml")
    return config


def resumed(config: Config) -> Prepared:
    return prepare(config, RunFolder(Path(config.out)), "resume")


def in_lines(change: Callable[[list[str]], list[str]]) -> Callable[[str], str]:
    """A change to the lines of a file below its header."""

    def changed(text: str) -> str:
        header, *rows = text.splitlines()
        return "\n".join([header, *change(rows)]) + "\n"

    return changed


def cells_turned(rows: list[str], column: int) -> list[str]:
    """The rows with the cells of one column in reverse order."""
    cells = [row.split("\t") for row in rows]
    turned = [row[column] for row in reversed(cells)]
    return ["\t".join([*row[:column], cell, *row[column + 1 :]]) for row, cell in zip(cells, turned, strict=True)]


CHANGES = {
    "rows": lambda rows: rows[:-9],
    "ids": lambda rows: cells_turned(rows, 1),
    "texts": lambda rows: cells_turned(rows, 2),
    "labels": lambda rows: cells_turned(rows, 3),
}


@pytest.mark.parametrize("split", ["train", "dev"])
@pytest.mark.parametrize("what", CHANGES)
def test_a_run_does_not_go_on_with_other_examples(copied: Config, split: str, what: str) -> None:
    assert resumed(copied).digests
    path = Path(copied.data_dir) / f"ids-sst-{split}.csv"
    path.write_text(in_lines(CHANGES[what])(path.read_text("utf-8")), "utf-8")
    with pytest.raises(
        InputError, match=rf"other examples \({split} of task sst, ids-sst-{split}.csv\).*put the files"
    ):
        resumed(copied)


def test_other_test_examples_are_no_hindrance(copied: Config) -> None:
    path = Path(copied.data_dir) / "ids-sst-test-student.csv"
    path.write_text("\n".join(path.read_text("utf-8").splitlines()[:-3]) + "\n", "utf-8")
    assert resumed(copied).splits["test"]["sst"].ids


@pytest.mark.parametrize("spoilt", ["", "{", '{"sst": {"train": 3}}', '["sst"]'])
def test_a_run_without_readable_digests_goes_on(copied: Config, spoilt: str) -> None:
    (Path(copied.out) / "data.json").write_text(spoilt, "utf-8")
    assert set(resumed(copied).digests["sst"]) == {"train", "dev"}


def test_a_run_goes_on_with_its_own_encoder(copied: Config, tmp_path: Path) -> None:
    other = Path(shutil.copytree(copied.encoder, tmp_path / "other"))
    words = (other / "vocab.txt").read_text("utf-8").split()
    (other / "vocab.txt").write_text("\n".join([*words[:5], *reversed(words[5:])]) + "\n", "utf-8")
    (other / "tokenizer.json").unlink()
    before = resumed(copied)
    ready = resumed(dataclasses.replace(copied, encoder=str(other)))
    assert ready.setup.tokenizer.to_str() == before.setup.tokenizer.to_str()
    assert ready.config.encoder == copied.encoder
    assert f"encoder = {str(other)!r} is not read" in "\n".join(describe_run(ready))
    assert "is not read" not in "\n".join(describe_run(before))


def test_a_run_goes_on_where_what_it_began_with_is_gone(copied: Config) -> None:
    shutil.rmtree(copied.encoder)
    assert resumed(copied).setup.tokenizer


def seeds(config: Config, *numbers: int, **changes: Any) -> Config:
    return dataclasses.replace(config, seeds=numbers, **changes)


def lies_in(folder: Path, config: Config) -> None:
    """Puts a run of this config into a folder, as far as anybody looks at it."""
    folder.mkdir(parents=True)
    save_config(config, folder / "config.toml")


@pytest.mark.parametrize("existing", ["refuse", "resume", "overwrite"])
def test_runs_of_seeds_and_single_runs_have_folders_apart(config: Config, existing: Any) -> None:
    config, place = light(config), Path(config.out)
    lies_in(place / "seed3", dataclasses.replace(config, seed=3))
    with pytest.raises(InputError, match=r"holds the runs seed3; name one of them, or give another --out"):
        prepare(config, RunFolder(place), existing)
    shutil.rmtree(place)
    lies_in(place, config)
    with pytest.raises(InputError, match=r"holds a run of one seed; runs of several seeds need another --out"):
        prepare(seeds(config, 0, 1), RunFolder(place), existing)


@pytest.mark.parametrize("existing", ["refuse", "resume", "overwrite"])
def test_further_seeds_are_of_the_same_config(config: Config, existing: Any) -> None:
    config, place = light(config), Path(config.out)
    lies_in(place / "seed3", dataclasses.replace(config, seed=3))
    assert len(prepare(seeds(config, 0, 1), RunFolder(place), existing).runs) == 2
    with pytest.raises(InputError, match=r"holds the run of seed 3 with another config \(lr: 0.001 → 0.5\)"):
        prepare(seeds(config, 0, 1, lr=0.5), RunFolder(place), existing)
    if existing == "overwrite":
        assert len(prepare(seeds(config, 1, 3, lr=0.5), RunFolder(place), existing).runs) == 2


def test_a_run_keeps_the_digest_that_its_checkpoints_carry(config: Config) -> None:
    folder, digests = RunFolder(Path(config.out)), {"sst": {"train": "1"}}
    open_folder(folder, config, digests)
    identity = folder.load_identity()
    assert len(identity) == 64
    (folder.checkpoints / "3").mkdir(parents=True)
    open_folder(folder, dataclasses.replace(config, encoder="moved", out="moved"), digests)  # as under --resume
    assert folder.load_identity() == identity
    folder.data.unlink()
    open_folder(folder, config, digests)
    assert folder.load_identity() == ""  # of a run that began before there was one: nothing is refused
    assert folder.load_data() == digests


def test_runs_that_differ_have_different_digests(config: Config) -> None:
    digests = {"sst": {"train": "1"}}
    identity = identify(config, digests)
    assert identify(dataclasses.replace(config, out="elsewhere", log_every_steps=9), digests) == identity
    others = [dataclasses.replace(config, **change) for change in ({"seed": 7}, {"lr": 0.5}, {"encoder": "other"})]
    found = [identify(other, digests) for other in others] + [identify(config, {"sst": {"train": "2"}})]
    assert len({identity, *found}) == 5


@pytest.mark.parametrize("existing", ["refuse", "resume", "overwrite"])
@pytest.mark.parametrize(
    ("place", "change", "what"),
    [
        ("encoder", lambda path: {"encoder": str(path)}, "the encoder"),
        ("predictions/data", lambda path: {"data_dir": str(path)}, "the train file of task sst"),
        ("data.json", lambda path: {"data_dir": str(path.parent)}, "the train file of task sst"),
    ],
)
def test_a_run_does_not_write_where_its_inputs_lie(
    place: str, change: Callable[[Path], dict[str, Any]], what: str, existing: Any, config: Config
) -> None:
    """Its encoder/ would be written over the one it begins with; --overwrite would delete that, weights and all."""
    path, config = Path(config.out) / place, light(config)
    path.parent.mkdir(parents=True)
    if place == "data.json":
        shutil.copytree(config.data_dir, path.parent, dirs_exist_ok=True)
        (task,) = config.tasks
        (path.parent / task.train).rename(path)
        config = dataclasses.replace(config, tasks=(dataclasses.replace(task, train="data.json"),))
    else:
        shutil.copytree(config.encoder if place == "encoder" else config.data_dir, path)
    found = sorted(Path(config.out).rglob("*"))
    with pytest.raises(InputError, match=f"is {what}, and a run in .*/run writes or deletes what lies there"):
        prepare(dataclasses.replace(config, **change(path)), RunFolder(Path(config.out)), existing)
    assert sorted(Path(config.out).rglob("*")) == found


@pytest.mark.parametrize("existing", ["refuse", "resume", "overwrite"])
@pytest.mark.parametrize("name", ["config.toml", "../variant.toml"])
def test_a_config_is_not_replaced_by_the_complete_one(name: str, existing: Any, config: Config, tmp_path: Path) -> None:
    """One that somebody wrote, read from where the run would have its own, or included from there."""
    folder = RunFolder(Path(config.out))
    folder.path.mkdir()
    folder.config.write_text("lr = 0.5  # tuned\n")
    (tmp_path / "variant.toml").write_text('include = "run/config.toml"\n')
    with pytest.raises(InputError, match="config.toml is read as a config, and a run in .*/run would write over it"):
        check_config_file(folder.path / name, config, existing)
    folder.data.write_text("{}")  # then it is a run's own
    if name == "config.toml" or existing == "resume":
        check_config_file(folder.path / name, config, existing)
    check_config_file(folder.path / name, dataclasses.replace(config, out=str(tmp_path / "other")), existing)
    check_config_file(folder.path, config, existing)


def test_the_results_of_a_run_without_checkpoints_are_not_replaced_unasked(copied: Config) -> None:
    shutil.rmtree(Path(copied.out) / "checkpoints")
    with pytest.raises(InputError, match="run holds the results of a run that has ended, and no checkpoint to go on"):
        resumed(copied)
    (Path(copied.out) / "results.json").unlink()
    assert resumed(copied).runs[0].origin is not None


@pytest.mark.parametrize("place", ["checkpoints", "encoder/new", "predictions/a/b"])
def test_a_run_does_not_begin_among_what_another_keeps(place: str, copied: Config) -> None:
    out = Path(copied.out) / place
    with pytest.raises(InputError, match=rf"{out} lies in {place.partition('/')[0]} of the run {copied.out}; give"):
        prepare(dataclasses.replace(copied, out=str(out)), RunFolder(out))
    prepare(copied, RunFolder(Path(copied.out) / "export" / "new"))
