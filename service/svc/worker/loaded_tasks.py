"""The tasks of a worker as its consumers load them, and the version of their code."""

from __future__ import annotations

import structlog

from svc.errors import ConfigurationError
from svc.worker.consumer_exit import ConsumerExit, Killed
from svc.worker.options import WorkerOptions
from svc.worker.process import describe_exit

#: Consumers that may end while they import the task modules, before any consumer has finished that.
_FAILED_STARTS_MAX = 3


class LoadedTasks:
    """Takes the news of consumers that have loaded the tasks, or ended before that.

    Args:
        options: the settings of the worker.
        log: its log.

    Attributes:
        names: the names of the tasks.
        known: whether a consumer has loaded them.
        reloading: whether a reload goes on since a consumer has loaded the code last.
    """

    def __init__(self, options: WorkerOptions, log: structlog.stdlib.BoundLogger) -> None:
        self._options = options
        self._log = log
        self.names: list[str] = []
        self.known = self.reloading = False
        self._failed_starts = 0
        #: The version of the code that a consumer has loaded last.
        self._code: str | None = None

    def take(self, consumer: str, text: str) -> bool:
        """Take the message of a consumer that has loaded them; return whether it is the first one."""
        code, *self.names = text.split("\n")
        self._note_code(consumer, code)
        first, self.known = not self.known, True
        if first:
            cpu = self._options.cpu
            self._log.info(
                "worker_started",
                consumers=self._options.consumers,
                cpu=cpu.count,
                cpu_source=cpu.source,
                tasks=len(self.names),
            )
        return first

    def _note_code(self, consumer: str, code: str) -> None:
        """Note the version of the code that a consumer has loaded, and log it if that is another one."""
        if code == self._code:
            return
        log = self._log.bind(consumer=consumer, old=self._code, new=code)
        if self._code is not None and self.reloading:
            log.info("code_changed", reloaded=True)
        elif self._code is not None:
            # The other consumers go on with the old code until they are replaced.
            log.warning("code_changed", reloaded=False)
        self._code, self.reloading = code, False

    def fault(self, ended: ConsumerExit) -> ConfigurationError | None:
        """Return the reason to give up if no consumer ever finishes the import of the task modules."""
        if not ended.failed_to_start or self.known:
            return None
        self._failed_starts += 1
        if self._failed_starts < _FAILED_STARTS_MAX:
            return None
        modules = ", ".join(self._options.tasks) or "none"
        how = describe_exit(ended.code)
        if ended.killed is Killed.HUNG:
            how = f"it took longer than {self._options.import_timeout:g} s"
        said = (
            f"the process that imports the task modules ({modules}) and calls their @on_start hooks ends "
            f"each time: {how}"
        )
        return ConfigurationError("\n".join(filter(None, (said, ended.stacks))))
