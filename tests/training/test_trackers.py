"""Where records go while a run trains: every one once, and never at the run's expense."""

import dataclasses
import itertools
import json
import logging
import shutil
import signal
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mtbert_jax.cli.main import main
from mtbert_jax.config import Config, save_config
from mtbert_jax.errors import InputError
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.interrupt import Interrupted
from mtbert_jax.training.records import Record, read_metrics
from mtbert_jax.training.trackers import BACKENDS, Tracker, check_trackers, numbers
from tests.conftest import light
from tests.training.test_fit import Quiet, run


class FakeRun:
    """One run of a fake Weights & Biases."""

    def __init__(self, options: dict[str, Any], fails_at: int) -> None:
        self.options, self.fails_at = options, fails_at
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished = False

    def log(self, values: dict[str, float], step: int) -> None:
        if step >= self.fails_at:
            raise ConnectionError("no route\nto anywhere")
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A module that takes the place of Weights & Biases; its runs, and the step from which they fail."""
    module = SimpleNamespace(runs=[], fails_at=10**9)

    def init(**options: Any) -> FakeRun:
        module.runs.append(FakeRun(options, module.fails_at))
        return module.runs[-1]

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def events(folder: RunFolder) -> Iterator[tuple[int, str, float]]:
    """Step, name and value of all events in all files, oldest file first (the format is TFRecord)."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.tensorboard.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack("Q", data[:8])
            event = Event.FromString(data[12 : 12 + size])
            data = data[16 + size :]
            for value in event.summary.value:
                yield event.step, value.tag, value.simple_value


def expected(folder: RunFolder) -> list[tuple[int, str, float]]:
    """The same, from the records."""
    pairs = ((record["step"], item) for record in read_metrics(folder.metrics) for item in numbers(record))
    return [(step, name, pytest.approx(value, rel=1e-6)) for step, (name, value) in pairs]  # type: ignore[misc]


def stopped_and_resumed(config: Config, out: Path, at: int) -> RunFolder:
    with pytest.raises(Interrupted):
        run(config, out, display=Quiet(at, signal.SIGTERM))
    return run(config, out, resume=True)


def test_numbers_leave_out_words_and_what_is_not_finite() -> None:
    record = {"kind": "train", "stage": "a", "step": 1, "loss": {"x": float("nan"), "y": 1}, "lr": None, "rate": 2.0}
    assert dict(numbers(record)) == {"train/loss/y": 1.0, "train/rate": 2.0}


def test_tensorboard_has_every_number_of_every_record(config: Config, tmp_path: Path) -> None:
    folder = run(dataclasses.replace(config, writers=("tensorboard",)), tmp_path / "run")
    found = list(events(folder))
    assert found == expected(folder)
    names = {name for _, name, _ in found}
    assert {"train/loss/sst", "train/cosine/para/sst", "train/lr", "dev/average", "dev/sst/accuracy"} <= names
    assert len(list(folder.tensorboard.iterdir())) == 1


@pytest.mark.parametrize("at", [1, 4, 5])
def test_a_resumed_run_writes_no_step_twice(config: Config, tmp_path: Path, at: int) -> None:
    folder = stopped_and_resumed(dataclasses.replace(light(config), writers=("tensorboard",)), tmp_path / "run", at)
    found = list(events(folder))
    assert found == expected(folder)
    assert len({(step, name) for step, name, _ in found}) == len(found)
    assert len(list(folder.tensorboard.iterdir())) == 2  # and not one over the other, in the same second


def test_what_was_written_after_the_checkpoint_is_not_written_again(config: Config, tmp_path: Path) -> None:
    """As after a kill: the newest checkpoint is of step 3, the records of step 4 are out already."""
    config = dataclasses.replace(light(config), writers=("tensorboard",))
    folder = run(dataclasses.replace(config, steps=6), tmp_path / "run")
    shutil.rmtree(folder.checkpoints / "6")
    lines = folder.metrics.read_text().splitlines()
    before = list(events(folder))
    run(config, tmp_path / "run", resume=True)
    assert len(folder.metrics.read_text().splitlines()) == len(lines)
    assert list(events(folder)) == before


def test_a_writer_asked_for_at_resume_gets_what_went_before(config: Config, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(light(config), tmp_path / "run", display=Quiet(4, signal.SIGTERM))
    folder = run(dataclasses.replace(light(config), writers=("tensorboard",)), tmp_path / "run", resume=True)
    assert list(events(folder)) == expected(folder)
    assert next(events(folder))[0] == 2


def test_overwriting_a_run_begins_its_events_anew(config: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(light(config), writers=("tensorboard",), steps=2)
    folder = run(config, tmp_path / "run")
    run(config, tmp_path / "run", existing="overwrite")
    assert list(events(folder)) == expected(folder)
    assert len(list(folder.tensorboard.iterdir())) == 1


def test_wandb_gets_the_records_and_is_one_run_over_resumptions(
    config: Config, tmp_path: Path, wandb: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_NAME", raising=False)
    folder = stopped_and_resumed(dataclasses.replace(light(config), writers=("wandb",)), tmp_path / "run", 5)
    first, second = wandb.runs
    assert first.options["id"] == second.options["id"]
    assert first.options["resume"] == "allow"
    assert first.options["reinit"] == "create_new"
    assert first.options["dir"] == first.options["name"] == str(folder.path)
    assert first.options["config"]["lr"] == config.lr
    assert not {"project", "mode", "entity"} & set(first.options)  # its environment's
    assert first.finished
    assert second.finished
    logged = [*first.logged, *second.logged]
    assert logged == [(record["step"], dict(numbers(record))) for record in read_metrics(folder.metrics)]


def test_each_seed_has_a_run_of_its_own(config: Config, tmp_path: Path, wandb: SimpleNamespace) -> None:
    run(dataclasses.replace(light(config), writers=("wandb",), seeds=(1, 2), steps=2), tmp_path / "run")
    assert len({one.options["id"] for one in wandb.runs}) == 2
    assert all(len(one.logged) == 3 for one in wandb.runs)


def test_a_writer_that_fails_is_named_once_and_the_run_goes_on(
    config: Config, tmp_path: Path, wandb: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    wandb.fails_at = 3
    with caplog.at_level(logging.WARNING, "mtbert_jax.training.trackers"):
        folder = run(dataclasses.replace(light(config), writers=("wandb", "tensorboard")), tmp_path / "run")
    (line,) = [record.getMessage() for record in caplog.records if record.name == "mtbert_jax.training.trackers"]
    assert line == ("writer wandb: ConnectionError: no route; training goes on without it, --resume tries it again")
    assert [step for step, _ in wandb.runs[0].logged] == [2]
    assert read_metrics(folder.metrics)[-1]["step"] == 6
    assert list(events(folder)) == expected(folder)


def test_a_writer_that_cannot_be_opened_is_no_reason_to_stop(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise PermissionError("no key")

    monkeypatch.setitem(BACKENDS, "tensorboard", broken)
    folder = run(dataclasses.replace(light(config), writers=("tensorboard",), steps=2), tmp_path / "run")
    assert read_metrics(folder.metrics)[-1]["step"] == 2
    assert sum("writer tensorboard: PermissionError: no key" in record.getMessage() for record in caplog.records) == 1


def test_a_kill_at_any_moment_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that dies before or after it has taken a record, and is then opened again."""
    taken: list[Record] = []

    class Dies(BaseException):
        """Not caught by anybody, as a kill is not."""

    for number, after in itertools.product(range(4), (False, True)):
        taken.clear()
        folder = RunFolder(tmp_path / f"{number}{after}")
        folder.path.mkdir()
        records = [{"kind": kind, "step": step} for step in (2, 4) for kind in ("train", "eval")]

        class Mortal:
            doomed = True

            def __init__(self, *_: object) -> None:
                pass

            def write(self, record: Record, number: int = number, after: bool = after) -> None:
                if Mortal.doomed and len(taken) == number and not after:
                    raise Dies
                taken.append(record)
                if Mortal.doomed and len(taken) == number + 1 and after:
                    raise Dies

        monkeypatch.setitem(BACKENDS, "tensorboard", Mortal)  # type: ignore[arg-type]
        once = Tracker("tensorboard", folder, {})
        with pytest.raises(Dies):
            for record in records:
                once.write(record)
        Mortal.doomed = False
        again = Tracker("tensorboard", folder, {})
        for record in records:
            again.write(record)
        assert taken == [record for place, record in enumerate(records) if after or place != number]


def test_a_note_that_cannot_be_read_is_no_note(tmp_path: Path, wandb: SimpleNamespace) -> None:
    folder = RunFolder(tmp_path)
    for text in ("", "[]", '{"step": 3}', '{"id": "x", "step": "high", "kinds": []}'):
        folder.note("wandb").write_text(text)
        Tracker("wandb", folder, {}).write({"kind": "train", "step": 1, "lr": 0.5})
        assert wandb.runs[-1].logged == [(1, {"train/lr": 0.5})]
        assert json.loads(folder.note("wandb").read_text())["step"] == 1


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_package_that_is_missing_is_named_before_anything_is_written(
    name: str, package: str, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, package, None)  # as Python has what cannot be imported
    with pytest.raises(InputError, match="needs the package"):
        check_trackers([name])
    save_config(config, tmp_path / "a.toml")
    assert main(["train", str(tmp_path / "a.toml"), "--writers", name]) == 2
    err = capsys.readouterr().err
    assert f'"{name}" needs the package {package}: pip install {package}' in err
    assert err.count("\n") == 1
    assert not Path(config.out).exists()


def test_what_is_no_writer_is_refused(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.toml"
    save_config(config, path)
    path.write_text(path.read_text().replace("writers = []", 'writers = ["tensorbord"]'))
    assert main(["train", str(path)]) == 2
    assert "writers[0] = 'tensorbord' is none of 'tensorboard', 'wandb'; did you mean" in capsys.readouterr().err
    path.write_text(path.read_text().replace('["tensorbord"]', '["wandb", "wandb"]'))
    assert main(["train", str(path)]) == 2
    assert "each may stand there once" in capsys.readouterr().err
