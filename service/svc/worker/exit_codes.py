"""The exit codes of shell commands, and how an error says them: an error has no field for one."""

from __future__ import annotations

import re

from svc.domain.job import ErrorInfo

#: The errors of a command that has ended, and of one that did not begin.
FAILED, NOT_BEGUN = "CommandFailed", "CommandNotStarted"
#: The exit codes of a shell for a program that is not there, and for one that cannot be started.
NOT_FOUND, NOT_STARTED = 127, 126
#: Added to the number of the signal that killed a command, as a shell does.
KILLED = 128
#: How the message begins if the program is not there.
MISSING = "this worker has no program"
_ENDED = re.compile(r"exit code (\d+)|killed by signal (\d+)")


def shown(code: int) -> int:
    """Return the exit code as a shell shows it; a negative *code* is the number of a signal."""
    return code if code >= 0 else KILLED - code


def exit_code_of(error: ErrorInfo) -> int | None:
    """Return the exit code of a command that ended with *error*, as `--retry-on` counts it.

    None if it had none, as after its timeout, or if the error is hidden.
    """
    if error.type == NOT_BEGUN and error.message:
        return NOT_FOUND if error.message.startswith(MISSING) else NOT_STARTED
    found = _ENDED.match(error.message) if error.type == FAILED else None
    if found is None:
        return None
    code, signal = found.groups()
    return int(code) if code else shown(-int(signal))
