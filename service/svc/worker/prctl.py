"""Settings that Linux keeps for each process, by prctl(2), for which Python has no function."""

from __future__ import annotations

import ctypes

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER = 36, 37


def prctl(option: int, argument: object) -> None:
    """Set *option* of this process to *argument*, or read it into what *argument* points to; on Linux only.

    A kernel that does not know the option changes nothing.
    """
    ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0)
