import pytest

from svc.addresses import Address, parse_address, parse_optional_address
from svc.errors import ConfigurationError
from svc.settings import parse_names


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


def test_names_are_separated_by_commas_and_come_once():
    assert parse_names("a, b,,a ,c.d") == ("a", "b", "c.d")
    assert parse_names("") == ()
