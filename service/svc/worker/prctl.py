"""Per-process settings of Linux with prctl(2), for which Python has no function."""

from __future__ import annotations

import ctypes

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER = 36, 37


def prctl(option: int, argument: object) -> None:
    """Set *option* of this process to *argument*, or read it into the object that *argument* points to.

    On Linux only.


    A kernel without the option changes nothing.
    """
    ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0)
