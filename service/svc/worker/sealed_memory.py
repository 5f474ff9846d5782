"""Memory that processes share, and that none of them can make smaller or larger.

A task can reach the descriptors of its process. Were the memory a usual file, a task that truncates it would
end the supervisor: the kernel sends SIGBUS to whoever reads beyond the end of a file.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
import tempfile
from collections.abc import Callable
from multiprocessing import reduction
from typing import Any, Final

_NAME: Final = "svc-slot"


class SealedMemory:
    """Some bytes, all 0 at first, to be passed to one process while that is started.

    Args:
        size: the number of bytes.
        descriptor: that of memory which another process has made; without it, new memory is made.

    Attributes:
        view: the bytes.

    Raises:
        OSError: the system has no room for it, or no descriptor.
    """

    __slots__ = ("_descriptor", "_mapped", "_size", "view")

    def __init__(self, size: int, descriptor: int = -1) -> None:
        self._size = size
        self._descriptor = descriptor if descriptor >= 0 else _sealed(size)
        self._mapped = mmap.mmap(self._descriptor, size)
        self.view = memoryview(self._mapped)

    def __reduce__(self) -> tuple[Callable[[int, Any], SealedMemory], tuple[int, Any]]:
        """Return the parts from which another process maps the same memory."""
        return _attached, (self._size, reduction.DupFd(self._descriptor))

    def passed(self) -> None:
        """Close the descriptor that only a process to be started needs; the memory stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def close(self) -> None:
        """Give the memory back to the system, with the descriptor of its mapping: nobody uses it any more.

        Else they stay for as long as anything refers to it, such as the traceback of a broken connection.
        """
        self.passed()
        self.view.release()
        self._mapped.close()

    def __del__(self) -> None:
        """Leave no descriptor behind if no process was started."""
        if hasattr(self, "_descriptor"):
            self.passed()


def _attached(size: int, passed: Any) -> SealedMemory:
    memory = SealedMemory(size, passed.detach())
    memory.passed()
    return memory


def _sealed(size: int) -> int:
    """Return the descriptor of new memory; outside Linux that is a file, which nothing seals."""
    if sys.platform != "linux":
        with tempfile.TemporaryFile() as file:
            file.truncate(size)
            return os.dup(file.fileno())
    descriptor = os.memfd_create(_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        fcntl.fcntl(
            descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        )
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
