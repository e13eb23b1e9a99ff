"""Dev logits of a run's best step, kept in its folder."""

import zipfile

import numpy as np

from mtbert_jax.files import must_be_file, must_lie_in
from mtbert_jax.limits import LARGEST_LOGITS
from mtbert_jax.training.folder import RunFolder

LOGITS_STEP = ".step"
"""Key of the step beside the tasks' logits; no task can have this name."""
LOGITS_RUN = ".run"
"""Key of the run's own digest, likewise."""


def save_logits(folder: RunFolder, step: int, logits: dict[str, np.ndarray]) -> None:
    """Keeps the dev logits of a step, so that the end of the run need not compute them again."""
    folder.logits.parent.mkdir(parents=True, exist_ok=True)
    part = folder.logits.with_suffix(".part.npz")
    about = {LOGITS_STEP: np.array(step), LOGITS_RUN: np.array(folder.load_identity())}
    np.savez(part, **about, **logits)  # type: ignore[arg-type]
    part.replace(folder.logits)


def load_logits(folder: RunFolder, step: int | None = None) -> dict[str, np.ndarray] | None:
    """The dev logits of a step, or of whichever, by task; None where the run has kept none, or they cannot be read."""
    try:
        must_be_file(folder.logits)
        must_lie_in(folder.path, folder.logits)
        with zipfile.ZipFile(folder.logits) as archive:
            if sum(member.file_size for member in archive.infolist()) > LARGEST_LOGITS:
                return None
        with np.load(folder.logits, allow_pickle=False) as arrays:
            if step is not None and arrays[LOGITS_STEP] != step:
                return None
            if LOGITS_RUN in arrays and not folder.is_own(str(arrays[LOGITS_RUN])):
                return None
            return {name: array for name, array in arrays.items() if np.issubdtype(array.dtype, np.floating)}
    except Exception:  # noqa: BLE001 - NumPy and zipfile raise many kinds for a damaged file
        return None
