"""A run folder → an export of one of its checkpoints."""

from pathlib import Path
from typing import Literal, get_args

from mtbert_jax.config.schema import must_be_among
from mtbert_jax.errors import InputError
from mtbert_jax.export.card import model_card
from mtbert_jax.export.description import Format, describe_export
from mtbert_jax.export.destination import check_destination, whole_folder
from mtbert_jax.export.hugging_face import write_hugging_face
from mtbert_jax.export.notes import program_notes
from mtbert_jax.export.stablehlo import PLATFORMS, write_stablehlo
from mtbert_jax.inference import MultitaskModel
from mtbert_jax.training.folder import RunFolder, must_lie_apart
from mtbert_jax.training.origin import not_finite


def export_run(
    run: Path, form: Format, out: Path | None = None, which: Literal["best", "latest"] = "best", overwrite: bool = False
) -> Path:
    """Exports what a run evaluates, encoder, heads, tokenizer and a page about them, to ``export/<form>`` or `out`.

    Raises:
        InputError: There is no such `form`, no checkpoint, or none with finite parameters, or `out` is not free or
            cannot be written.
    """
    must_be_among("form", form, get_args(Format))
    out = out or run / "export" / form
    check_destination(out, overwrite)
    must_lie_apart(out)
    model = MultitaskModel.from_checkpoint(run, which)
    if path := not_finite(model.params):
        raise InputError(f"{run}: the values of {path} at step {model.step} are not finite; there is nothing to export")
    about = describe_export(model, RunFolder(run), form)
    with whole_folder(out, about) as folder:
        if form == "hf":
            write_hugging_face(folder, model)
            page = model_card(model, about)
        else:
            write_stablehlo(folder, model)
            page = program_notes(about, PLATFORMS, model.setup)
        (folder / "README.md").write_text(page, encoding="utf-8", errors="replace")
    return out
