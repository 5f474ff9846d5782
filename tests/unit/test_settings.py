import pytest

from svc.addresses import Address, parse_address, parse_manager, parse_optional_address
from svc.errors import ConfigurationError
from svc.server.connection_limits import Bounds
from svc.setting_kinds import parse_names
from svc.settings import ManagerSettings


class TestAddress:
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
        ("text", "why"),
        [
            ("256.0.0.1:1", "256.0.0.1 is no IPv4 address"),
            ("[1::2::3]:1", "1::2::3 is no IPv6 address"),
            ("[::1%]:1", "no IPv6 address"),
            ("a..b:1", "the parts of a host's name"),
            ("x" * 64 + ":1", "the parts of a host's name"),
            (".".join(["x" * 60] * 5), "253 at most"),
        ],
    )
    def test_what_names_no_host_is_refused_with_the_reason(self, text, why):
        with pytest.raises(ConfigurationError, match=why):
            parse_address(text)


class TestManagerAddresses:
    def test_they_are_a_list_in_its_order_and_each_once(self):
        found = parse_manager(" a:1, [fd00::2] ,10.0.0.1:3,a:1")
        assert found.pairs() == [("a", 1), ("fd00::2", 7077), ("10.0.0.1", 3)]
        assert str(found) == "a:1,[fd00::2]:7077,10.0.0.1:3"
        assert parse_manager(str(found)) == found

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("", "has an empty address"),
            ("a:1,", "has an empty address"),
            (",", "has an empty address"),
            ("a:1,b:x", "'b:x' is not an address"),
            ("a:1,::1", "'::1' is not an address"),
            ("a:0", "port 0 is only for listening"),
            (
                ",".join(f"h{number}:1" for number in range(17)),
                "17 addresses of one manager; 16 are the most",
            ),
        ],
    )
    def test_malformed_ones_are_refused_with_the_reason(self, text, why):
        with pytest.raises(ConfigurationError, match=why):
            parse_manager(text)


def test_names_are_separated_by_commas_and_come_once():
    assert parse_names("a, b,,a ,c.d") == ("a", "b", "c.d")
    assert parse_names("") == ()


def test_unfinished_requests_and_unread_answers_take_128_mib_if_nothing_else_is_said():
    assert ManagerSettings().max_buffered == 128 << 20
    assert Bounds().buffered_bytes == 128 << 20
