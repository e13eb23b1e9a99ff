"""The package as it is installed elsewhere."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import mtbert_jax as mt
from mtbert_jax.config import Config, save_config

ROOT = Path(mt.__file__).parents[1]


def test_the_citation_names_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == mt.__version__
    assert cited["license"] == "Apache-2.0"
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert all({"type", "title", "authors"} <= set(reference) for reference in cited["references"])


def needed(requirements: list[str], found: dict[str, metadata.Distribution]) -> None:
    """Adds all distributions that these requirements need here, and those that they need, to `found`."""
    for requirement in map(Requirement, requirements):
        extras = requirement.extras or {""}
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            continue
        name = requirement.name.lower().replace("_", "-")
        if name not in found:
            found[name] = metadata.distribution(name)
            needed(found[name].requires or [], found)


def link(distributions: dict[str, metadata.Distribution], site: Path) -> None:
    """Makes distributions of this environment those of another one, by links."""
    for distribution in distributions.values():
        for part in {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not (site / part).exists():
                (site / part).symlink_to(Path(str(distribution.locate_file(part))).resolve())


@pytest.mark.slow
def test_the_wheel_works_without_development_tools(config: Config, tmp_path: Path) -> None:
    source, wheels, venv = tmp_path / "source", tmp_path / "wheels", tmp_path / "venv"
    source.mkdir()
    shutil.copytree(ROOT / "mtbert_jax", source / "mtbert_jax", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}

    def run(*command: str | Path) -> str:
        words = list(map(str, command))
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr
        return done.stdout

    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", source, "--no-deps", "--wheel-dir", wheels)
    (wheel,) = wheels.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "mtbert_jax/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "examples/"))]
    assert {name for name in names if name.startswith("mtbert_jax/")} == {
        f"mtbert_jax/{path.relative_to(source / 'mtbert_jax').as_posix()}"
        for path in (source / "mtbert_jax").rglob("*")
        if path.is_file()
    }

    run(sys.executable, "-m", "venv", "--without-pip", venv)
    run(*pip, "--python", venv / "bin" / "python", "install", "--no-deps", "--no-index", wheel)
    (site,) = (venv / "lib").glob("python*/site-packages")
    (own,) = site.glob("mtbert_jax-*.dist-info")
    found: dict[str, metadata.Distribution] = {}
    needed(metadata.Distribution.at(own).requires or [], found)
    link(found, site)

    python, mtbert = venv / "bin" / "python", venv / "bin" / "mtbert"
    there = "import importlib.util as u; print([n for n in {!r} if u.find_spec(n)])"
    tools = ["pytest", "hypothesis", "matplotlib", "torch", "transformers", "tensorboardX", "wandb"]
    assert run(python, "-c", there.format(tools)).strip() == "[]"
    assert str(site) in run(python, "-c", "import mtbert_jax; print(mtbert_jax.__file__)")
    assert run(mtbert, "--version").startswith(f"mtbert_jax {mt.__version__}, jax ")
    assert run(python, "-m", "mtbert_jax", "--help").startswith("usage: mtbert")
    save_config(config, tmp_path / "tiny.toml")
    assert "run folder: " in run(mtbert, "train", tmp_path / "tiny.toml", "--steps", "1")
    assert (Path(config.out) / "results.json").is_file()
