"""Import this in a forkserver: it imports the user's modules of `--preload`, once for all consumers.

Consumers are forked from that process, so they share the memory pages of these modules as long as nobody
writes to them. The import alone arranges that; `REPORT` says how it went.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import threading
from pathlib import Path
from typing import Final, NamedTuple

from svc.worker.code_version import note
from svc.worker.preloading import VARIABLE
from svc.worker.registry import place_of

_THREADS: Final = Path("/proc/self/task")


class PreloadReport(NamedTuple):
    """The result of the imports.

    Attributes:
        error: the reason why a module could not be imported, or "".
        threads: the threads that the modules have started: their names, and the number of those without one.
    """

    error: str = ""
    threads: str = ""


def _loaded(announced: str) -> PreloadReport:
    sys.path[:], modules = json.loads(announced)
    for module in modules:
        try:
            importlib.import_module(module)
        except BaseException as error:  # noqa: BLE001 - a module may raise anything, and the forkserver must live
            cause = f"{type(error).__name__}: {error}{place_of(error)}"
            return PreloadReport(f"the module {module!r} of --preload cannot be imported: {cause}")
    note()
    # A collection in a consumer would write to the pages of all objects, and they would be shared no more.
    gc.collect()
    gc.freeze()
    return PreloadReport(threads=_threads())


def _threads() -> str:
    named = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    count = len(list(_THREADS.iterdir())) if _THREADS.exists() else threading.active_count()
    unnamed = count - 1 - len(named)
    return ", ".join([*named, *([f"{unnamed} of a library"] if unnamed > 0 else [])])


REPORT = _loaded(os.environ.pop(VARIABLE)) if VARIABLE in os.environ else PreloadReport()
