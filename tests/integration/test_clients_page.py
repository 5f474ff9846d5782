"""The example of docs/clients.md for stock clients runs in a process of its own, and prints what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from svc.domain.limits import Limits
from svc.server.keys import KeyRing
from tests.support.manager import running_manager
from tests.support.readme import blocks
from tests.support.svc import ROOT

_KEY = b"k" * 32
_TEXT = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")


def test_the_stock_client_of_the_page_waits_for_room(tmp_path: Path) -> None:
    (program,) = (each for each in blocks(_TEXT, "python") if "BaseManager" in each)
    with running_manager(limits=Limits(max_queue_jobs=2), keys=KeyRing.of_authkey(_KEY)) as manager:
        host, port = manager.endpoint[:2]
        (tmp_path / "authkey").write_bytes(_KEY + b"\n")
        done = subprocess.run(
            [sys.executable, "-c", program.replace('"queue-host", 7077', f'"{host}", {port}')],
            cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    assert done.stdout.splitlines() == ["True 2", "no room within 0.1 s", "a False"], done.stderr
