"""The declaration of settings: their kinds, their bounds, and all that is derived from a field."""

from __future__ import annotations

import pytest

from svc.declarations import parse_seconds, parse_size
from svc.errors import ConfigurationError


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
