"""`python -m tests.fault.run --seed 1 --minutes 5`: run the fault suite and print its table."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.fault.campaign import Campaign
from tests.fault.deck import DECKS
from tests.fault.journal_rows import run_journal_tests
from tests.support.findings import Findings, table


def main() -> int:
    """Run one campaign; keep its folder if there is a violation."""
    told = _parser().parse_args()
    folder = Path(tempfile.mkdtemp(prefix="svc-faults-"))
    started = time.monotonic()
    findings = Campaign(folder, told.seed, told.kind, journal=told.journal, progress=True).run(
        told.minutes * 60
    )
    text = _report(findings, told, time.monotonic() - started)
    bad = 0
    if told.journal_tests:
        rows, bad = run_journal_tests()
        text += f"\n{rows}\n\n{bad or 'None'} of the journal's tests failed or did not run.\n"
    sys.stdout.write(text)
    if told.table is not None:
        told.table.write_text(text, encoding="utf-8")
    if not findings.violations and not bad:
        shutil.rmtree(folder)
        return 0
    sys.stdout.write(f"\nall records are in {folder}\n")
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Break a whole service on purpose and check its promises.")
    parser.add_argument("--seed", type=int, default=1, help="deals the faults")
    parser.add_argument(
        "--minutes", type=float, default=3.0, help="at least one round of all faults is dealt"
    )
    parser.add_argument("--journal", choices=sorted(DECKS), default="sqlite", help="where the queue is kept")
    parser.add_argument(
        "--kind", action="append", default=[], metavar="FAULT", help="deal only this kind; may be repeated"
    )
    parser.add_argument("--table", type=Path, metavar="FILE", help="write the table there, too")
    parser.add_argument("--journal-tests", action="store_true", help="run these too, and add their rows")
    return parser


def _report(findings: Findings, told: argparse.Namespace, seconds: float) -> str:
    """Return the text that `docs/guarantees.md` contains: the command, the table, the violations."""
    count = len(findings.violations)
    how = (
        f"`python -m tests.fault.run --journal {told.journal} --seed {told.seed} "
        f"--minutes {told.minutes:g}`, {seconds:.0f} s in all, "
        f"CPython {platform.python_version()}, Linux {platform.release()}, {os.cpu_count()} CPUs; "
        f"{count or 'no'} violation{'' if count == 1 else 's'}:"
    )
    lines = [how, "", table(findings), ""]
    if count:
        lines += [*(f"- {violation}" for violation in findings.violations[:50]), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
