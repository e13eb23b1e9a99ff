"""Completion for shells: tyro writes the scripts, from the same dataclasses that it reads commands by."""

import contextlib
import functools
import io
import operator
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import tyro

Shell = Literal["bash", "zsh", "fish"]

# Tyro's scripts complete file names after the flags that take one only. A config or a run folder stands alone: where
# there is nothing else to offer, files are offered. And bash is to look for the word that is being typed.
_FILES = (
    (
        "    # Output one completion per line.\n",
        "    completions = completions or ['__TYRO_COMPLETE_FILES__']\n\n    # Output one completion per line.\n",
    ),
    ('$(compgen -f -- "$cur")', '$(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")'),
    ("complete -F ", "complete -o filenames -F "),
)


def completion_script(shell: Shell, commands: Mapping[str, type[Any]]) -> str:
    """What a shell reads to complete ``mtbert``: commands, their flags and values, and file names."""
    kinds = [
        Annotated[takes, tyro.conf.subcommand(name, description=(takes.__doc__ or "").splitlines()[0])]
        for name, takes in commands.items()
    ]
    written = io.StringIO()
    with contextlib.redirect_stdout(written), contextlib.suppress(SystemExit):
        asked = ["--tyro-write-completion", shell, "-"]
        either: Any = functools.reduce(operator.or_, kinds)
        tyro.cli(either, prog="mtbert", args=asked, config=(tyro.conf.AvoidSubcommands,))
    script = written.getvalue()
    for theirs, ours in _FILES:
        script = script.replace(theirs, ours)
    return script
