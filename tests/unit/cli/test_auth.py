import stat

from service.settings import AUTHKEY_BYTES_MIN, read_authkey


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


def test_a_folder_that_does_not_exist_is_a_clear_error(svc):
    ended = svc("auth", "generate", "--output", "no/where/key")
    assert ended.code == 2
    assert "cannot be made: No such file or directory" in ended.err
