"""Nothing that is read is ever run: no pickle, no eval, no import by a name from a file."""

import ast
from pathlib import Path

import pytest

import mtbert_jax
from mtbert_jax.config import Config, StageConfig, TaskConfig
from mtbert_jax.config.schema import to_dict

FILES = sorted(Path(mtbert_jax.__file__).parent.rglob("*.py"))
RUNS_CODE = {"eval", "exec", "compile", "__import__", "execfile", "input"}
MODULES = {
    "pickle",
    "cPickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "importlib",
    "runpy",
    "yaml",
    "torch",
}
LOADERS = {"load", "fromfile", "memmap"}


ALLOWED = {"plugins.py": ["line 6: importlib.util"]}
"""What a person names on the command line is run, by one file in one way, and nothing else is."""


def faults(source: str) -> list[str]:
    """What a file does that it must not, one line each."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in RUNS_CODE:
                found.append(f"line {node.lineno}: {name}()")
            case ast.Import(names=names):
                found += [f"line {node.lineno}: {a.name}" for a in names if a.name.partition(".")[0] in MODULES]
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in MODULES:
                found.append(f"line {node.lineno}: {module}")
            case ast.Call(func=ast.Attribute(value=ast.Name(id="np" | "jnp" | "numpy"), attr=name)) if name in LOADERS:
                safe = any(
                    k.arg == "allow_pickle" and isinstance(k.value, ast.Constant) and k.value.value is False
                    for k in node.keywords
                )
                if not safe:
                    found.append(f"line {node.lineno}: np.{name} without allow_pickle=False")
            case ast.keyword(arg="shell", value=ast.Constant(value=True)):
                found.append(f"line {node.value.lineno}: a shell")
            case ast.Attribute(attr="system" | "popen", value=ast.Name(id="os")):
                found.append(f"line {node.lineno}: os.{node.attr}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(FILES[0].parent).as_posix())
def test_no_file_of_the_library_runs_what_it_reads(path: Path) -> None:
    name = path.relative_to(FILES[0].parent).as_posix()
    assert faults(path.read_text(encoding="utf-8")) == ALLOWED.get(name, [])


def test_only_the_command_line_runs_plugins() -> None:
    """Nothing else so much as imports the file that does, and no field of a config can name one."""
    importers = [path.name for path in FILES if "mtbert_jax.plugins" in path.read_text(encoding="utf-8")]
    assert importers == ["main.py"]
    assert "plugin" not in str(to_dict(Config(tasks=(TaskConfig(),), stages=(StageConfig(),))))


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "exec('x')",
        "import pickle",
        "import os, marshal",
        "from importlib import import_module",
        "import torch.nn",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run('ls', shell=True)",
        "os.system('ls')",
        "__import__('os')",
    ],
)
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert len(faults(source)) == 1


def test_the_search_lets_the_harmless_pass() -> None:
    assert faults("import re\nre.compile('x')\nnp.load(path, allow_pickle=False)\nmodel.eval()\n") == []
