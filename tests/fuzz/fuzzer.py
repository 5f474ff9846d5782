"""One target under atheris: `python -m tests.fuzz.fuzzer TARGET [flags of libFuzzer]`, started by `run`.

What atheris sees of an input's way is that through `service`. The process ends with 77 at a finding.
"""

from __future__ import annotations

import logging
import sys

import atheris
import structlog

with atheris.instrument_imports(include=["svc"]):
    from tests.fuzz.oracle import Watch, limit_memory
    from tests.fuzz.targets import TARGETS

#: Bytes that the process may have beyond what it has at its start.
MEMORY_BYTES_MAX = 512 * 1024 * 1024


def main(target: str, flags: list[str]) -> None:
    """Fuzz until a flag says that it is enough, or something is found; does not return."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    watch, look = Watch(), TARGETS[target]

    def one_input(data: bytes) -> None:
        with watch.one_input():
            look(data)

    atheris.Setup([sys.argv[0], *flags], one_input)
    limit_memory(MEMORY_BYTES_MAX)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
