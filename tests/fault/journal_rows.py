"""The rows of the journal's own fault tests, which damage a file or a disk and not a whole service.

After a test has found no loss, it records how often it injected each fault: these numbers are the rows.
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
    """Run the tests; return the table of their faults, and the number of failed and skipped tests."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        # The newer form of the report cannot hold the records of a test.
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
