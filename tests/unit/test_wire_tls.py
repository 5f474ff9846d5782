"""Which private keys TLS is spoken with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from svc import key_files
from svc.cli.certificates import make_authority, renew_certificates
from svc.errors import AuthenticationFailed, ConfigurationError
from svc.wire_tls import TlsFiles


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("ca")
    make_authority(folder, ("localhost",))
    return folder


@pytest.fixture
def files(folder) -> TlsFiles:
    return TlsFiles(folder / "manager.pem", folder / "manager.key", folder / "ca.pem")


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o666, 0o444])
@pytest.mark.parametrize("side", ["server_context", "client_context"])
def test_a_key_that_every_user_can_read_or_change_is_refused_with_the_cure(files, mode, side):
    files.key.chmod(mode)
    with pytest.raises(AuthenticationFailed, match=f"run `chmod o-rwx {files.key}`"):
        getattr(files, side)()


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
@pytest.mark.parametrize("side", ["server_context", "client_context"])
def test_a_group_may_share_one(files, mode, side):
    files.key.chmod(mode)
    assert getattr(files, side)()


def test_a_secret_of_a_container_may_be_open(files, folder, monkeypatch):
    files.key.chmod(0o444)
    monkeypatch.setattr(key_files, "_SECRETS_FOLDER", folder)
    assert files.server_context()


def test_a_link_is_judged_by_its_target(files, folder):
    files.key.chmod(0o644)
    link = folder / "link.key"
    link.unlink(missing_ok=True)
    link.symlink_to(files.key)
    with pytest.raises(AuthenticationFailed):
        TlsFiles(files.cert, link, files.ca).server_context()


def test_a_key_that_is_not_there_is_told(files, folder):
    with pytest.raises(ConfigurationError, match="No such file"):
        TlsFiles(files.cert, folder / "gone.key", files.ca).server_context()


def test_the_keys_that_svc_makes_are_for_their_owner_alone(tmp_path):
    made = make_authority(tmp_path / "new", ("localhost",))
    assert {file.stat().st_mode & 0o777 for file in made} == {0o600}
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == sorted(file.name for file in made)


def test_no_file_is_overwritten_but_the_certificates_that_are_renewed(tmp_path):
    make_authority(tmp_path, ("localhost",))
    others = [tmp_path / name for name in ("manager.pem.new", "client.pem.new", ".manager.pem", "notes")]
    for file in others:
        file.write_text("mine")
    renew_certificates(tmp_path, ("localhost",))
    assert [file.read_text() for file in others] == ["mine"] * len(others)


def test_its_files_load_the_tls_library_before_any_thread_could(folder):
    program = f"""
import sys
import subprocess
import sys
from pathlib import Path
from svc.wire_tls import TlsFiles
assert "ssl" not in sys.modules
TlsFiles(*[Path({str(folder)!r})] * 3)
assert "ssl" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
