"""Import this in a forkserver to make it the last parent of all processes below it.

A forkserver ends right after its supervisor, whatever the reason. Then consumers, and all processes that
their tasks have started, must end too. The import alone arranges that.
"""

from __future__ import annotations

import atexit
import os
import warnings

from svc.worker.offspring import adopt_orphans, end_descendants
from svc.worker.process import SAFE_PATH, SET_BY_SVC

_pid = os.getpid()


def _end_all() -> None:
    # A consumer is forked from this process and ends in other ways.
    if os.getpid() == _pid:
        end_descendants(_pid)


if os.environ.get(SAFE_PATH) == SET_BY_SVC:
    del os.environ[SAFE_PATH]  # the programs that a task starts have their usual path
adopt_orphans()
atexit.register(_end_all)
# The forkserver collects ended orphans like its own children, and warns about each.
warnings.filterwarnings("ignore", message="forkserver: waitpid returned unexpected pid")
