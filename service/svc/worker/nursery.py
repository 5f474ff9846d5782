"""Makes a forkserver the last parent of everything below it; importing this is all that it is for.

It ends right after its supervisor, whatever ended that. Then consumers and all that their tasks have started
must not live on.
"""

from __future__ import annotations

import atexit
import os
import warnings

from svc.worker.offspring import adopt_orphans, end_descendants
from svc.worker.process import SAFE_PATH, SET_BY_SVC

_pid = os.getpid()


def _end_all() -> None:
    # A consumer, which is forked from here, has other ways to end.
    if os.getpid() == _pid:
        end_descendants(_pid)


if os.environ.get(SAFE_PATH) == SET_BY_SVC:
    del os.environ[SAFE_PATH]  # the programs that a task starts have their usual path
adopt_orphans()
atexit.register(_end_all)
# The forkserver collects orphans that have ended like its own children, and wonders about each.
warnings.filterwarnings("ignore", message="forkserver: waitpid returned unexpected pid")
