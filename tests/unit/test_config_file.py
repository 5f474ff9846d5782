"""The settings file: its keys, and when one is read that nobody has named."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import pytest

from svc import config_file
from svc.config_file import Known, config_defaults, find_config, load_config
from svc.errors import ConfigurationError

OTHER = 12345
KNOWN: Known = {
    "worker": frozenset({"manager", "queues", "consumers"}),
    "status": frozenset({"manager"}),
    "jobs": {"list": frozenset({"manager", "timeout"}), "show": frozenset({"manager"})},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "svc.toml").write_text('tasks = "evil"\n')
    (tmp_path / "svc.toml").chmod(0o644)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def belongs_to_another(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give *path* away; if that takes root, be somebody else instead."""
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


class TestConfig:
    def test_a_key_at_the_top_is_for_every_command_that_has_it(self):
        defaults = config_defaults({"manager": "h:1", "timeout": 3}, KNOWN)
        assert defaults == {
            "worker": {"manager": "h:1"},
            "status": {"manager": "h:1"},
            "jobs": {"list": {"manager": "h:1", "timeout": "3"}, "show": {"manager": "h:1"}},
        }

    @pytest.mark.parametrize(
        "text",
        [
            '[manager]\naddress = "h:1"\nlease = "5s"\n',
            'manager.address = "h:1"\nmanager.lease = "5s"\n',
            'manager = { address = "h:1", lease = "5s" }\n',
        ],
    )
    def test_the_managers_address_may_stand_in_its_own_table(self, tmp_path, text):
        (tmp_path / "svc.toml").write_text(f'{text}[worker]\nmanager = "w:2"\n')
        known: Known = {"manager": frozenset({"lease"}), **KNOWN}
        defaults = config_defaults(load_config(tmp_path / "svc.toml"), known)
        assert defaults["manager"] == {"lease": "5s"}
        assert defaults["status"] == {"manager": "h:1"}
        assert defaults["jobs"]["show"] == {"manager": "h:1"}
        assert defaults["worker"] == {"manager": "w:2"}, "its own table goes before"

    @pytest.mark.parametrize(
        ("text", "cure"),
        [
            (
                'manager = "h:1"\n\n[manager]\nlease = 5\n',
                "a key `manager` beside a table [manager]; write the key into [manager], as `address`",
            ),
            (
                '# ours\nmanager = "h:1"\ntimeout = 3\n[status]\ntimeout = 1\n[ manager ]\nlease = 5\n',
                "a key `manager` beside a table [manager]; write the key into [manager], as `address`",
            ),
            (
                'manager.address = "h:1"\n[manager]\nlease = 5\n',
                "a key `manager` beside a table [manager]; write the key into [manager], as `address`",
            ),
            (
                'journal = "/j"\n[journal.backup]\ntimeout = 5\n',
                "a key `journal` beside a table [journal]; write the key into the tables of its commands",
            ),
            ('manager = "h:1"\n[worker]\nname = \n[status]\n', "Invalid value (at line 3, column 8)"),
            ("manager = \n[manager]\n", "Invalid value (at line 1, column 11)"),
        ],
    )
    def test_a_key_beside_a_table_of_its_name_is_told_with_the_cure(self, tmp_path, text, cure):
        (tmp_path / "svc.toml").write_text(text)
        with pytest.raises(ConfigurationError) as caught:
            load_config(tmp_path / "svc.toml")
        assert str(caught.value).endswith(cure)

    def test_a_commands_own_table_goes_before_it(self):
        config = {"manager": "h:1", "worker": {"manager": "w:2", "queues": ["a", "b"]}}
        defaults = config_defaults(config, KNOWN)
        assert defaults["worker"] == {"manager": "w:2", "queues": "a,b"}
        assert defaults["status"] == {"manager": "h:1"}

    def test_a_groups_table_is_for_its_commands(self):
        defaults = config_defaults({"jobs": {"manager": "g:1", "list": {"manager": "l:2"}}}, KNOWN)
        assert defaults["jobs"] == {"list": {"manager": "l:2"}, "show": {"manager": "g:1"}}

    @pytest.mark.parametrize(
        ("config", "said"),
        [
            ({"mangaer": 1}, "unknown setting mangaer; the nearest setting is manager"),
            ({"worker": {"queue": 1}}, "unknown setting worker.queue; the nearest setting is worker.queues"),
            ({"jobs": {"lst": {}}}, "unknown table jobs.lst; the nearest table is jobs.list"),
            ({"jobs": {"list": {"consumers": 1}}}, "unknown setting jobs.list.consumers"),
            ({"zzz": {}}, "unknown table zzz"),
        ],
    )
    def test_what_is_unknown_is_an_error_that_names_the_file_and_the_nearest(self, config, said):
        with pytest.raises(ConfigurationError) as caught:
            config_defaults(config, KNOWN, Path("ours.toml"))
        assert str(caught.value).startswith(f"the settings file ours.toml has an {said}")

    @pytest.mark.parametrize(
        ("config", "said"),
        [
            ({"zzz": 1}, "; the file takes the settings consumers, manager, queues, timeout"),
            ({"zzz": {}}, "; the file takes the tables jobs, status, worker"),
            ({"status": {"zzz": 1}}, "; [status] takes the settings manager"),
            ({"jobs": {"list": {"zzz": 1}}}, "; [jobs.list] takes the settings manager, timeout"),
            ({"status": 1}, "status in the settings file svc.toml is a command; write a table [status]"),
        ],
    )
    def test_an_error_says_what_is_allowed_in_its_place(self, config, said):
        with pytest.raises(ConfigurationError) as caught:
            config_defaults(config, KNOWN)
        assert str(caught.value).endswith(said)

    @pytest.mark.parametrize("value", [{"a": 1}, [1, [2]], [{"a": 1}], dt.date(2026, 11, 22)])
    def test_a_value_of_a_type_that_no_setting_has_is_told_with_its_place(self, value):
        with pytest.raises(ConfigurationError) as caught:
            config_defaults({"worker": {"queues": value}}, KNOWN)
        place = "worker.queues in the settings file svc.toml"
        assert str(caught.value).startswith(f"{place} is not a text, a number, true or false, or a list of")

    def test_dashes_are_as_good_as_underscores(self):
        known: Known = {"worker": frozenset({"authkey_file"})}
        assert config_defaults({"authkey-file": "k"}, known) == {"worker": {"authkey_file": "k"}}

    def test_an_empty_file_changes_nothing(self):
        assert config_defaults({}, KNOWN) == {
            "worker": {}, "status": {}, "jobs": {"list": {}, "show": {}},
        }  # fmt: skip

    def test_a_file_that_is_not_toml_is_named(self, tmp_path):
        path = tmp_path / "svc.toml"
        path.write_text("a = [")
        with pytest.raises(ConfigurationError, match=f"{path} is not TOML"):
            load_config(path)
        with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
            load_config(tmp_path / "other.toml")
