"""Write the list of svc's packages as a CycloneDX document: `make sbom`.

The packages are those of `requirements.lock`, with hashes. The document is checked against CycloneDX's own
schema, and is always the same for the same lock.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.peers.environments import ROOT, interpreter

LOCK = Path(__file__).parent / "locks" / "audit.lock"
LISTED = ROOT / "requirements.lock"
OUTPUT = ROOT / "build" / "svc.cdx.json"


def main() -> int:
    """Write the document; return the exit code."""
    OUTPUT.parent.mkdir(exist_ok=True)
    flags = ["--mc-type", "application", "--output-reproducible", "--validate", "--of", "JSON"]
    # It warns that a lock has no dependency graph, which is true and does not matter here.
    program = [str(interpreter(LOCK)), "-W", "ignore::UserWarning", "-m", "cyclonedx_py", "requirements"]
    named = ["--pyproject", str(ROOT / "pyproject.toml"), "--output-file", str(OUTPUT)]
    made = subprocess.run([*program, str(LISTED), *flags, *named], check=False)
    if made.returncode:
        return made.returncode
    document = json.loads(OUTPUT.read_text(encoding="utf-8"))
    listed, pinned = len(document["components"]), _pinned()
    if listed != pinned:
        sys.stderr.write(f"the document has {listed} components and {LISTED.name} {pinned}\n")
        return 1
    kind = f"CycloneDX {document['specVersion']}, valid"
    sys.stderr.write(f"{OUTPUT.relative_to(ROOT)}: {listed} components, {kind}\n")
    return 0


def _pinned() -> int:
    return sum("==" in line and not line.startswith((" ", "#")) for line in LISTED.read_text().splitlines())


if __name__ == "__main__":
    sys.exit(main())
