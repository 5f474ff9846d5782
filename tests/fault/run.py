"""`python -m tests.fault.run --seed 1 --minutes 5`: run the fault suite and print its table."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.fault.campaign import Campaign
from tests.support.checker import table


def main() -> int:
    """Run one campaign; its folder is kept where something is wrong."""
    parser = argparse.ArgumentParser(description="Break a whole service on purpose and check its promises.")
    parser.add_argument("--seed", type=int, default=1, help="deals the faults")
    parser.add_argument(
        "--minutes", type=float, default=3.0, help="at least one round of all faults is dealt"
    )
    told = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="svc-faults-"))
    started = time.monotonic()
    verdict = Campaign(folder, told.seed, progress=True).run(told.minutes * 60)
    write = sys.stdout.write
    write(f"seed {told.seed}, {time.monotonic() - started:.0f} s in all\n\n{table(verdict)}\n")
    if not verdict.violations:
        shutil.rmtree(folder)
        return 0
    write(f"\n{len(verdict.violations)} violations; all records are in {folder}\n")
    for violation in verdict.violations[:50]:
        write(f"  {violation}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
