"""Which settings file is believed that nobody has named: one's own, which nobody else can write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from svc import config_file
from svc.config_file import find_config
from svc.errors import ConfigurationError

OTHER = 12345


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "svc.toml").write_text('tasks = "evil"\n')
    (tmp_path / "svc.toml").chmod(0o644)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def belongs_to_another(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give *path* away; where that takes root, be somebody else instead."""
    try:
        os.lchown(path, OTHER, -1)
    except PermissionError:
        monkeypatch.setattr(os, "geteuid", lambda: OTHER)


def test_ones_own_is_read(folder):
    assert find_config(None) == {"tasks": "evil"}


def test_none_is_no_error(folder):
    (folder / "svc.toml").unlink()
    assert find_config(None) is None


@pytest.mark.parametrize("place", ["svc.toml", "."])
@pytest.mark.parametrize("mode", [0o666, 0o646, 0o777, 0o1777])
def test_one_that_everybody_can_write_or_put_there_is_refused_with_the_cure(folder, place, mode):
    (folder / place).chmod(mode)
    with pytest.raises(ConfigurationError, match=r"other users can write .*svc --config svc\.toml"):
        find_config(None)


@pytest.mark.parametrize("place", ["svc.toml", "."])
def test_one_that_a_group_of_several_can_write_is_refused(folder, place, monkeypatch):
    (folder / place).chmod(0o775)
    monkeypatch.setattr(config_file, "_is_private", lambda group, owner: False)
    with pytest.raises(ConfigurationError, match="other users can write"):
        find_config(None)
    monkeypatch.setattr(config_file, "_is_private", lambda group, owner: True)
    assert find_config(None) == {"tasks": "evil"}


@pytest.mark.parametrize("place", ["svc.toml", "."])
def test_one_of_another_owner_is_refused(folder, place, monkeypatch):
    belongs_to_another(folder / place, monkeypatch)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        find_config(None)


def test_a_link_is_judged_by_itself_by_its_target_and_by_where_that_is(folder, monkeypatch):
    (folder / "open").mkdir()
    (folder / "open").chmod(0o777)
    (folder / "svc.toml").rename(folder / "open" / "real.toml")
    (folder / "svc.toml").symlink_to("open/real.toml")
    with pytest.raises(ConfigurationError, match=r"other users can write .*open"):
        find_config(None)
    (folder / "open").chmod(0o755)
    assert find_config(None) == {"tasks": "evil"}
    belongs_to_another(folder / "svc.toml", monkeypatch)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        find_config(None)


def test_a_link_to_nowhere_is_told(folder):
    (folder / "svc.toml").unlink()
    (folder / "svc.toml").symlink_to("gone")
    with pytest.raises(ConfigurationError, match="cannot be looked at"):
        find_config(None)


def test_one_that_is_named_is_taken_as_it_is(folder):
    (folder / "svc.toml").chmod(0o666)
    folder.chmod(0o777)
    assert find_config(Path("svc.toml")) == {"tasks": "evil"}
