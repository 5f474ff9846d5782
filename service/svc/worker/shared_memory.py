"""Makes slots in shared memory, and says why the system has no room for one."""

from __future__ import annotations

import errno
from multiprocessing.context import BaseContext
from typing import Final

from svc.worker.slot import Slot

#: The directory in which multiprocessing makes semaphores and shared arrays.
_SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108  # named in an error, not used
_CLOSED: Final = "cannot be written by this user"
#: What the error's number means there; any other one is no fault of that directory.
_SHARED_MEMORY_STATES: Final = {
    errno.ENOENT: "is missing",
    errno.ENOTDIR: "is missing",
    errno.ENOSYS: "is missing, or no file system in memory",
    errno.ENOSPC: "is full",
    errno.EDQUOT: "is full",
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
    errno.EROFS: _CLOSED,
}


def make_slot(context: BaseContext) -> Slot:
    """Return a new slot.

    Raises:
        OSError: there is no room for it; says where.
    """
    try:
        return Slot(context)
    except OSError as error:
        state = _SHARED_MEMORY_STATES.get(error.errno or 0)
        if state is None:
            raise
        raise OSError(
            f"{_SHARED_MEMORY} {state}; a worker's processes have their locks and shared memory there: mount "
            "a tmpfs of some MiB on it (in containers `--shm-size` or `shm_size`), make room, or let this "
            "user write there"
        ) from None
