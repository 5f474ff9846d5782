"""The targets that workers' own reports give to Prometheus, and the power of a found settings file."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from svc.domain.commands import Hello
from svc.telemetry.routes import discovered
from tests.support.manager import running_manager
from tests.support.privileges import obtained
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


def permit(name: str, mode: int) -> Callable[[Path], None]:
    return lambda folder: (folder / name).chmod(mode)


def give(name: str, user: int = -1, group: int = -1) -> Callable[[Path], None]:
    return lambda folder: obtained(lambda: os.lchown(folder / name, user, group))


def link(folder: Path) -> None:
    """Put the file into a folder that everybody can write, and a link in its place."""
    there = folder.with_name("open")
    there.mkdir()
    there.chmod(0o777)
    (folder / "svc.toml").rename(there / "svc.toml")
    (folder / "svc.toml").symlink_to(there / "svc.toml")


OTHER = 12345
#: Ways in which another user may have put the file there, each as changes of a folder of one's own.
OPEN: dict[str, list[Callable[[Path], None]]] = {
    "a folder that everybody can write": [permit(".", 0o777)],
    "a folder that everybody can write, with the sticky bit": [permit(".", 0o1777)],
    "a folder that others can write and its group cannot": [permit(".", 0o757)],
    "a folder that a group can write": [give(".", group=OTHER), permit(".", 0o775)],
    "a folder of another owner": [give(".", OTHER)],
    "a file that everybody can write": [permit("svc.toml", 0o666)],
    "a file that others can write and its group cannot": [permit("svc.toml", 0o646)],
    "a file that a group can write": [give("svc.toml", group=OTHER), permit("svc.toml", 0o664)],
    "a file of another owner": [give("svc.toml", OTHER)],
    "a link to a folder that everybody can write": [link],
    "a link of another owner": [link, give("../open", 0), permit("../open", 0o755), give("svc.toml", OTHER)],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of one's own with a settings file, which names a module that says that it ran."""
    made = tmp_path / "shared"
    made.mkdir()
    made.chmod(0o755)
    (made / "svc.toml").write_text('[worker]\ntasks = ["evil"]\n')
    (made / "svc.toml").chmod(0o644)
    (made / "evil.py").write_text("import os\nopen('ran', 'w').close()\nos._exit(9)\n")
    return made


def worker(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    key = folder.with_name("authkey")
    key.write_text("k" * 40)
    key.chmod(0o600)
    return subprocess.run(
        [*SVC, *flags, "worker", "--http", "off"],
        cwd=folder,
        env=environment(SVC_AUTHKEY_FILE=key),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("case", OPEN)
def test_a_worker_runs_no_code_that_a_found_settings_file_names_which_others_could_write(folder, case):
    for change in OPEN[case]:
        change(folder)
    ended = worker(folder)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.endswith("if you trust it, name it: svc --config svc.toml (or SVC_CONFIG)")
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("flags", "changes"),
    [((), []), (("--config", "svc.toml"), OPEN["a folder that everybody can write"])],
    ids=["ones own", "named"],
)
def test_a_worker_does_run_the_code_that_ones_own_or_a_named_settings_file_names(folder, flags, changes):
    for change in changes:
        change(folder)
    worker(folder, *flags)
    assert (folder / "ran").exists()
