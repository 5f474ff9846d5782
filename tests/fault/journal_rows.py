"""The rows of the journal's own fault tests, which break a file or a disk and not a whole service.

Each of these tests records how often it did what, once nothing was lost: the rows are what a run has said.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.support.processes import ROOT

_HEAD = """\
| fault of the journal alone | times | acknowledged and lost |
|---|---:|---:|"""


def run_journal_tests() -> tuple[str, int]:
    """Run the tests; return the table of what they did, and how many of them failed or were skipped."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        # The newer form of the report has no place for what a test records.
        reporting = ("-o", "junit_family=legacy", f"--junitxml={report}")
        tests = sorted(str(path) for path in Path(__file__).parent.glob("test_journal_*.py"))
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *reporting, *tests],
            cwd=ROOT, stdout=sys.stderr, check=False,
        )  # fmt: skip
        suite = ET.parse(report).getroot()
    counts = Counter[str]()
    for each in suite.iter("property"):
        counts[each.attrib["name"]] += int(each.attrib["value"])
    bad = sum(1 for name in ("failure", "error", "skipped") for _ in suite.iter(name))
    rows = [f"| {name} | {count:,} | 0 |" for name, count in sorted(counts.items())]
    return "\n".join([_HEAD, *rows]), bad
