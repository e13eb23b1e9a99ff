"""The loop: whole runs of a tiny model."""

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtbert_jax import tasks
from mtbert_jax.config import Config, StageConfig, load_config
from mtbert_jax.config.schema import to_dict
from mtbert_jax.encoders.hub import load_pretrained
from mtbert_jax.errors import InputError, TrainingError
from mtbert_jax.inference import MultitaskModel
from mtbert_jax.optim.registry import register_transformation, unregister
from mtbert_jax.training import active
from mtbert_jax.training.active import abstract_state
from mtbert_jax.training.checkpoint import Checkpoints
from mtbert_jax.training.display import Display
from mtbert_jax.training.existing import delete_run
from mtbert_jax.training.fit import fit
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.interrupt import Interrupted
from mtbert_jax.training.plan import make_plans
from mtbert_jax.training.records import read_metrics
from mtbert_jax.training.setup import Setup
from tests.cases import slow_but_for
from tests.conftest import replace_task, tiny_run
from tests.training.files import equal_labels


class Quiet(Display):
    """A display that remembers its lines, and can send this process a signal at a step."""

    def __init__(self, at: int | None = None, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._at, self._number = at, number

    def say(self, text: str) -> None:
        self.lines.append(text)

    def step(self, step: int) -> None:
        if step == self._at:
            os.kill(os.getpid(), self._number)


def run(config: Config, out: Path, **options: Any) -> RunFolder:
    folder = RunFolder(out)
    existing = "resume" if options.get("resume") else options.get("existing", "refuse")
    fit(dataclasses.replace(config, out=str(out)), folder, existing, options.get("display") or Quiet())
    return folder


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, small_encoder_dir: Path, data_dir: Path) -> RunFolder:
    """A run of six steps that has ended; `finished` is a copy for each test."""
    folder = tmp_path_factory.mktemp("ended")
    return run(tiny_run(small_encoder_dir, data_dir, folder), folder / "run")


@pytest.fixture
def finished(ended: RunFolder, tmp_path: Path) -> RunFolder:
    """The folder of a run of `config` that has ended, to be changed at will; under `tmp_path`."""
    return RunFolder(Path(shutil.copytree(ended.path, tmp_path / "run")))


def leaves(config: Config, folder: RunFolder, step: int) -> dict[str, np.ndarray]:
    """Parameters and optimizer state of a checkpoint, read without the library's own target."""
    setup = Setup.load(config, Path(config.encoder))
    plan = make_plans(setup, setup.datasets("train"))[-1]
    with Checkpoints(folder.checkpoints, {}) as checkpoints:
        state = checkpoints.try_restore(step, abstract_state(setup, plan))
    assert state is not None
    plain = jax.tree.map(
        lambda x: jax.random.key_data(x) if jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key) else x, state
    )
    return {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(plain))}


def assert_same_run(config: Config, one: RunFolder, other: RunFolder, step: int) -> None:
    a, b = leaves(config, one, step), leaves(config, other, step)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)

    def without_clock(folder: RunFolder) -> list[dict[str, Any]]:
        skip = ("examples_per_second", "compiled_shapes", "compile_seconds")
        return [{k: v for k, v in record.items() if k not in skip} for record in read_metrics(folder.metrics)]

    assert without_clock(one) == without_clock(other)


@pytest.mark.slow
def test_changed_texts_are_the_same_after_an_interruption(config: Config, tmp_path: Path) -> None:
    """What is turned round, left out and exchanged belongs to batch and row; swapped texts are pairs of their own."""
    config = replace_task(config, "para", swap_pairs=0.5, word_deletion=0.2, word_swap=0.3)
    train = Setup.load(config, Path(config.encoder)).datasets("train")
    assert train["para"].augmentation is not None and train["sst"].augmentation is None
    tokens, turned = train["para"].tokens, train["para"].augmentation.swapped
    assert turned is not None
    assert np.array_equal(tokens.lengths, turned.lengths)
    assert not np.array_equal(tokens.ids, turned.ids)
    whole = run(config, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(config, tmp_path / "parts", display=Quiet(at=4))
    assert_same_run(config, whole, run(config, tmp_path / "parts", resume=True), 6)


def test_a_run_leaves_config_records_checkpoints_and_encoder(config: Config, tmp_path: Path) -> None:
    folder = run(config, tmp_path / "run")
    assert load_config(folder.config) == dataclasses.replace(config, out=str(tmp_path / "run"))
    assert (folder.encoder / "tokenizer.json").is_file()
    records = read_metrics(folder.metrics)
    assert [r["step"] for r in records if r["kind"] == "train"] == [2, 4, 6]
    assert [r["step"] for r in records if r["kind"] == "eval"] == [3, 6]
    train = records[0]
    assert set(train["loss"]) == {"sst", "para", "sts"}
    assert set(train["cosine"]) == {"para/sst", "para/sts", "sst/sts"}
    assert all(-1.0001 <= value <= 1.0001 for value in train["cosine"].values())
    scores = records[-2]["scores"]
    assert {"accuracy", "f1"} <= set(scores["sst"])
    assert {"pearson", "spearman"} <= set(scores["sts"])
    assert {"average", "plain_average"} <= set(scores)
    with Checkpoints(folder.checkpoints, {}) as checkpoints:
        assert 6 in checkpoints.steps()


@pytest.mark.parametrize("order", slow_but_for(("round_robin",), ("sequential", "round_robin")))
def test_three_steps_and_three_resumed_equal_six_bit_for_bit(config: Config, tmp_path: Path, order: str) -> None:
    """With the library's own chain, whose moments and counts are each head's own."""
    config = dataclasses.replace(config, order=order, optimizer=Config.optimizer)  # type: ignore[arg-type]
    whole = run(config, tmp_path / "whole")
    with pytest.raises(Interrupted) as interrupted:
        run(config, tmp_path / "parts", display=Quiet(at=3))
    assert interrupted.value.status == 0
    parts = run(config, tmp_path / "parts", resume=True)
    assert_same_run(config, whole, parts, 6)


def test_time_and_memory_add_up_over_stages_and_resumptions(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = (StageConfig(name="heads", steps=1, freeze=("encoder",)), StageConfig(name="full", steps=3))
    config = dataclasses.replace(config, stages=stages, eval_every_steps=0)
    spent = []
    # A clock that stands at `since` when a run's loop begins, and 7 seconds later ever after.
    for since, peak, at in ((100.0, 500, 2), (20.0, 300, None)):
        clock = itertools.chain([since], itertools.repeat(since + 7))
        monkeypatch.setattr("mtbert_jax.training.loop.time", SimpleNamespace(monotonic=lambda clock=clock: next(clock)))
        monkeypatch.setattr("mtbert_jax.training.active.peak_memory", lambda peak=peak: peak)
        with pytest.raises(Interrupted) if at else contextlib.nullcontext():
            run(config, tmp_path / "run", resume=True, display=Quiet(at=at))
        with Checkpoints(tmp_path / "run" / "checkpoints", {}) as checkpoints:
            progress = next(iter(checkpoints.standings.values()))
        spent.append((progress.stage, progress.seconds, progress.peak_memory))
    assert spent == [(1, 7.0, 500), (1, 14.0, 500)]


def test_resume_between_evaluations_and_across_a_stage_boundary(config: Config, tmp_path: Path) -> None:
    heads = StageConfig(name="heads", steps=3, freeze=("encoder",), lr=1e-2)
    config = dataclasses.replace(config, stages=(heads, StageConfig(name="full", steps=4, order="proportional")))
    whole = run(config, tmp_path / "whole")
    for at in (2, 3, 1, 3):  # in stage 1, at its end, and twice in stage 2
        with pytest.raises(Interrupted):
            run(config, tmp_path / "parts", resume=True, display=Quiet(at=at))
    parts = run(config, tmp_path / "parts", resume=True)
    assert_same_run(config, whole, parts, 7)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGHUP, 0)])
def test_ctrl_c_asks_for_status_130_and_handlers_are_put_back(
    config: Config, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    """A closed terminal asks for what SIGTERM does."""
    before = signal.signal(number, signal.default_int_handler)  # whoever runs tests under nohup ignores SIGHUP
    try:
        with pytest.raises(Interrupted) as interrupted:
            run(config, tmp_path / "run", display=Quiet(at=1, number=number))
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    assert interrupted.value.status == status
    with Checkpoints(RunFolder(tmp_path / "run").checkpoints, {}) as checkpoints:
        assert checkpoints.steps() == [1]


def test_resume_walks_past_a_damaged_checkpoint(config: Config, ended: RunFolder, finished: RunFolder) -> None:
    whole, parts = ended, finished
    for path in (parts.checkpoints / "6" / "params").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    run(config, parts.path, resume=True)
    records = [r["step"] for r in read_metrics(parts.metrics) if r["kind"] == "train"]
    assert records == [2, 4, 6]
    assert read_metrics(whole.metrics)[-2]["scores"] == read_metrics(parts.metrics)[-2]["scores"]
    assert_same_run(config, whole, parts, 6)  # the step that was damaged is a sound one again
    assert [path.name for path in (parts.checkpoints / "aside").iterdir()] == ["6.0"]


def test_a_run_none_of_whose_checkpoints_can_be_read_is_not_begun_again_unasked(
    config: Config, finished: RunFolder
) -> None:
    for path in finished.checkpoints.glob("*/about/metadata"):
        path.write_bytes(b"{")
    before = finished.metrics.read_bytes()
    with pytest.raises(InputError, match="no checkpoint that can be read; --overwrite begins the run again"):
        run(config, finished.path, resume=True)
    assert finished.metrics.read_bytes() == before
    finished.config.unlink()
    with pytest.raises(InputError, match="holds a run already"):  # saves would be passed over for the old ones
        run(config, finished.path)


def test_predicting_walks_past_a_damaged_best_checkpoint(finished: RunFolder) -> None:
    with Checkpoints(finished.checkpoints) as checkpoints:
        best = checkpoints.best_step()
        (other,) = set(checkpoints.steps()) - {best}
    for path in (finished.checkpoints / str(best) / "params").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-9])
    assert MultitaskModel.from_checkpoint(finished.path).step == other


def test_the_frozen_encoder_is_bit_identical_after_its_stage(config: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(config, freeze=("encoder",))
    folder = run(config, tmp_path / "run")
    setup = Setup.load(config, Path(config.encoder))
    from mtbert_jax.encoders.hub import load_pretrained

    with Checkpoints(folder.checkpoints, {}) as checkpoints:
        params = checkpoints.restore_params(6, setup.abstract_params())
    jax.tree.map(np.testing.assert_array_equal, params["encoder"], load_pretrained(config.encoder)[1])


def test_an_existing_run_is_not_touched_without_being_asked(config: Config, finished: RunFolder) -> None:
    before = finished.metrics.read_text()
    with pytest.raises(InputError, match="--resume goes on with it, --overwrite deletes it"):
        run(config, finished.path)
    assert finished.metrics.read_text() == before


def test_resume_under_another_config_is_refused_and_the_difference_named(config: Config, finished: RunFolder) -> None:
    before = finished.config.read_text()
    way = r"lr: 0\.001 → 0\.5.*: mtbert train .* --resume takes the run's own config, and --init-from .* with another"
    with pytest.raises(InputError, match=way):
        run(dataclasses.replace(config, lr=0.5), finished.path, resume=True)
    assert finished.config.read_text() == before


def test_resume_may_move_files_and_records(config: Config, finished: RunFolder, tmp_path: Path) -> None:
    run(dataclasses.replace(config, log_every_steps=1, cache_dir=str(tmp_path / "c2")), finished.path, resume=True)


def test_resume_of_nothing_begins_and_says_so(config: Config, tmp_path: Path) -> None:
    display, again = Quiet(), Quiet()
    folder = run(config, tmp_path / "run", resume=True, display=display)
    assert read_metrics(folder.metrics)[-1]["step"] == 6
    assert f"nothing to resume: {folder.path} holds no checkpoint; the run begins anew" in display.lines
    run(config, tmp_path / "run", resume=True, display=again)
    assert not any("nothing to resume" in line for line in again.lines)


DIVERGING = {"optimizer": ("mean_tasks()", "sgd(lr)"), "lr": 1e38, "steps": 4, "eval_every_steps": 1}


def test_logits_that_are_not_finite_are_named_and_never_the_best(config: Config, tmp_path: Path) -> None:
    """Steps that go to infinity: two undefined evaluations in a row end the run, by `patience`."""
    config, display = dataclasses.replace(config, **DIVERGING, patience=2), Quiet()  # type: ignore[arg-type]
    folder = run(config, tmp_path / "run", display=display)
    evaluations = [record for record in read_metrics(folder.metrics) if record["kind"] == "eval"]
    assert len(evaluations) == 2
    assert all(value is None for value in evaluations[0]["scores"]["sst"].values())
    assert evaluations[0]["scores"]["average"] is None
    dev = [line for line in display.lines if line.startswith("dev at step")]
    assert all(line.endswith("average undefined  (never the best: logits are not finite)") for line in dev)
    named = "task sst: the logits of 21 of 21 dev examples are not finite, the first those of id 'dev000'"
    assert named in display.lines
    assert display.lines[-1] == "no dev score was ever defined: the latest checkpoint stands in for the best"
    with Checkpoints(folder.checkpoints) as checkpoints:
        assert checkpoints.best_step() is None
    for path in (folder.path / "checkpoints").rglob("metadata"):
        if path.parent.name == "about":
            json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} in a checkpoint"))


def test_an_undefined_score_is_worse_than_any_number(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the first and the third evaluation give every STS pair the same score: Pearson's r has no value."""
    evaluate, display = active.evaluate_all, Quiet()
    undefined = iter([True, False, True, False])

    def with_gaps(setup: Setup, *rest: Any) -> Any:
        logits = evaluate(setup, *rest)[1]
        logits["sts"] = logits["sts"] * (0 if next(undefined) else 1)
        return tasks.score(setup.tasks, logits, {name: data.labels for name, data in rest[2].items()}), logits

    monkeypatch.setattr(active, "evaluate_all", with_gaps)
    config = dataclasses.replace(config, eval_every_steps=1, steps=4, patience=3)
    folder = run(config, tmp_path / "run", display=display)
    dev = [line for line in display.lines if line.startswith("dev at step")]
    assert ["undefined" in line for line in dev] == [True, False, True, False]
    assert dev[0].endswith("sts pearson undefined  average undefined  (never the best: its score is undefined)")
    assert dev[1].endswith("(best so far)")
    with Checkpoints(folder.checkpoints) as checkpoints:
        assert checkpoints.best_step() in (2, 4)


def test_a_task_that_can_have_no_score_does_not_end_the_choice(config: Config, tmp_path: Path) -> None:
    config = replace_task(config, "sts", dev=str(equal_labels(tmp_path)))
    display = Quiet()
    folder = run(
        dataclasses.replace(config, patience=1, lr=1e-30, freeze=("encoder",)), tmp_path / "run", display=display
    )
    with Checkpoints(folder.checkpoints) as checkpoints:
        assert checkpoints.best_step() == 3
    (first, _) = (line for line in display.lines if line.startswith("dev at step"))
    assert first.endswith("sts pearson undefined  average undefined  (best so far)")


def test_delete_run_leaves_what_is_not_the_runs(finished: RunFolder) -> None:
    (finished.path / "notes.txt").write_text("mine")
    delete_run(finished)
    assert {path.name for path in finished.path.iterdir()} == {"notes.txt", ".lock"}


def test_patience_ends_a_stage_early(config: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(config, steps=40, eval_every_steps=1, patience=2, lr=1e-30, freeze=("encoder",))
    display = Quiet()
    folder = run(config, tmp_path / "run", display=display)
    assert display.lines[-1] == "stopped early, after 3 of 40 steps: no better score in 2 evaluations (patience)"
    evaluations = [r for r in read_metrics(folder.metrics) if r["kind"] == "eval"]
    assert len(evaluations) == 3  # the first is the best, two more are not better
    assert [r["step"] for r in read_metrics(folder.metrics) if r["kind"] == "train"] == [2, 3]
    run(config, tmp_path / "run", resume=True)  # it has ended: nothing is trained again
    assert len([r for r in read_metrics(folder.metrics) if r["kind"] == "eval"]) == 3


def test_save_every_steps_saves_between_evaluations(config: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(config, eval_every_steps=0, save_every_steps=2, steps=5)
    folder = run(config, tmp_path / "run")
    with Checkpoints(folder.checkpoints, {}) as checkpoints:
        assert checkpoints.steps() == [5, 4]


@pytest.mark.parametrize("order", ["proportional", "annealed"])
def test_every_order_trains_every_epoch(config: Config, tmp_path: Path, order: str) -> None:
    config = dataclasses.replace(config, order=order, steps=None, epochs=1.0, eval_every_steps=0)  # type: ignore[arg-type]
    folder = run(config, tmp_path / "run")
    last = [r for r in read_metrics(folder.metrics) if r["kind"] == "train"][-1]
    assert (last["step"], last["epoch"]) == (30, 1.0)  # three tasks of 37 examples in batches of 4


def test_a_run_learns(config: Config, tmp_path: Path) -> None:
    head = dataclasses.replace(config.tasks[0].head, pooling="mean", dropout=0.0)
    for task in config.tasks:
        config = replace_task(config, task.name, head=head)
    config = dataclasses.replace(
        config,
        optimizer=Config.optimizer,
        steps=120,
        lr=1e-2,
        eval_every_steps=120,
        encoder_dropout=0.0,
        log_every_steps=20,
        batch_size=16,
    )
    records = [r for r in read_metrics(run(config, tmp_path / "run").metrics) if r["kind"] == "train"]
    for task in ("sst", "para", "sts"):
        assert records[-1]["loss"][task] < 0.7 * records[0]["loss"][task]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ()}, r"no \[\[tasks\]\]"),
        ({"max_length": 65}, "the encoder has 64 positions"),
        ({"optimizer": ("adam(lr)",)}, "no aggregator"),
        ({"freeze": ("encodr",)}, "no parameter lies below 'encodr'"),
        ({"freeze": ("encoder", "heads")}, "nothing is left to train"),
        ({"data_dir": "nowhere"}, "data folder nowhere does not exist"),
        ({"encoder": "./no such"}, "neither a directory nor a hub name"),
    ],
)
def test_what_is_wrong_shows_before_a_run_folder_exists(
    config: Config, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(dataclasses.replace(config, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_task_without_training_data_is_refused(config: Config, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="task sts has no train file"):
        run(replace_task(config, "sts", train=""), tmp_path / "run")


def test_bad_rows_that_were_skipped_are_reported(config: Config, data_dir: Path, tmp_path: Path) -> None:
    text = (data_dir / "sts-train.csv").read_text()
    (tmp_path / "sts.csv").write_text(text + "99\tx99\ta film\tthe film\t9.0\n")
    config = replace_task(config, "sts", train=str(tmp_path / "sts.csv"))
    with pytest.raises(InputError, match="not a number from 0.0 to 5.0"):
        run(config, tmp_path / "run")
    display = Quiet()
    run(dataclasses.replace(config, bad_rows="skip"), tmp_path / "run", display=display)
    assert any("task sts: 1 bad rows left out" in line and "sts.csv:39" in line for line in display.lines)


def test_the_config_is_saved_with_every_checkpoint(config: Config, ended: RunFolder) -> None:
    folder = ended.path.parent
    config = dataclasses.replace(config, cache_dir=str(folder / "cache"), out=str(ended.path))
    with Checkpoints(ended.checkpoints, {}) as checkpoints:
        assert [checkpoints.about(step)["config"] for step in (3, 6)] == [to_dict(config)] * 2


def test_a_task_that_is_never_finite_again_ends_the_run_by_name(config: Config, tmp_path: Path) -> None:
    """The others go on until then; what was saved before stays, and is gone on with."""
    rows = (Path(config.data_dir) / config.tasks[2].train).read_text(encoding="utf-8").splitlines()
    bad = [rows[0], *(row.rpartition("\t")[0] + "\t1e38" for row in rows[1:])]  # its square is infinite
    (tmp_path / "bad.tsv").write_text("\n".join(bad), encoding="utf-8")
    sts = dataclasses.replace(config.tasks[2], train=str(tmp_path / "bad.tsv"), label_range=())
    config = dataclasses.replace(config, tasks=(*config.tasks[:2], sts), steps=9, max_bad_steps=4, save_every_steps=2)
    config = dataclasses.replace(config, log_every_steps=3)
    message = (
        r"task sts: .* not finite in 4 steps in a row \(max_bad_steps\), from its first step on, .* step 4, a batch of "
        r"the examples .*; look at its labels"
    )
    with pytest.raises(TrainingError, match=message) as error:
        run(config, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    assert "a lower lr" not in str(error.value)
    ids = str(error.value).partition("examples ")[2].partition(";")[0].split(", ")
    known = [row.split("\t")[1] for row in rows[1:]]
    assert len(ids) == (sts.batch_size or config.batch_size)
    assert set(ids) <= set(known)
    records = [record for record in read_metrics(folder.metrics) if record["kind"] == "train"]
    assert [(record["step"], record["left_out"]) for record in records] == [(3, {"sts": 3})]
    assert set(records[0]["loss"]) == {"sst", "para"}
    assert np.isfinite(jax.tree.leaves(MultitaskModel.from_checkpoint(folder.path, "latest").params)[0]).all()
    run(dataclasses.replace(config, max_bad_steps=0, out=""), tmp_path / "forever")


def test_the_recorded_rate_is_the_one_that_moved_the_parameters(config: Config, tmp_path: Path) -> None:
    """Updates of -lr, so a parameter has moved by the sum of the rates: through stages, a stop, and absent heads."""

    @register_transformation("ones")
    def ones() -> optax.GradientTransformation:
        return optax.stateless(lambda updates, params: jax.tree.map(jnp.ones_like, updates))

    stages = (
        StageConfig("rising", steps=4, schedule="linear", warmup_fraction=0.5, lr=0.5),
        StageConfig("falling", steps=3, schedule="cosine", lr=0.25, order="sequential"),
    )
    chain = ("sum_tasks()", "ones()", "scale_by_learning_rate(lr)")
    config = dataclasses.replace(config, stages=stages, optimizer=chain, log_every_steps=1, eval_every_steps=0)
    try:
        with pytest.raises(Interrupted):
            run(config, tmp_path / "run", display=Quiet(at=2))
        folder = run(config, tmp_path / "run", resume=True)
    finally:
        unregister("ones")
    records = [record for record in read_metrics(folder.metrics) if record["kind"] == "train"]
    rates = [record["lr"] for record in records]
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6, 7]
    assert len(set(rates)) == 5
    before = Setup.load(config, Path(config.encoder)).initial_params(load_pretrained(config.encoder)[1])
    after = MultitaskModel.from_checkpoint(folder.path, "latest").params
    moved = jax.tree.map(lambda new, old: float(np.median(old - new)), after, before)
    for leaf in jax.tree.leaves(moved["encoder"]):
        assert leaf == pytest.approx(sum(rates), rel=1e-5)
    for name, head in moved["heads"].items():
        own = sum(rate for rate, record in zip(rates, records, strict=True) if name in record["loss"])
        for leaf in jax.tree.leaves(head):
            assert leaf == pytest.approx(own, rel=1e-5)
    assert {len(record["loss"]) for record in records} == {1, 3}
