"""Training from a config to its end: everything is checked and opened, then the loop goes through the stages."""

from contextlib import ExitStack

from mtbert_jax.config import Config
from mtbert_jax.data.dataset import Dataset
from mtbert_jax.data.readers import SPLITS, Split
from mtbert_jax.encoders.hub import save_description
from mtbert_jax.parallel import wait_for_all
from mtbert_jax.training.active import ActiveRun
from mtbert_jax.training.describe import describe_run
from mtbert_jax.training.display import Display
from mtbert_jax.training.existing import Existing, check_folder, open_folder
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.interrupt import Interruption
from mtbert_jax.training.loop import Loop
from mtbert_jax.training.prepare import Prepared, PreparedRun, prepare
from mtbert_jax.training.seeds import trained_together


def fit(
    config: Config, folder: RunFolder, existing: Existing = "refuse", display: Display | None = None
) -> dict[Split, dict[str, Dataset]]:
    """Trains a run to its end, leaving checkpoints and records in `folder`; returns the dev and test splits by task.

    `resume` goes on from the newest checkpoint that can be read; without one, it begins. `overwrite` deletes what lies
    there, once it is sure that this run can start.

    Raises:
        InputError: Config, encoder, data or folder are not right, or another process trains in the folder.
        Interrupted: A signal came; all that was done is saved.
    """
    ready = prepare(config, folder, existing)
    layout, train, dev = ready.layout, ready.splits["train"], ready.splits["dev"]
    with ExitStack() as stack, Interruption() as interruption:
        _open_folders(ready, stack)
        display = display or Display(quiet=not layout.leads)
        display.say(f"run folder {folder.path}")
        for line in describe_run(ready):
            display.say(line)
        active = [_opened(run, train, dev) for run in ready.runs]
        for one in active:
            stack.callback(one.close)
        stack.callback(display.stop)
        ready.runs.clear()  # they hold the weights that the runs begin with: not needed once the runs have begun
        resume = existing == "resume"
        for some in trained_together(active, layout, resume, display):
            Loop(some, display, interruption).train(resume)
        for one in active:
            if dev and one.progress.best is None:
                seed = f"seed {one.setup.config.seed}: " if config.seeds else ""
                display.say(f"{seed}no dev score was ever defined: the latest checkpoint stands in for the best")
    return {split: ready.splits[split] for split in SPLITS[1:]}


def _open_folders(ready: Prepared, stack: ExitStack) -> None:
    """Makes the folders of the runs, once all processes have found them fit, and holds them until `stack` closes."""
    leads, existing = ready.layout.leads, ready.existing
    for run in ready.runs if leads else ():
        stack.enter_context(run.folder.hold())
    for run in ready.runs:
        check_folder(run.folder, run.setup.config, existing)  # again, since others may have been at work meanwhile
    wait_for_all("folders checked")
    if leads:
        for run in ready.runs:
            open_folder(run.folder, run.setup.config, ready.digests, existing == "overwrite")
            save_description(run.folder.encoder, ready.setup.encoder_config, ready.setup.tokenizer)
            run.folder.sign_encoder()
    wait_for_all("folders opened")


def _opened(run: PreparedRun, train: dict[str, Dataset], dev: dict[str, Dataset]) -> ActiveRun:
    active = ActiveRun.open(run.setup, run.folder, run.plans, train, dev)
    active.origin = run.origin
    return active
