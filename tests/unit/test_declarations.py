"""The declaration of settings: their kinds, their bounds, and all that is derived from a field."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from svc import settings
from svc.cli.program import known_settings
from svc.cli.verbs import PROGRAM, CliGroup
from svc.declarations import (
    Number,
    Setting,
    build,
    declared,
    group,
    parse_seconds,
    parse_size,
    seconds,
    switch,
)
from svc.errors import ConfigurationError


def classes(commands: CliGroup = PROGRAM) -> set[str]:
    """Return the names of the settings classes of all commands."""
    inner = [classes(each) for each in commands.verbs.values() if isinstance(each, CliGroup)]
    own = {each.settings for each in commands.verbs.values() if not isinstance(each, CliGroup)}
    return own.union(*inner) - {""}


ALL = {
    f"{name}.{key}": setting
    for name in sorted(classes())
    for key, setting in declared(getattr(settings, name)).items()
}
each_setting = pytest.mark.parametrize("setting", ALL.values(), ids=ALL)
#: Texts that are no value of most settings.
ODD = [
    "",
    " ",
    "0",
    "-1",
    "-0",
    "nan",
    "inf",
    "1e400",
    "9" * 5000,
    "1" * 30 + "d",
    "٣",
    "\0",
    "\ud800",
    "x,y",
]


class TestEverySetting:
    @each_setting
    def test_it_has_a_sentence_of_help_and_a_default_that_is_a_value(self, setting: Setting):
        assert setting.help.endswith(".")
        assert setting.help[0].isupper()
        if setting.default is not None:
            setting.read(setting.default)

    @each_setting
    @pytest.mark.parametrize("text", ODD)
    def test_an_odd_text_has_a_value_or_is_refused(self, setting: Setting, text: str):
        with suppress(ConfigurationError):
            setting.read(text)

    @pytest.mark.parametrize(
        "setting",
        [setting for setting in ALL.values() if isinstance(setting.read, Number)],
        ids=[name for name, setting in ALL.items() if isinstance(setting.read, Number)],
    )
    def test_a_number_out_of_its_bounds_is_refused_with_the_value_and_the_range(self, setting: Setting):
        number = setting.read
        assert isinstance(number, Number)
        odd = ["nan", "-1", "inf", "1e400", f"{int(number.most) + 1}", "9" * 5000]
        for text in odd + ["0"] * bool(number.least):
            with pytest.raises(ConfigurationError) as caught:
                number(text)
            assert text in str(caught.value)
            assert f"goes from {''.join(f'{word}, or ' for word in number.words)}" in str(caught.value)
        assert number(str(int(number.most))) == number.most

    def test_numbers_of_every_command_are_among_them(self):
        numbers = {name for name, setting in ALL.items() if isinstance(setting.read, Number)}
        assert {"ManagerSettings.lease", "WorkerSettings.grace", "RemoteSettings.timeout"} < numbers
        assert {"ManagerSettings.max_buffered", "DevSettings.consumers", "ManagerSettings.max_keys"} < numbers


@dataclass(frozen=True)
class Inner:
    lease_seconds: float = seconds("15s", "1s", "1d", "A lease.", name="lease")
    other: int = 5


@dataclass(frozen=True)
class Base:
    first: bool = switch("The first.")
    second: bool = switch("The second.")


@dataclass(frozen=True)
class Outer(Base):
    inner: Inner = group(Inner)  # noqa: RUF009 - it returns a field
    first: bool = switch("Another first.", variable=False)
    left_out: int = 3


class TestDerived:
    def test_a_class_has_its_own_settings_before_inherited_ones_and_those_of_its_groups(self):
        found = declared(Outer)
        assert list(found) == ["lease", "first", "second"]
        assert (found["first"].help, found["first"].variable) == ("Another first.", False)

    def test_a_field_without_a_declaration_keeps_its_default(self):
        values: dict[str, Any] = {"lease": 3.0, "first": True, "second": False}
        assert build(Outer, values) == Outer(inner=Inner(lease_seconds=3.0), first=True)

    def test_a_default_is_read_like_a_value(self):
        assert Inner() == Inner(lease_seconds=15.0, other=5)

    def test_svc_toml_has_a_key_for_each_setting_with_a_variable(self):
        known = known_settings(PROGRAM)["manager"]
        assert {"lease", "max_queue", "tls_cert"} < set(known)
        assert not {"announce", "accept_loss"} & set(known)


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
