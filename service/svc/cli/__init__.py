"""The command line. Its import is cheap, because `svc health` and `svc --help` must answer at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence

#: Exit code after Ctrl-C.
EXIT_INTERRUPTED = 130


def main() -> None:
    """Run `svc` with the process's arguments, and exit."""
    words = sys.argv[1:]
    try:
        if _serves(words):
            _ignore_reload()
        code = _run(words)
    except KeyboardInterrupt:  # also at an import below, which takes a moment
        code = EXIT_INTERRUPTED
    sys.exit(code)


def _serves(words: Sequence[str]) -> bool:
    """Return whether *words* start a manager or a worker, perhaps behind the settings file."""
    if words[:1] == ["--config"]:
        words = words[2:]
    elif words and words[0].startswith("--config="):
        words = words[1:]
    return words[:1] == ["worker"] or (words[:1] == ["manager"] and words[1:2] != ["handover"])


def _ignore_reload() -> None:
    """Ignore SIGHUP until the manager or worker handles it: what it would read again is not read yet.

    The default would end the process. `SIG_IGN` would be inherited by the programs that tasks start.
    """
    import signal

    signal.signal(signal.SIGHUP, lambda *_: None)


def _run(words: list[str]) -> int:
    if words[:1] == ["health"]:
        from svc import health

        return health.main(words[1:])
    if words in (["--help"], ["-h"]):
        from svc.cli.quick_help import print_help

        if print_help():
            return 0
    from svc.cli.program import run

    return run(words)
