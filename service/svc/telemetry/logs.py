"""Sets up structured logging: one record a line on stderr, as JSON, or as columns on a terminal.

All modules of svc log with `structlog.get_logger()`; only this module sets the stream and the format. Records
that task code logs with the `logging` module have the same stream and format.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import partial
from typing import Literal

import structlog
from structlog.processors import format_exc_info
from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_logger_name
from structlog.typing import Processor

from svc.errors import ConfigurationError
from svc.lines import LineWriter
from svc.telemetry.events import repeating_events
from svc.telemetry.records import (
    AddTime,
    BoundedRenderer,
    DropRepeats,
    Renderer,
    add_fields,
    name_foreign,
    printable,
    redact,
    to_json,
)

Format = Literal["auto", "json", "console"]

_STDERR = 2
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


@dataclass(frozen=True, slots=True)
class LogSettings:
    """The log settings of a process.

    They can be pickled, and so can their `configure`: a supervisor passes it to each consumer.

    Attributes:
        format: `json`, `console`, or `auto`: console if stderr is a terminal, else JSON.
        level: `debug`, `info`, `warning` or `error`; records below it cost almost nothing.
        worker: the worker's name in every record, if not empty.
        consumer: the consumer's name in every record, if not empty.
    """

    format: Format = "auto"
    level: str = "info"
    worker: str = ""
    consumer: str = ""

    def configure(self, descriptor: int = _STDERR) -> None:
        """Let this process log with these settings, on *descriptor*.

        It may be called again, also after a fork.

        Raises:
            ConfigurationError: there is no such format or level.
        """
        if self.level not in _LEVELS:
            raise ConfigurationError(f"no log level {self.level!r}; use one of {', '.join(_LEVELS)}")
        if self.format not in ("auto", "json", "console"):
            raise ConfigurationError(f"no log format {self.format!r}; use auto, json or console")
        first, last = self._first_steps(self.consumer), self._last_steps(descriptor)
        writer = LineWriter(descriptor)
        structlog.configure(
            processors=[structlog.contextvars.merge_contextvars, *first, *last],
            wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[self.level]),
            logger_factory=lambda *_: _StderrLogger(writer),
            cache_logger_on_first_use=True,
        )
        self._bridge_logging(writer, first, last)

    def _first_steps(self, consumer: str) -> list[Processor]:
        writer = {"worker": self.worker, "consumer": consumer}
        return [
            DropRepeats(repeating_events()),
            structlog.processors.add_log_level,
            partial(add_fields, {name: value for name, value in writer.items() if value}),
            AddTime(),
        ]

    def _last_steps(self, descriptor: int) -> list[Processor]:
        return [format_exc_info, redact, BoundedRenderer(self._renderer(os.isatty(descriptor)))]

    def _renderer(self, terminal: bool) -> Renderer:
        if self.format == "json" or (self.format == "auto" and not terminal):
            return to_json
        console = structlog.dev.ConsoleRenderer(
            colors="NO_COLOR" not in os.environ and terminal,
            exception_formatter=structlog.dev.plain_traceback,
        )
        return lambda logger, method, record: str(console(logger, method, printable(logger, method, record)))

    def _bridge_logging(self, writer: LineWriter, first: list[Processor], last: list[Processor]) -> None:
        handler = _StderrHandler(writer)
        handler.setFormatter(
            ProcessorFormatter(
                foreign_pre_chain=[
                    structlog.contextvars.merge_contextvars,
                    name_foreign,
                    *first,
                    add_logger_name,
                    ExtraAdder(),
                ],
                processors=[ProcessorFormatter.remove_processors_meta, *last],
            )
        )
        root = logging.getLogger()
        root.handlers[:] = [handler]
        root.setLevel(_LEVELS[self.level])


class _StderrLogger:
    """Writes the finished text from structlog."""

    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer

    def msg(self, text: str) -> None:
        _write(self._writer, text)

    debug = info = warning = error = critical = exception = fatal = msg


class _StderrHandler(logging.Handler):
    """Writes the records of the `logging` module."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            _write(self._writer, self.format(record))
        except Exception:  # noqa: BLE001 - as in every handler, a record that cannot be formatted is reported
            self.handleError(record)


def _write(writer: LineWriter, text: str) -> None:
    # Without a buffer, no line is split, and no line is lost if the process is killed.
    if writer.write(text.encode(errors="backslashreplace") + b"\n") and writer.dropped:
        log = structlog.get_logger()
        log.warning("log_lines_dropped", count=writer.take_dropped())
