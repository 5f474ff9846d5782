"""The targets that workers' own reports give to Prometheus, and the power of a found settings file."""

from __future__ import annotations

import subprocess

import pytest

from svc.domain.commands import Hello
from svc.telemetry.routes import discovered
from tests.support.manager import running_manager
from tests.support.svc import SVC, environment


@pytest.mark.parametrize(
    "said",
    ["169.254.169.254:9101", "0.0.0.0:9101", "metadata.internal:9101", "10.0.0.1:9101", "[fd00::1]:9101"],
)
def test_the_manager_tells_the_address_that_it_saw(said):
    with running_manager() as manager:
        hello = Hello(1, "worker", "w", "w", "evil.example", 1, http=said)
        with manager.broker(lambda: hello) as worker:
            worker.connect()
            (found,) = discovered(manager.server.ask(manager.host.workers).result(30) or [])
    assert found["targets"] == ["127.0.0.1:9101"]
    assert isinstance(found["labels"], dict)
    assert found["labels"]["host"] == "evil.example"


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o757])
def test_a_worker_runs_no_code_that_a_found_settings_file_names(tmp_path, mode):
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "svc.toml").write_text('[worker]\ntasks = ["evil"]\n')
    (folder / "evil.py").write_text("open('ran', 'w')")
    folder.chmod(mode)
    ended = subprocess.run(
        [*SVC, "worker"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert "svc --config svc.toml" in ended.stderr
    assert not (folder / "ran").exists()
