"""The command line. Importing this costs nothing: `svc health` must answer at once."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `svc` with the process's arguments, and exit."""
    if sys.argv[1:2] == ["health"]:
        from service import health

        sys.exit(health.main(sys.argv[2:]))
    from service.cli.program import run

    sys.exit(run(sys.argv[1:]))
