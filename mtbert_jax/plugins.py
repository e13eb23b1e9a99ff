"""Python files that a person names on the command line, and that are run: the only code that is not the library's.

No config, checkpoint or data file can name one (tests/test_safety.py).
"""

import importlib.util
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from mtbert_jax.errors import InputError, first_line


def run_plugins(paths: Sequence[Path]) -> None:
    """Runs Python files, each as a module ``mtbert_plugin_<name>``; an `InputError` says where one fails."""
    names = {path.stem: path for path in reversed(paths)}
    for path in paths:
        if (first := names[path.stem]).absolute() != path.absolute():
            raise InputError(f"--plugins {path}: {first} has the same name; give one of the two another")
        name = f"mtbert_plugin_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path) if path.is_file() else None
        if spec is None or spec.loader is None:
            raise InputError(f"--plugins {path}: there is no such Python file (a name that ends with .py)")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # as after any import: dataclasses and the like look there
        try:
            spec.loader.exec_module(module)
        except InputError as error:
            raise InputError(f"{_place(path, error)}: {error}") from None
        except (Exception, SystemExit) as error:  # whatever the file does
            raise InputError(f"{_place(path, error)}: {type(error).__name__}: {first_line(error)}") from error


def _place(path: Path, error: BaseException) -> str:
    """The plugin's own line in an error's traceback."""
    if isinstance(error, SyntaxError):
        return f"{path}:{error.lineno}" if error.lineno else str(path)
    own = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path.absolute()
    ]
    return f"{path}:{own[-1]}" if own else str(path)
