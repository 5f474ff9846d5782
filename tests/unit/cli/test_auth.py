import stat
from pathlib import Path

import pytest

from svc.key_files import AUTHKEY_BYTES_MIN, ROLES, read_authkey, read_pickle_keys, read_role_keys


def test_a_new_authkey_is_private_and_good_enough(svc, tmp_path):
    path = tmp_path / "key"
    ended = svc("auth", "generate", "--output", str(path))
    assert (ended.code, ended.out, ended.err) == (0, f"{path}\n", "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(read_authkey(path)) > 2 * AUTHKEY_BYTES_MIN


def test_the_key_itself_is_not_printed(svc, tmp_path):
    path = tmp_path / "key"
    ended = svc("auth", "generate", "--output", str(path))
    assert path.read_text().strip() not in ended.out + ended.err


def test_an_existing_file_is_left_alone(svc, authkey_file):
    before = authkey_file.read_bytes()
    assert svc("auth", "generate", "--output", str(authkey_file)).code == 6
    assert authkey_file.read_bytes() == before


def test_two_keys_differ(svc, tmp_path):
    for name in ("a", "b"):
        svc("auth", "generate", "--output", str(tmp_path / name))
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()


def test_a_folder_of_keys_has_one_for_each_role(svc, tmp_path):
    ended = svc("auth", "generate", "--all", str(tmp_path / "keys"))
    assert ended.code == 0
    assert [Path(line).name for line in ended.lines] == [f"{role}.key" for role in ROLES]
    keys = read_role_keys(tmp_path / "keys")
    assert [role for role, _ in keys] == [*ROLES]
    assert len({secret for _, secret in keys}) == 5


def test_a_second_key_of_a_role_is_read_too(svc, tmp_path):
    for name in ("work.key", "work.key.next"):
        assert svc("auth", "generate", "--role", "work", "--output", str(tmp_path / name)).code == 0
    assert [role for role, _ in read_role_keys(tmp_path)] == ["work", "work"]


@pytest.mark.parametrize(
    "argv",
    [
        "--role work --output key",
        "--role work --output read.key",
        "--all d --role read",
        "--role boss",
        "--pickle --role read",
        "--pickle --all d",
    ],
)
def test_a_key_that_no_manager_would_find_is_not_made(svc, argv, tmp_path):
    assert svc("auth", "generate", *argv.split()).code == 2
    assert not list(tmp_path.glob("**/*key*.key"))


def test_a_key_for_pickles_is_no_authkey(svc, tmp_path):
    ended = svc("auth", "generate", "--pickle")
    assert (ended.code, ended.out) == (0, "svc_pickle_key\n")
    assert read_pickle_keys(tmp_path / "svc_pickle_key") is not None


@pytest.mark.parametrize("output", ["a/b", "a/b/c/key", "./a/key", "deep/er/svc_authkey"])
def test_a_folder_that_is_missing_is_made_for_its_owner_alone(svc, tmp_path, output):
    assert svc("auth", "generate", "--output", output).code == 0
    key = tmp_path / output
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "argv", [["generate", "--output", "file/key"], ["generate", "--all", "file/keys"], ["ca", "file/tls"]]
)
def test_a_folder_that_cannot_be_made_is_a_clear_error(svc, tmp_path, argv):
    (tmp_path / "file").touch()
    ended = svc("auth", *argv)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("svc: the folder file")
