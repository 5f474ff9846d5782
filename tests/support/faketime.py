"""A time of day that jumps, for one process: libfaketime, controlled by a file."""

from __future__ import annotations

from pathlib import Path

_LIBRARIES = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib/faketime/libfaketime.so.1")


class Clock:
    """The time of day of processes that are started with `environment`; monotonic time is unchanged."""

    def __init__(self, file: Path) -> None:
        """Start with the real time; *file* has the jumps.

        Raises:
            OSError: libfaketime is not installed.
        """
        found = [path for pattern in _LIBRARIES for path in Path("/").glob(pattern.lstrip("/"))]
        if not found:
            raise OSError("there is no libfaketime (Debian: faketime)")
        self._file = file
        self.jump(0)
        self.environment = {
            "LD_PRELOAD": str(found[0]),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, seconds: int) -> None:
        """Shift the time of day by *seconds* from now on."""
        # Replaced and not rewritten, so that a reader never finds an empty file.
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._file)
