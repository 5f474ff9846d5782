"""The help of `svc` itself, made from the table of verbs: so it need not wait for the parser's library.

A test compares this text with the output of that library: they must be equal.
"""

from __future__ import annotations

import os
import sys

from svc.cli.verbs import PROGRAM

#: Columns to which the text is wrapped, also on wider terminals.
COLUMNS = 80
_HEAD = """\
Usage: svc [OPTIONS] COMMAND [ARGS]...

  {summary}

Options:
  --config FILE  Settings file; else ./svc.toml if there is one.  [env var:
                 SVC_CONFIG]
  --version      Print the version and exit.
  -h, --help     Show this message and exit.

Commands:
"""


def print_help() -> bool:
    """Print the help of `svc` itself; return False if the program has to do it."""
    if not _fits():
        return False
    width = max(map(len, PROGRAM.verbs))
    lines = [f"  {name.ljust(width)}  {verb.summary}\n" for name, verb in PROGRAM.verbs.items()]
    try:
        sys.stdout.write(_HEAD.format(summary=PROGRAM.summary) + "".join(lines))
        sys.stdout.flush()
    except BrokenPipeError:
        return False
    return True


def _fits() -> bool:
    """Return whether the terminal is wide enough for the text."""
    try:
        columns = int(os.environ.get("COLUMNS") or 0) or os.get_terminal_size(sys.stdout.fileno()).columns
    except (ValueError, OSError):
        return True
    return columns >= COLUMNS
