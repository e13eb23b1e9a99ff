"""Checkpoints by orbax: the latest ones and the best one, each with the config that made it."""

import gc
import itertools
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint.options import AsyncOptions

from mtbert_jax import trees
from mtbert_jax.config.schema import finite, fits
from mtbert_jax.errors import InputError, TrainingError, first_line
from mtbert_jax.files import must_hold_files
from mtbert_jax.parallel import wait_for_all
from mtbert_jax.training.state import TrainState
from mtbert_jax.types import Params

LATEST = 2
ASIDE = "aside"
_PENDING = {"losses": dict, "finite": dict, "cosines": (list, None), "penalties?": dict, "layers?": dict}
_PROGRESS = {
    **{"stage?": int, "stage_start?": int, "stage_done?": bool, "stale?": int, "pending": list},
    **{"best?": (float, None), "average?": (float, None), "seconds?": float, "peak_memory?": int},
}
"""What is saved of `Progress`, as `fits` reads it."""
S = TypeVar("S")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """Where a run stands, beside its arrays.

    Attributes:
        stage: Number of the stage, from 0.
        stage_start: Step at which it began.
        best: Best dev score so far, or None.
        stale: Evaluations since then.
        pending: Steps since the last record, packed: a resumed run writes the same record.
        seconds: Wall time of the loop so far, evaluations and compilation included, over all resumptions.
        peak_memory: Most memory in use at once so far, in bytes, over all resumptions.
        average: The dev score at this very step; None where there was no evaluation, or the score is undefined.
    """

    stage: int = 0
    stage_start: int = 0
    stage_done: bool = False
    best: float | None = None
    stale: int = 0
    pending: tuple[dict[str, Any], ...] = ()
    seconds: float = 0.0
    peak_memory: int = 0
    average: float | None = None

    def stage_of(self, stages: Sequence[S], config: Path) -> S:
        """The run's stage, of those that its config has; `InputError` if there are fewer than when it was saved."""
        if self.stage < len(stages):
            return stages[self.stage]
        raise InputError(
            f"{config}: has {len(stages)} stages, and a checkpoint of the run is of stage {self.stage + 1}; was the "
            "file changed? put it back"
        )


@contextmanager
def _without_remark(start: str) -> Iterator[None]:
    """Keeps what orbax logs with these first words from a notebook: it is as it should be."""
    absl, drop = logging.getLogger("absl"), lambda record: not str(record.msg).startswith(start)
    absl.addFilter(drop)
    try:
        yield
    finally:
        absl.removeFilter(drop)


class Checkpoints:
    """The ``checkpoints`` folder of a run: the latest two steps, and the one with the best dev average.

    A step is written whole or not at all, and an older one is deleted only after that. With every step lie fingerprints
    of its arrays, so that one which was damaged on disk is not taken for what was saved. Saving is asynchronous:
    `close` waits for it, and so does leaving a ``with``.
    """

    def __init__(self, directory: Path, config: dict[str, Any] | None = None, run: str = "") -> None:
        """Opens the folder; `InputError` if links, pipes or the like are in it.

        With the run's config, as `to_dict` gives it, the folder is made, and by the first save cleared of what a killed
        process left unfinished; without it the folder is only read. `run` is the run's own digest: a step that was
        saved with another one counts as damaged.
        """
        must_hold_files(directory, arrays="d")  # where orbax keeps them; it would open whatever lies there
        self._config, self._run = config, run
        self._averages: dict[int, float] = {}
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_LatestAndBest(self._averages),
            read_only=config is None,
            save_interval_steps=int(config is not None),  # orbax warns of an interval where nothing is saved
            create=config is not None,
            cleanup_tmp_directories=config is not None,
            lightweight_initialize=True,  # else metadata of one step that are none would keep the whole folder shut
            # Else threads wait for minutes for a folder that could not be made.
            async_options=AsyncOptions(create_directories_asynchronously=False),
        )
        with _without_remark("Given directory is read only"):
            self._manager = ocp.CheckpointManager(directory.absolute(), options=options)
        self.standings = dict(self._read_standings())
        """Where the run stood at each step that was saved when the folder was opened, newest first."""

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Waits until everything is on disk."""
        with self._complaining():
            self._manager.wait_until_finished()
        self._manager.close()

    def save(self, state: TrainState, progress: Progress) -> None:
        """Saves `state` under its step, once; a `TrainingError` says that this save or the one before has failed."""
        step = int(state.step)
        if step in self.steps():
            return
        if progress.average is not None and not math.isfinite(progress.average):
            progress = replace(progress, average=None)
        items = _items(state)
        fingerprints = {name: trees.fingerprint(item) for name, item in items.items()}
        about = {"step": step, "config": finite(self._config), "progress": progress.__dict__}
        about |= {"fingerprints": fingerprints, **({"run": self._run} if self._run else {})}
        args = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        self._note(step, progress)
        with self._complaining():
            self._manager.save(step, args=ocp.args.Composite(**args, about=ocp.args.JsonSave(about)))

    def about(self, step: int) -> dict[str, Any]:
        """What was saved with a step beside its arrays."""
        asked = ocp.args.Composite(about=ocp.args.JsonRestore())
        return self._manager.restore(step, args=asked)["about"]

    def steps(self) -> list[int]:
        """All steps that are there, newest first."""
        return sorted(self._manager.all_steps(), reverse=True)

    def best_step(self) -> int | None:
        """The step with the best dev average, the first of several; None where no step has one."""
        return min(self._averages, key=lambda step: (-self._averages[step], step), default=None)

    def try_restore(self, step: int, target: TrainState) -> TrainState | None:
        """The state at `step`, shaped like `target`; None, and a warning, where it is damaged."""
        restored = self._restored(step, _items(target))
        if restored is None:
            return None
        rest = restored.pop("rest")
        return target._replace(step=jnp.asarray(step, jnp.int32), **restored, **rest)

    def restore_params(self, step: int, target: Params, teacher: Params | None = None) -> Params | None:
        """The parameters at `step`, shaped like `target`; None, and a warning, where they are damaged.

        With `teacher`, the teacher's, which lack what was frozen.
        """
        wanted = {"params": target} if teacher is None else {"params": target, "teacher": teacher}
        restored = self._restored(step, wanted)
        return None if restored is None else trees.merge(restored["params"], restored.get("teacher", {}))

    def set_aside(self, step: int) -> None:
        """Moves what is newer than `step`, damaged as it is, out of the way of what will be saved there."""
        newer = [later for later in self.steps() if later > step]
        if not newer:
            return
        for later in newer if jax.process_index() == 0 else ():
            folder = Path(self._manager.directory)
            place = next(p for n in itertools.count() if not (p := folder / ASIDE / f"{later}.{n}").exists())
            place.parent.mkdir(exist_ok=True)
            (folder / str(later)).rename(place)
            logger.warning("what is there of step %d lies in %s now", later, place)
        wait_for_all("newer steps set aside")
        self._manager.reload()
        for later in newer:
            self._averages.pop(later, None)

    def _read_standings(self) -> Iterator[tuple[int, Progress]]:
        """Where the run stood at each step whose description can be read, newest first; warns of the others."""
        for step in self.steps():
            try:
                progress = self._progress(step)
                standing = Progress(**{**progress, "pending": tuple(progress["pending"])})
                self._note(step, standing)
                yield step, standing
            except Exception as error:  # noqa: BLE001 - orbax raises many kinds for a damaged step
                self._warn(step, error)

    def _progress(self, step: int) -> dict[str, Any]:
        """What was saved of `Progress` with a step, if it is that of this step and of this run."""
        about = self.about(step)
        progress: dict[str, Any] = about["progress"]
        sound = fits(progress, _PROGRESS) and progress.get("stage", 0) >= 0
        if not sound or not all(fits(one, _PENDING) for one in progress["pending"]):
            raise ValueError("its description is damaged")
        if self._run and about.get("run", self._run) != self._run:
            out = about["config"].get("out")
            raise ValueError(f"it is of another run{f', {out}' if out else ''}; was it copied here?")
        if about.get("step", step) != step:
            raise ValueError(f"it was saved as step {about['step']}")
        return progress

    def _note(self, step: int, progress: Progress) -> None:
        if progress.average is not None:
            self._averages[step] = progress.average

    def _restored(self, step: int, items: dict[str, Any]) -> dict[str, Any] | None:
        """Some parts of a step, if they are what was saved."""
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, items)
        args = {name: ocp.args.StandardRestore(shape) for name, shape in shapes.items()}
        try:
            with _threads_kept_quiet():
                restored = self._manager.restore(step, args=ocp.args.Composite(**args))
            fingerprints = self.about(step).get("fingerprints", {})  # there were none once
            for name in items:
                if name in fingerprints and trees.fingerprint(restored[name]) != fingerprints[name]:
                    raise ValueError(f"the arrays of {name!r} are not those that were saved")
        except Exception as error:  # noqa: BLE001 - as above
            self._averages.pop(step, None)
            self._warn(step, error)
            return None
        return {name: restored[name] for name in items}

    @contextmanager
    def _complaining(self) -> Iterator[None]:
        """What goes wrong in saving, in one line."""
        try:
            with _threads_kept_quiet():
                yield
        except Exception as error:
            folder = Path(self._manager.directory)
            left = max((int(path.name) for path in folder.glob("*") if path.name.isdigit()), default=None)
            raise TrainingError(
                f"cannot save a checkpoint in {folder}: {first_line(error)}; the newest that is complete: "
                + ("none" if left is None else f"step {left}")
            ) from error

    def _warn(self, step: int, error: Exception) -> None:
        reason = first_line(error)
        if "tree structures do not match" in reason:
            reason = "its arrays are arranged otherwise, as another version of mtbert_jax or optax may do"
        logger.warning("checkpoint of step %d cannot be read: %s", step, reason)


class _LatestAndBest:
    """Which steps stay: orbax's protocol, without its metrics files, since one that is damaged stops it altogether."""

    def __init__(self, averages: dict[int, float]) -> None:
        self._averages = averages

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """One answer for each checkpoint, which come oldest first."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        known = [step for step in steps if step in self._averages]
        kept = {*steps[-LATEST:], *([max(known, key=lambda step: (self._averages[step], -step))] if known else [])}
        return [step in kept for step in steps]


@contextmanager
def _threads_kept_quiet() -> Iterator[None]:
    """Keeps the readers and writers that orbax has given up from printing that, beside what it raises."""
    hook = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        yield
    except BaseException:
        gc.collect()  # they complain when they are collected
        raise
    finally:
        sys.unraisablehook = hook


def _items(state: TrainState) -> dict[str, Any]:
    """The parts of a checkpoint that hold arrays; parameters and teacher apart, so that they can be read alone."""
    items = {"params": state.params, "rest": {"opt_state": state.opt_state, "key": state.key}}
    return items if state.teacher is None else {**items, "teacher": state.teacher}
