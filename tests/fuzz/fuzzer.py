"""One target under atheris: `python -m tests.fuzz.fuzzer TARGET [flags of libFuzzer]`, started by `run`.

atheris measures the coverage of `service` only. The process exits with 77 at a finding.
"""

from __future__ import annotations

import logging
import sys

import atheris
import structlog

with atheris.instrument_imports(include=["svc"]):
    from tests.fuzz.oracle import Watch, limit_memory
    from tests.fuzz.targets import TARGETS

#: Bytes by which the memory of the process may exceed that at its start.
MEMORY_BYTES_MAX = 512 * 1024 * 1024


def main(target: str, flags: list[str]) -> None:
    """Fuzz until a flag ends it, or there is a finding; does not return."""
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
