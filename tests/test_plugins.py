"""Python files from the command line: trained with, resumed with, and not needed by what only reads a run."""

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtbert_jax.ablation.planned import plan_runs
from mtbert_jax.cli.main import main
from mtbert_jax.cli.parsing import parse_ablate
from mtbert_jax.config import Config, load_config, save_config
from mtbert_jax.optim.registry import unregister

PLUGIN = """
import dataclasses

import jax.numpy as jnp
import mtbert_jax as mt


@dataclasses.dataclass
class Share:
    first: float


@mt.register_aggregator("first_task")
def first_task(gramian, state, key, losses, share=1.0):
    return jnp.zeros(gramian.shape[0]).at[0].set(Share(share).first), state
"""


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    yield
    unregister("first_task")
    for name in [name for name in sys.modules if name.startswith("mtbert_plugin_")]:
        del sys.modules[name]


@pytest.fixture
def toml(config: Config, tmp_path: Path) -> Path:
    (tmp_path / "my_code.py").write_text(PLUGIN)
    path = tmp_path / "tiny.toml"
    save_config(dataclasses.replace(config, optimizer=("first_task(share=0.5)", "adam(lr)"), steps=4), path)
    return path


def test_a_run_with_a_plugin_is_resumed_with_it_and_read_without(
    toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--plugins", str(tmp_path / "my_code.py")]
    run = Path(load_config(toml).out)
    assert main(["train", str(toml), "--dry-run", *flags]) == 0
    assert "first_task(share=0.5) → adam(lr)" in capsys.readouterr().out
    assert main(["train", str(toml), *flags]) == 0
    unregister("first_task")
    capsys.readouterr()
    assert main(["evaluate", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((run / "results.json").read_text())["dev"]
    assert main(["predict", str(run)]) == 0
    assert main(["export", str(run), "--format", "hf"]) == 0
    capsys.readouterr()
    assert main(["train", str(toml), "--resume"]) == 2
    err = capsys.readouterr().err
    assert "optimizer[0] = 'first_task(share=0.5)': unknown transformation 'first_task'" in err
    assert "--plugins FILE can add one" in err
    assert main(["train", str(toml), "--resume", *flags]) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\nx +\n", "my_code.py:2: SyntaxError: invalid syntax"),
        ("x = '\0'\n", "my_code.py: SyntaxError: source code string cannot contain null bytes"),
        ("import json\n\njson.loads('')\n", "my_code.py:3: JSONDecodeError: Expecting value"),
        ("def f():\n    return y\nf()\n", "my_code.py:2: NameError: name 'y' is not defined"),
        (
            "import mtbert_jax as mt\n\nmt.register_aggregator('pcgrad')(lambda gramian, state, key, losses: 0)\n",
            "my_code.py:3: 'pcgrad' cannot be registered",
        ),
        ("import sys\n\nsys.exit(0)\n", "my_code.py:3: SystemExit: 0"),
        ("raise SystemExit('bye')\n", "my_code.py:1: SystemExit: bye"),
        ("import no_such_module_here\n", "my_code.py:1: ModuleNotFoundError: No module named 'no_such_module_here'"),
    ],
)
def test_a_plugin_that_fails_is_named_by_its_line(
    text: str, expected: str, toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_code.py").write_text(text)
    assert main(["train", str(toml), "--plugins", str(tmp_path / "my_code.py")]) == 2
    err = capsys.readouterr().err
    assert f"mtbert: {tmp_path}/{expected}" in err
    assert err.count("\n") == 1


def test_ctrl_c_in_a_plugin_is_the_users(toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my_code.py").write_text("raise KeyboardInterrupt\n")
    assert main(["train", str(toml), "--plugins", str(tmp_path / "my_code.py")]) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["nowhere.py", "tiny.toml", "."])
def test_what_is_no_python_file_is_refused(
    name: str, toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(toml), "--plugins", str(tmp_path / name)]) == 2
    assert "there is no such Python file" in capsys.readouterr().err


def test_two_plugins_of_one_name_are_refused(toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "my_code.py", tmp_path / "other" / "my_code.py"
    second.parent.mkdir()
    second.write_text(PLUGIN.replace("= 1.0", "= 2.0"))
    assert main(["train", str(toml), "--dry-run", "--plugins", str(first), str(first)]) == 0
    assert main(["train", str(toml), "--dry-run", "--plugins", str(first), str(second)]) == 2
    assert f"--plugins {second}: {first} has the same name; give one of the two another" in capsys.readouterr().err


def test_no_config_can_name_a_plugin(toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toml.write_text('plugins = ["my_code.py"]\n' + toml.read_text())
    assert main(["train", str(toml)]) == 2
    assert "unknown key 'plugins'" in capsys.readouterr().err
    assert "mtbert_plugin_my_code" not in sys.modules


def test_ablate_passes_plugins_on(toml: Path, tmp_path: Path) -> None:
    flags = ["--plugins", str(tmp_path / "my_code.py")]
    given, configs, overrides = parse_ablate([str(toml), "--seeds", "0", "--out", str(tmp_path / "out"), "--", *flags])
    (cell,) = plan_runs(configs, given.seeds, given.out, overrides)
    assert cell.command[-2:] == flags
    assert "mtbert_plugin_my_code" not in sys.modules  # the runs' affair


@pytest.mark.slow
def test_an_ablation_trains_with_a_plugin(toml: Path, tmp_path: Path) -> None:
    flags = ["--plugins", str(tmp_path / "my_code.py")]
    assert main(["ablate", str(toml), "--seeds", "0", "--out", str(tmp_path / "out"), "--", *flags]) == 0
    assert (tmp_path / "out" / "tiny" / "seed0" / "results.json").is_file()
