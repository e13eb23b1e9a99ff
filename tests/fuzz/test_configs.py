"""TOML configs: spoiled bytes, values of other types and sizes, paths that lead elsewhere, includes of all sorts."""

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from mtbert_jax.config import Config, SmartConfig, StageConfig, TaskConfig, load_config
from mtbert_jax.config.schema import to_dict
from mtbert_jax.encoders import hub
from tests.conftest import tiny_run
from tests.fuzz.attempts import command, fuzz, outcome
from tests.fuzz.strategies import altered, at, odd_texts, odd_values, places, spoiled, to_toml
from tests.tally import Tally

PATHS = ["", ".", "..", "../beside", "../../../etc", "/dev/zero", "/proc/self/mem", "link", "a\0b", "x" * 300, "pipe"]
WORDS = ["mean", "pair", "cosine", "annealed", "teacher", "paper", "vanilla", "regression", "binary", "bfloat16"]
CALLS = ["pcgrad()", "adam(lr)", "sum_tasks()", "lbfgs(lr)", "adam", "scale(1e400)", "MultiSteps(adam(lr), 9)"]
FIELDS = tuple(field.name for kind in (Config, TaskConfig, StageConfig) for field in dataclasses.fields(kind))
integers = st.sampled_from([0, 1, 2, 3, 5, -1, 97, 1000, 10**5, 10**6, 10**9, 2**31, 2**63 - 1, 2**63, 10**30])
floats = st.sampled_from([0.0, 0.3, 1.0, 0.999999, 1e-300, 2.0, 1e4, 1e300, -0.5, float("inf"), float("nan")])
strings = st.one_of(st.sampled_from(PATHS), st.sampled_from(WORDS), st.sampled_from(CALLS), odd_texts)
values = st.one_of(integers, floats, st.booleans(), strings, odd_values, st.lists(st.one_of(integers, strings)))
SAME_KIND = {int: integers, float: floats, str: strings, bool: st.booleans()}
INTEGERS = ["0x" + "f" * 9000, "9" * 5000, "1_000", "0b101", "-0x1", "+1", "1e5", "nan", "-inf", "1979-05-27T07:32:00Z"]


@st.composite
def altered_configs(draw: st.DrawFn, config: dict[str, Any]) -> bytes:
    """The config with a few values replaced, mostly by others of their kind, or keys taken out."""
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(places(config)))
        kind = type(at(config, place))
        new = draw(draw(st.sampled_from([SAME_KIND.get(kind, values), SAME_KIND.get(kind, values), values])))
        if draw(st.integers(0, 9)):
            config = altered(config, place, lambda inner, key, new=new: inner.__setitem__(key, new))
        else:
            config = altered(config, place, lambda inner, key: inner.__delitem__(key))
    text = to_toml(config)
    if draw(st.integers(0, 9)) == 0:
        text = text.replace(b'"seed" = 0', f"seed = {draw(st.sampled_from(INTEGERS))}".encode())
    return text


@st.composite
def configs(draw: st.DrawFn, config: dict[str, Any]) -> bytes:
    """A config, spoiled in one way or another."""
    return draw(altered_configs(config)) if draw(st.integers(0, 3)) else draw(spoiled(to_toml(config)))


@pytest.fixture
def place(small_encoder_dir: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with encoder, data and a few traps, which commands run in; no hub answers."""
    folder = tmp_path / "room" / "place"
    folder.mkdir(parents=True)
    (folder.parent / "beside").mkdir()
    (folder.parent / "beside" / "base.toml").write_text("lr = 1.0\n")
    shutil.copytree(small_encoder_dir, folder / "encoder")
    shutil.copytree(data_dir, folder / "data")
    (folder / "link").symlink_to("../beside")
    (folder / "data" / "link").symlink_to("/etc/passwd")
    os.mkfifo(folder / "data" / "pipe")
    os.mkfifo(folder / "pipe.toml")
    monkeypatch.chdir(folder)

    def no_hub(*_: object, **__: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr(hub.huggingface_hub, "snapshot_download", no_hub)
    return folder


def base() -> dict[str, Any]:
    """A run with stages of all sorts, whose files lie where it runs."""
    config = tiny_run(Path("encoder"), Path("data"), Path())
    heads = StageConfig("heads", steps=1, freeze=("encoder",), cache_features=True, smart=SmartConfig())
    stages = (heads, StageConfig("full", epochs=0.5, optimizer=("pcgrad()", "adam(lr)")))
    return to_dict(dataclasses.replace(config, stages=stages, smart=SmartConfig(weight=1.0)))


@pytest.mark.parametrize("cases", [pytest.param(12), pytest.param(400, marks=pytest.mark.slow)])
def test_any_config_can_be_run_or_is_refused(cases: int, place: Path, tally: Tally) -> None:
    """Up to where training would begin; tokens are cached here, wherever the config would have them."""
    path = place / "config.toml"

    def case(given: bytes) -> None:
        path.write_bytes(given)
        door = lambda: command("train", str(path), "--dry-run", "--cache-dir", "cache")  # noqa: E731
        outcome(door, place, str(path), "data", *FIELDS)

    tally("configs fuzzed", fuzz(configs(base()), case, cases))


TARGETS = [
    *("a.toml", "b.toml", "c.toml", "d/e.toml", "./a.toml", "../place/b.toml", "../beside/base.toml", "link/base.toml"),
    *("../../room/beside/base.toml", "../../../x.toml", "/etc/passwd.toml", "pipe.toml", "folder.toml", "none.toml"),
    *("a.txt", "", "\x1b.toml", "x" * 300 + ".toml", "circle.toml"),
]


@st.composite
def included(draw: st.DrawFn) -> dict[str, bytes]:
    """A few files that include others."""
    target = st.sampled_from(TARGETS)
    rests = st.sampled_from([b"", b"lr = 2.0\n", b"lr = 'x'\n", b"[head]\ndropout = 0\n", b"[[tasks]]\nname = 'a'\n"])
    includes = st.one_of(st.just([]), target, st.lists(target, max_size=3), values)
    names = ("a.toml", "b.toml", "c.toml", "d/e.toml")
    return {name: to_toml({"include": draw(includes)}) + draw(rests) for name in names}


@pytest.mark.parametrize("cases", [pytest.param(30), pytest.param(300, marks=pytest.mark.slow)])
def test_any_includes_are_followed_or_refused(cases: int, place: Path, tally: Tally) -> None:
    (place / "d").mkdir()
    (place / "folder.toml").mkdir()
    (place / "circle.toml").symlink_to("circle.toml")

    def case(given: dict[str, bytes]) -> None:
        for name, data in given.items():
            (place / name).write_bytes(data)
        outcome(lambda: load_config(place / "a.toml"), place, ".toml")

    tally("configs fuzzed", fuzz(included(), case, cases))
