"""Configs that are right: they train, and whatever comes after training works, or says in one line why it cannot."""

import dataclasses
import itertools
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

import mtbert_jax as mt
from mtbert_jax.errors import InputError
from tests.cases import slow_but_for
from tests.conftest import TINY, save_encoder
from tests.fuzz.attempts import command
from tests.fuzz.strategies import to_toml
from tests.fuzz.valid_configs import AUXILIARY, Table, valid_configs, write_data
from tests.tally import Tally

OWN_TEXTS = ["the film was good .", "", "a [SEP] b", "漢字 \u202e" * 9, "good " * 90]
PLAIN = {"max_length": 40, "lengths": [40], "max_shapes": None, "batch_size": 4, "eval_batch_size": 8, "seeds": None}
PLAIN |= {"smart": None, "proximal": None, "compute_dtype": None, "remat": None, "micro_batches": None, "head": None}
PLAIN |= {"lora": None}
PLAIN |= {"encoder_dropout": None, "optimizer": None, "order": None, "stages": None, "fields": {}}
FAMILIES: dict[str, Table] = {
    "two tasks": {"names": ["sst", "sts"]},
    "a pair alone": {"names": ["para"], "fields": {"head": {"pooling": "pair"}}, "optimizer": ["adam(lr)"]},
    "two tasks of a file": {"names": ["mood", "stars"], "micro_batches": 2, "compute_dtype": "bfloat16"},
    "kept features": {"names": ["mood", "plain"], "stages": "frozen"},
    "teacher": {"names": ["mood", "para"], "proximal": {"weight": 1.0}, "smart": {"weight": 1.0}},
    "one by one": {"names": ["sst", "stars"], "order": "sequential", "optimizer": ["mean_tasks()", "adam(lr)"]},
    "drawn": {"names": ["stars", "plain"], "order": "annealed", "head": {"pooling": "mean", "hidden_layers": 0}},
    "seeds": {"names": ["mood"], "seeds": [0, 3]},
    "vectors as labels": {"names": ["tags", "soft"]},
    "text itself": {"names": ["text", "names", "mood"], "smart": {"weight": 1.0}},
    "words": {"names": ["names", "mood"], "smart": {"weight": 1.0}, "proximal": {"weight": 1.0}},
    "words alone": {"names": ["names"], "optimizer": ["adam(lr)"], "micro_batches": 2},
    "a loss of batches": {"names": ["order", "mood"], "smart": {"weight": 1.0}},
}
"""What decides which programs are compiled, so that the cases of a family share theirs."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One config and its run.

    Attributes:
        place: Folder of the case.
        table: The config.
    """

    place: Path
    table: Table

    @property
    def config(self) -> str:
        return str(self.place / "config.toml")

    @property
    def out(self) -> Path:
        return self.place / "run"

    @property
    def run(self) -> Path:
        """The run folder; with several seeds that of the first."""
        return self.out / f"seed{self.table['seeds'][0]}" if "seeds" in self.table else self.out

    def train(self) -> None:
        """Checks the data, trains, and reads what lies in the run folder then."""
        command("check-data", self.config, "--json", str(self.place / "facts.json"))
        strict(self.place / "facts.json")
        said = command("train", self.config)
        assert "run" in said
        results = strict(self.run / "results.json")
        for split in ("dev", "test"):
            named = {task["name"] for task in self.table["tasks"] if task.get(split)}
            predicting = named - {task["name"] for task in self.table["tasks"] if task["kind"] in AUXILIARY}
            assert {path.name for path in (self.run / "predictions").glob(f"*-{split}-output.csv")} == {
                f"{name}-{split}-output.csv" for name in predicting
            }
            assert set(results.get(split, {})) - {"average", "plain_average"} <= named
        assert mt.load_run(self.run).history["step"][-1] == results["step"] or results["step"] > 0
        for line in (self.run / "metrics.jsonl").read_text().splitlines():
            json.loads(line)

    def resume(self) -> None:
        """Goes on from the checkpoint before the last, where there is one, and comes out at the same."""
        copy = Path(shutil.copytree(self.out, self.place / "copy"))
        run = copy / self.run.relative_to(self.out)
        for folder in [copy / f"seed{seed}" for seed in self.table.get("seeds", [])] or [copy]:
            steps = sorted(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())
            if len(steps) > 1:
                shutil.rmtree(folder / "checkpoints" / str(steps[-1]))
            (folder / "results.json").unlink()
        command("train", self.config, "--resume", "--out", str(copy))
        before, after = strict(self.run / "results.json"), strict(run / "results.json")
        assert [before.get(split) for split in ("dev", "test")] == [after.get(split) for split in ("dev", "test")]
        records = [
            [without_times(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]
            for folder in (self.run, run)
        ]
        assert records[0] == records[1]

    def begin_from(self) -> None:
        """Begins another run from this one's encoder and heads."""
        command("train", self.config, "--init-from", str(self.run), "--out", str(self.place / "next"))
        following = self.place / "next" / self.run.relative_to(self.out)
        assert strict(following / "results.json")["step"] == strict(self.run / "results.json")["step"]

    def evaluate(self) -> None:
        """Scores every split."""
        for split in ("train", "dev", "test"):
            try:
                printed = command("evaluate", str(self.run), "--split", split, "--json", "--checkpoint", "latest")
            except InputError as error:
                assert "no task has labels for the split" in str(error), error
            else:
                json.loads(printed, parse_constant=refuse)

    def predict(self) -> None:
        """Predicts own texts of every task."""
        for task in self.table["tasks"]:
            count = 2 if task["kind"] == "contrastive" else len(task["text"])
            lines = ["\t".join([text] * count) for text in OWN_TEXTS]
            (self.place / "texts").write_text("\n".join(lines) + "\n", encoding="utf-8")
            argv = ["predict", str(self.run), "--task", task["name"], "--input", str(self.place / "texts")]
            if task["kind"] == "masked_lm":
                with pytest.raises(InputError, match="predicts no labels"):
                    command(*argv)
                continue
            printed = command(*argv).splitlines()
            assert len([json.loads(line, parse_constant=refuse) for line in printed]) == len(OWN_TEXTS)

    def files(self) -> None:
        """Writes the prediction files again."""
        command("predict", str(self.run), "--output", str(self.place / "files"))
        for path in (self.run / "predictions").glob("*.csv"):
            assert (self.place / "files" / path.name).read_bytes() == path.read_bytes()

    def submission(self) -> None:
        """Writes files to hand in, where every task has both."""
        tasks = [task for task in self.table["tasks"] if task["kind"] not in AUXILIARY]
        whole = bool(tasks) and all(task.get(split) for task in tasks for split in ("dev", "test"))
        try:
            command("submission", str(self.run))
        except InputError as error:
            told = "file to predict" if tasks else "nothing to hand in"
            assert (told in str(error)) != whole or "cannot be read" in str(error), error
        else:
            assert whole

    def report(self) -> None:
        """Writes a page."""
        command("report", str(self.out))
        assert (self.out / "report.html").read_text(encoding="utf-8").endswith("</html>\n")

    def hugging_face(self) -> None:
        """Exports for `transformers`."""
        command("export", str(self.run), "--format", "hf")
        strict(self.run / "export" / "hf" / "tasks.json")

    def stablehlo(self) -> None:
        """Exports for plain JAX."""
        if all(task["kind"] in AUXILIARY for task in self.table["tasks"]):
            with pytest.raises(InputError, match="no task of this run predicts labels"):
                command("export", str(self.run), "--format", "stablehlo")
            return
        command("export", str(self.run), "--format", "stablehlo")
        strict(self.run / "export" / "stablehlo" / "tasks.json")


AFTER: dict[str, Callable[[Case], None]] = {
    name: getattr(Case, name)
    for name in (
        "resume",
        "begin_from",
        "evaluate",
        "predict",
        "files",
        "submission",
        "report",
        "hugging_face",
        "stablehlo",
    )
}


def refuse(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def strict(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    times = ("examples_per_second", "compile_seconds", "compiled_shapes")
    return {name: value for name, value in record.items() if name not in times}


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """A folder with data and an encoder that is hardly one."""
    folder = tmp_path_factory.mktemp("valid")
    (folder / "encoder").mkdir()
    tiny = {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 1, "max_position_embeddings": 256}
    save_encoder(folder / "encoder", dataclasses.replace(TINY, **tiny))
    write_data(data_dir, folder / "data")
    return folder


def go_through(room: Path, pinned: Mapping[str, Any], cases: int, most: int, seed: int) -> int:
    """Trains so many configs, and runs up to `most` commands on each; the same ones every time.

    Returns:
        Number of configs.
    """
    numbers = itertools.count()

    def case(table: Table, chosen: list[str]) -> None:
        place = room / f"{seed}-{next(numbers)}"
        place.mkdir()
        paths = {"encoder": str(room / "encoder"), "data_dir": str(room / "data"), "cache_dir": str(room / "cache")}
        text = to_toml({**table, **paths, "out": str(place / "run")})
        (place / "config.toml").write_bytes(text)
        doing = "train"
        try:
            one = Case(place, table)
            one.train()
            for doing in chosen:
                AFTER[doing](one)
        except (Exception, SystemExit) as error:
            error.add_note(f"{doing}:\n{text.decode()}")
            raise
        shutil.rmtree(place)

    commands = st.lists(st.sampled_from([*AFTER]), min_size=min(most, len(AFTER)), max_size=most, unique=True)
    settings = hypothesis.settings(
        max_examples=cases,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # a smaller config takes minutes to find
    )
    hypothesis.seed(seed)(settings(hypothesis.given(valid_configs(pinned), commands)(case)))()
    return next(numbers)


QUICK = ("words alone",)


@pytest.mark.parametrize("cases", [1, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("family", slow_but_for(QUICK, FAMILIES))
def test_whatever_comes_after_training_works(family: str, cases: int, room: Path, tally: Tally) -> None:
    """A config or a few of each family, and two commands on each."""
    seed = [*FAMILIES].index(family)
    tally("valid configs trained", go_through(room, {**PLAIN, **FAMILIES[family]}, cases, 2, seed))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 112))
def test_whatever_comes_after_any_training_works(seed: int, room: Path, tally: Tally) -> None:
    """Every field drawn, and every command."""
    tally("valid configs trained", go_through(room, {}, 25, len(AFTER), seed))
