import pytest

from svc import settings, wire
from svc.config_file import load_config
from svc.errors import ConfigurationError
from svc.settings import (
    Address,
    Known,
    config_defaults,
    parse_address,
    parse_names,
    parse_optional_address,
    parse_seconds,
    parse_size,
)

KNOWN: Known = {
    "worker": frozenset({"manager", "queues", "consumers"}),
    "status": frozenset({"manager"}),
    "jobs": {"list": frozenset({"manager", "timeout"}), "show": frozenset({"manager"})},
}


class TestAddress:
    def test_the_default_port_is_that_of_the_wire(self):
        assert settings.DEFAULT_PORT == wire.DEFAULT_PORT

    @pytest.mark.parametrize(
        ("text", "address"),
        [
            ("host:1", Address("host", 1)),
            ("host", Address("host", 7077)),
            (" 10.0.0.1:65535 ", Address("10.0.0.1", 65535)),
            ("[::1]:80", Address("::1", 80)),
            ("[fe80::1%eth0]", Address("fe80::1%eth0", 7077)),
            ("0.0.0.0:0", Address("0.0.0.0", 0)),
            ("queue-host.example.org:7", Address("queue-host.example.org", 7)),
        ],
    )
    def test_it_is_host_and_port(self, text, address):
        assert parse_address(text) == address

    @pytest.mark.parametrize(
        "text",
        ["", ":7077", "host:", "host:x", "host:65536", "host:-1", "::1", "a:b:1", "[::1", "a b:1", "[]:1"],
    )
    def test_what_is_no_address_is_refused_with_the_form(self, text):
        with pytest.raises(ConfigurationError, match="is not an address; write HOST:PORT"):
            parse_address(text)

    @pytest.mark.parametrize("text", ["host:1", "[::1]:80"])
    def test_it_prints_as_it_is_written(self, text):
        assert str(parse_address(text)) == text

    def test_off_is_no_address(self):
        assert parse_optional_address("off") is None
        assert parse_optional_address("h:1") == Address("h", 1)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        ("1.5", 1.5),
        (".5s", 0.5),
        ("500ms", 0.5),
        ("5m", 300.0),
        ("2h", 7200.0),
        ("7d", 604800.0),
        (3, 3),
    ],
)
def test_durations(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1", "1 week", "1e3", "nan", "inf", "5 m m"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ConfigurationError, match="is not a duration"):
        parse_seconds(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("65536", 65536),
        ("512KiB", 1 << 19),
        ("4mib", 4 << 20),
        ("1GB", 1 << 30),
        ("2k", 2048),
        (7, 7),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1.5MiB", "big", "1TiB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ConfigurationError, match="is not a size"):
        parse_size(text)


def test_names_are_separated_by_commas_and_come_once():
    assert parse_names("a, b,,a ,c.d") == ("a", "b", "c.d")
    assert parse_names("") == ()


class TestConfig:
    def test_a_key_at_the_top_is_for_every_command_that_has_it(self):
        defaults = config_defaults({"manager": "h:1", "timeout": 3}, KNOWN)
        assert defaults == {
            "worker": {"manager": "h:1"},
            "status": {"manager": "h:1"},
            "jobs": {"list": {"manager": "h:1", "timeout": "3"}, "show": {"manager": "h:1"}},
        }

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
    def test_what_is_unknown_is_an_error_that_names_the_nearest(self, config, said):
        with pytest.raises(ConfigurationError) as caught:
            config_defaults(config, KNOWN)
        assert str(caught.value).endswith(said)

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
