"""The first help, written from the table of verbs: `svc --help` need not wait for the library that parses.

A test holds this text to be, letter for letter, what that library would print.
"""

from __future__ import annotations

import os
import sys

from svc.cli.verbs import PROGRAM

#: Columns that the text is wrapped for; wider terminals get the same.
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


def overview() -> str:
    """Return the help of `svc` itself."""
    width = max(map(len, PROGRAM.verbs))
    lines = [f"  {name.ljust(width)}  {verb.summary}\n" for name, verb in PROGRAM.verbs.items()]
    return _HEAD.format(summary=PROGRAM.summary) + "".join(lines)


def fits() -> bool:
    """Return whether the reader's terminal is wide enough for it."""
    try:
        columns = int(os.environ.get("COLUMNS") or 0) or os.get_terminal_size(sys.stdout.fileno()).columns
    except (ValueError, OSError):
        return True
    return columns >= COLUMNS
