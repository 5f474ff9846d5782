"""The files that keys are read from, and files that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from svc import key_files
from svc.errors import AuthenticationFailed
from svc.key_files import read_authkey


@pytest.fixture(autouse=True)
def no_secret_of_this_host(tmp_path, monkeypatch):
    monkeypatch.delenv("SVC_AUTHKEY_FILE", raising=False)
    monkeypatch.setattr(key_files, "DEFAULT_AUTHKEY_FILE", tmp_path / "run" / "svc_authkey")


@pytest.fixture
def key(tmp_path):
    def write(content: bytes, mode: int = 0o600) -> Path:
        path: Path = tmp_path / "key"
        path.write_bytes(content)
        path.chmod(mode)
        return path

    return write


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"0123456789abcdef", b"0123456789abcdef"),
        (b"0123456789abcdef\n", b"0123456789abcdef"),
        (b"0123456789abcdef\n\n", b"0123456789abcdef\n"),
        (b" 0123456789abcdef\r\n", b" 0123456789abcdef\r"),
    ],
)
def test_exactly_one_newline_at_its_end_is_no_part_of_it(key, content, expected):
    assert read_authkey(key(content)) == expected


@pytest.mark.parametrize("content", [b"", b"\n", b"short", b"0123456789abcde\n"])
def test_one_that_is_too_short_is_refused(key, content):
    with pytest.raises(AuthenticationFailed, match="needs at least 16"):
        read_authkey(key(content))


def test_one_that_every_user_can_read_is_refused_with_the_cure(key):
    path = key(b"0123456789abcdef", 0o644)
    with pytest.raises(AuthenticationFailed, match=f"run `chmod o-rwx {path}`"):
        read_authkey(path)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o440, 0o400])
def test_a_group_may_share_one(key, mode):
    assert read_authkey(key(b"0123456789abcdef", mode))


def test_a_container_secret_may_be_open(key, tmp_path, monkeypatch):
    monkeypatch.setattr(key_files, "_SECRETS_FOLDER", tmp_path)
    assert read_authkey(key(b"0123456789abcdef", 0o444))


def test_a_way_around_the_folder_of_secrets_does_not_help(key, tmp_path, monkeypatch):
    """`..` in a path must not make a file outside look like a secret."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    monkeypatch.setattr(key_files, "_SECRETS_FOLDER", secrets)
    path = key(b"0123456789abcdef", 0o444)
    with pytest.raises(AuthenticationFailed, match="chmod"):
        read_authkey(secrets / ".." / path.name)


def test_without_one_the_error_says_how_to_make_it():
    with pytest.raises(AuthenticationFailed, match="svc auth generate"):
        read_authkey(None)


def test_a_missing_file_is_named():
    with pytest.raises(AuthenticationFailed, match=r"nowhere/key cannot be read \(No such file"):
        read_authkey("nowhere/key")


def test_the_key_is_in_no_message(key):
    with pytest.raises(AuthenticationFailed) as caught:
        read_authkey(key(b"tooshortsecret"))
    assert "tooshortsecret" not in str(caught.value)


def test_what_is_named_goes_before_the_variable_and_that_before_the_secret(key, monkeypatch):
    key_files.DEFAULT_AUTHKEY_FILE.parent.mkdir()
    key_files.DEFAULT_AUTHKEY_FILE.write_bytes(b"")
    key_files.DEFAULT_AUTHKEY_FILE.chmod(0o600)
    with pytest.raises(AuthenticationFailed, match="run/svc_authkey has 0 bytes"):
        read_authkey(None)
    monkeypatch.setenv("SVC_AUTHKEY_FILE", "variable")
    with pytest.raises(AuthenticationFailed, match="authkey file variable cannot be read"):
        read_authkey(None)
    with pytest.raises(AuthenticationFailed, match="authkey file named cannot be read"):
        read_authkey("named")


def test_a_variable_with_the_key_itself_does_not_exist(monkeypatch):
    monkeypatch.setenv("SVC_AUTHKEY", "0123456789abcdef")
    with pytest.raises(AuthenticationFailed):
        read_authkey(None)


@pytest.mark.parametrize("mode", [0o602, 0o622, 0o606, 0o666])
def test_one_that_every_user_can_write_is_refused(key, mode):
    with pytest.raises(AuthenticationFailed, match="every user of this host can"):
        read_authkey(key(b"0123456789abcdef", mode))
