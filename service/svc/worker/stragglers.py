"""Ends the processes that an attempt has left behind, in the process of its consumer."""

from __future__ import annotations

import os
import time
from collections.abc import Collection

from svc.worker import control_group
from svc.worker.offspring import (
    END_SECONDS,
    Process,
    children_check,
    collect_children,
    descendants,
    end_descendants,
    has_children,
)
from svc.worker.process import helper_pids


def end_stragglers(keep: Collection[Process] = ()) -> None:
    """Kill the processes below this one but *keep*, and collect them; a microsecond if there is none.

    The helper processes of multiprocessing live on, too: other tasks rely on them.
    """
    if not children_check()():
        return
    helpers = helper_pids()
    if not keep:
        control_group.end_others(helpers)
    deadline = time.monotonic() + END_SECONDS
    while True:
        end_descendants(os.getpid(), keep=keep, helpers=helpers)
        collect_children(keep)
        # A child that no search finds is one that forks all the time.
        if not has_children() or descendants(os.getpid()) or time.monotonic() > deadline:
            return
