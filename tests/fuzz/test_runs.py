"""Run folders that somebody else made: files of checkpoint, config and encoder spoiled, swapped, linked, or missing."""

import itertools
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from mtbert_jax.export.write import export_run
from mtbert_jax.inference import MultitaskModel
from tests.conftest import tiny_run
from tests.fuzz.attempts import command, fuzz, outcome
from tests.fuzz.strategies import odd_values, spoiled, spoiled_json
from tests.runs import checkpointed
from tests.tally import Tally

SIZES = ["hidden_size = 13", "hidden_size = 100000", "hidden_layers = 2", "hidden_layers = 90", "pooling = 'pair'"]
OTHERS = [b"evaluate = 'teacher'\n", b"stages = []\n", b"include = '../secret.toml'\n", b"parallel = {data = 8}\n"]
KINDS = ["spoil", "spoil", "json", "json", "swap", "remove", "link", "pipe", "folder", "config", "grow"]
Change = tuple[str, str, Any]
"""What happens, to which file, and what to put there."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, small_encoder_dir: Path, data_dir: Path) -> Path:
    """The folder of a sound run, with one record of each kind."""
    folder = checkpointed(tiny_run(small_encoder_dir, data_dir, tmp_path_factory.mktemp("sound")))
    results = folder.load_results() or {}
    pair = {"para/sts": 0.5}
    numbers = {"loss": {"para": 1.0, "sst": 2.0}, "smoothness": {"para": 0.25}, "cosine": pair, "conflict": pair}
    records = [
        {"kind": "train", "stage": "train", "step": 1, "epoch": 0.5, "lr": 0.1, "examples_per_second": 8.0, **numbers},
        {"kind": "eval", "stage": "train", "step": 2, "split": "dev", "scores": results["dev"]},
        {"kind": "stage", "stage": "train", "step": 2, "compiled_shapes": 2, "compile_seconds": 3.0},
    ]
    folder.metrics.write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder.path


def files_of(run: Path) -> list[str]:
    return sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())


@st.composite
def changes(draw: st.DrawFn, run: Path, files: list[str]) -> list[Change]:
    """One to three accidents."""
    found = []
    for _ in range(draw(st.sampled_from([1, 1, 2, 3]))):
        name, kind = draw(st.sampled_from(files)), draw(st.sampled_from(KINDS))
        data, new = (run / name).read_bytes(), None
        if kind == "json" and data[:1] not in (b"{", b"["):
            kind = "spoil"
        match kind:
            case "spoil":
                new = draw(spoiled(data))
            case "json":
                lines = data.split(b"\n") if name.endswith(".jsonl") else [data]
                place = draw(st.integers(0, len(lines) - 1 - (lines[-1] == b"")))
                spoilt = draw(spoiled_json(json.loads(lines[place]), odd_values))
                lines[place] = spoilt.encode("utf-8", "surrogatepass")
                new = b"\n".join(lines)
            case "swap":
                new = (run / draw(st.sampled_from(files))).read_bytes()
            case "link":
                new = draw(st.sampled_from(["/etc/passwd", "../../secret.toml", "/dev/zero", name, "/proc/self/mem"]))
            case "config":
                name, size = "config.toml", draw(st.sampled_from(SIZES)).encode()
                old = (run / name).read_bytes()
                head = old.replace(b"[head]\n", b"[head]\n" + size + b"\n")
                new = draw(st.sampled_from([head, *(other + old for other in OTHERS)]))
            case "grow":
                new = 2 ** draw(st.sampled_from([20, 33, 40]))
        found.append((kind, name, new))
    return found


def apply(run: Path, change: Change) -> None:
    kind, name, new = change
    path = run / name
    if not path.parent.is_dir():
        return
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    if kind == "grow" and path.is_file() and not path.is_symlink():
        os.truncate(path, new)
        return
    path.unlink(missing_ok=True)
    match kind:
        case "link":
            path.symlink_to(new)
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "spoil" | "json" | "swap" | "config":
            path.write_bytes(new)


@pytest.mark.parametrize("cases", [pytest.param(8), pytest.param(200, marks=pytest.mark.slow)])
def test_any_run_folder_is_loaded_or_refused_and_stays_as_it_is(
    cases: int, sound: Path, tmp_path: Path, tally: Tally
) -> None:
    """Reading does no more than read: whatever the run says, nothing in it or beside it changes."""
    numbers = itertools.count()

    files = [name for name in files_of(sound) if not name.startswith("predictions") and name != "metrics.jsonl"]

    def case(given: list[Change]) -> None:
        room = tmp_path / str(next(numbers))  # a new one: orbax's threads may still be reading the one before
        place, run = room / "nothing", Path(shutil.copytree(sound, room / "run"))
        (room / "secret.toml").write_text("lr = 12345.0\n")
        for change in given:
            apply(run, change)

        def door() -> None:
            model = MultitaskModel.from_checkpoint(run)
            assert set(model.params) == {"encoder", "heads"}
            if len(given) == 1:
                export_run(run, "hf", place / "export")

        message = outcome(door, place, str(run), "max_length", "tasks")
        assert "12345" not in (message or "")

    tally("run folders fuzzed", fuzz(changes(sound, files), case, cases))


@pytest.mark.parametrize("cases", [pytest.param(8), pytest.param(100, marks=pytest.mark.slow)])
def test_a_report_on_any_run_folder_is_written_or_refused(
    cases: int, sound: Path, tmp_path: Path, tally: Tally
) -> None:
    """Nothing but the page is written, and it fetches nothing."""
    numbers = itertools.count()
    files = [name for name in files_of(sound) if not name.startswith(("checkpoints", "encoder"))]
    other = Path(shutil.copytree(sound, tmp_path / "other"))
    (other / "metrics.jsonl").write_text("")  # two whole pages of plots take seconds
    command("report", str(other), "--out", str(tmp_path / "other.html"))  # matplotlib makes its folders

    def case(given: list[Change]) -> None:
        room = tmp_path / str(next(numbers))
        run, out = Path(shutil.copytree(sound, room / "run")), room / "page" / "report.html"
        (room / "secret.toml").write_text("lr = 12345.0\n")
        for change in given:
            apply(run, change)
        runs = [str(run)] if len(given) == 1 else [str(run), str(other)]
        message = outcome(lambda: command("report", *runs, "--out", str(out)), out.parent, str(run), "tasks")
        assert out.is_file() == (message is None)
        if message is None:
            page = out.read_text()
            assert page.endswith("</html>\n")
            assert not re.search(r"<script|src=|@import|url\((?!#)", page)
        assert "12345" not in (message or "")

    tally("reports on fuzzed runs", fuzz(changes(sound, files), case, cases))
