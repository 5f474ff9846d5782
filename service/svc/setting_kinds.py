"""The kinds of settings that are no numbers: addresses, files, names and words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from svc.addresses import LOOPBACK, parse_address, parse_manager, parse_optional_address
from svc.declarations import setting
from svc.domain.names import CODECS
from svc.errors import ConfigurationError
from svc.journal_address import parse_journal


def parse_names(text: str) -> tuple[str, ...]:
    """Return the names in a comma-separated list, without blanks and empty names, each once."""
    return tuple(dict.fromkeys(name for part in text.split(",") if (name := part.strip())))


def parse_word(word: str, words: Sequence[str]) -> str:
    """Return *word*.

    Raises:
        ConfigurationError: it is not one of *words*.
    """
    if word not in words:
        raise ConfigurationError(f"{word!r} is not one of {', '.join(filter(None, words))}")
    return word


def parse_codecs(text: str) -> tuple[str, ...]:
    """Return the codecs in a comma-separated list, and `plain` before them.

    Raises:
        ConfigurationError: there is no such codec.
    """
    return tuple(dict.fromkeys((CODECS[0], *(parse_word(name, CODECS) for name in parse_names(text)))))


def address(default: str, text: str, *, variable: bool = True) -> Any:
    """Return a field with an address to listen at."""
    return setting(parse_address, "HOST:PORT", default, text, variable=variable)


def manager_addresses(default: str, text: str) -> Any:
    """Return a field with the addresses of a manager to connect to."""
    return setting(parse_manager, "HOST:PORT[,…]", default, text)


def http_address(port: int) -> Any:
    """Return a field with the address of metrics and health, on this host at *port* if none is named."""
    read = partial(parse_optional_address, default_port=port)
    return setting(read, "HOST:PORT", f"{LOOPBACK}:{port}", "Address of metrics and health, or `off`.")


def path(default: str | None, metavar: str, text: str, *, variable: bool = True) -> Any:
    """Return a field with a path of a file or folder."""
    return setting(Path, metavar, default, text, variable=variable)


def journal_place(default: str, text: str) -> Any:
    """Return a field with the place of a journal: a file, or a stream of NATS JetStream."""
    return setting(parse_journal, "PATH|nats://…|tls://…", default, text)


def names(default: str, metavar: str, text: str) -> Any:
    """Return a field with names, which a user separates by commas."""
    return setting(parse_names, metavar, default, text)


def choice(default: str, words: Sequence[str], text: str) -> Any:
    """Return a field with one of *words*."""
    return setting(partial(parse_word, words=words), "|".join(words), default, text)
