"""Checkpoints by orbax: the latest ones and the best one, each with the config that made it."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from mtbert_jax import trees
from mtbert_jax.training.state import TrainState
from mtbert_jax.types import InputError, Params, first_line

METRIC = "average"
LATEST = 2
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """Where a run stands, beside its arrays.

    Attributes:
        stage: Number of the stage, from 0.
        stage_start: Step at which it began.
        stage_done: Whether it has ended.
        best: Best dev average so far, or None.
        stale: Evaluations since then.
        pending: Steps since the last record, packed: a resumed run writes the same record.
        seconds: Wall time of the loop so far, evaluations and compilation included, over all resumptions.
        peak_memory: Most memory in use at once so far, in bytes, over all resumptions.
    """

    stage: int = 0
    stage_start: int = 0
    stage_done: bool = False
    best: float | None = None
    stale: int = 0
    pending: tuple[dict[str, Any], ...] = ()
    seconds: float = 0.0
    peak_memory: int = 0


class Checkpoints:
    """The ``checkpoints`` folder of a run.

    A step is written whole or not at all. Saving is asynchronous: `close` waits for it, and so does leaving a ``with``.
    """

    def __init__(self, directory: Path, config: dict[str, Any]) -> None:
        """Opens or makes the folder.

        Args:
            directory: The folder.
            config: The run's config, as `schema.to_dict` gives it; saved with every step.
        """
        self._config = config
        policy = policies.AnyPreservationPolicy(
            [policies.LatestN(LATEST), policies.BestN(get_metric_fn=lambda m: m[METRIC], reverse=False, n=1)]
        )
        options = ocp.CheckpointManagerOptions(preservation_policy=policy, best_fn=lambda m: m[METRIC])
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()

    def save(self, state: TrainState, progress: Progress, average: float | None = None) -> None:
        """Saves `state` under its step; a second save of one step is passed over.

        Args:
            state: All arrays.
            progress: Where the run stands.
            average: The dev average at this step; without one, or where it is NaN, the step cannot become the best.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        metric = -math.inf if average is None or math.isnan(average) else average
        args = ocp.args.Composite(
            **{name: ocp.args.StandardSave(item) for name, item in _items(state).items()},
            about=ocp.args.JsonSave({"config": self._config, "progress": progress.__dict__}),
        )
        self._manager.save(step, args=args, metrics={METRIC: metric})

    def about(self, step: int) -> tuple[dict[str, Any], Progress]:
        """The config and the standing that were saved with a step."""
        about = self._manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore()))["about"]
        progress = about["progress"]
        return about["config"], Progress(**{**progress, "pending": tuple(progress["pending"])})

    def steps(self) -> list[int]:
        """All steps that are there, newest first."""
        return sorted(self._manager.all_steps(), reverse=True)

    def best_step(self) -> int | None:
        """The step with the best dev average, if any step has one."""
        return self._manager.best_step()

    def sound_steps(self) -> list[tuple[int, Progress]]:
        """Steps whose description can be read, newest first; the others are named in a warning."""
        sound = []
        for step in self.steps():
            try:
                sound.append((step, self.about(step)[1]))
            except Exception as error:  # noqa: BLE001 - orbax raises many kinds for a damaged step
                logger.warning(
                    "checkpoint of step %d cannot be read (%s); trying the one before", step, first_line(error)
                )
        return sound

    def try_restore(self, step: int, target: TrainState) -> TrainState | None:
        """The state at `step`, shaped like `target`; None, and a warning, where it is damaged."""
        try:
            restored = self._restore(step, _items(target))
        except Exception as error:  # noqa: BLE001 - as above
            logger.warning(
                "checkpoint of step %d cannot be restored (%s); trying the one before", step, first_line(error)
            )
            return None
        rest = restored.pop("rest")
        return target._replace(step=jnp.asarray(step, jnp.int32), **restored, **rest)

    def restore_params(self, step: int, target: Params, teacher: Params | None = None) -> Params:
        """The parameters at `step`, shaped like `target`.

        Args:
            step: The step.
            target: Shapes of all parameters.
            teacher: Shapes of the teacher's, where those are wanted instead; what the teacher lacks was frozen.

        Raises:
            InputError: The step cannot be restored.
        """
        wanted = {"params": target} if teacher is None else {"params": target, "teacher": teacher}
        try:
            restored = self._restore(step, wanted)
            return trees.merge(restored["params"], restored.get("teacher", {}))
        except Exception as error:  # noqa: BLE001 - as above
            raise InputError(f"checkpoint of step {step} cannot be restored: {first_line(error)}") from None

    def _restore(self, step: int, items: dict[str, Any]) -> dict[str, Any]:
        args = {name: ocp.args.StandardRestore(_abstract(item)) for name, item in items.items()}
        restored = self._manager.restore(step, args=ocp.args.Composite(**args))
        return {name: restored[name] for name in items}


def _items(state: TrainState) -> dict[str, Any]:
    """The parts of a checkpoint that hold arrays; parameters and teacher apart, so that they can be read alone."""
    items = {"params": state.params, "rest": {"opt_state": state.opt_state, "key": state.key}}
    return items if state.teacher is None else {**items, "teacher": state.teacher}


def _abstract(tree: Any) -> Any:
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, tree)
