"""The address of a replicated journal, `nats://HOST:PORT,HOST:PORT/NAME`, and the user who may write it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from svc.addresses import ENTRIES_MAX, Address, parse_address
from svc.errors import ConfigurationError

#: The port of NATS servers if none is named.
NATS_PORT: Final = 4222
_SCHEMES: Final = ("nats://", "tls://")
#: The characters that a stream, a subject and a file may all have in their names.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FORM = "nats://HOST:PORT,HOST:PORT/NAME (tls:// for TLS)"


@dataclass(frozen=True, slots=True)
class StreamAddress:
    """The servers of one NATS cluster, and the name of the stream there.

    Attributes:
        servers: some or all of the servers; one that answers is enough to begin with.
        name: the name of the stream.
        tls: whether the connection must be TLS; the servers' certificate is checked.
    """

    servers: tuple[Address, ...]
    name: str
    tls: bool = False

    def __str__(self) -> str:
        """Return the address as `parse_stream` takes it."""
        return f"{_SCHEMES[self.tls]}{','.join(map(str, self.servers))}/{self.name}"

    def urls(self) -> list[str]:
        """Return the URL of each server."""
        return [f"{_SCHEMES[self.tls]}{server}" for server in self.servers]


@dataclass(frozen=True, slots=True)
class NatsUser:
    """The user of a connection: a name and a password, or a token alone."""

    name: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)


def parse_user(text: str) -> NatsUser:
    """Return the user in *text*, the content of a file of credentials: USER:PASSWORD, or a token.

    Raises:
        ConfigurationError: it is empty, has several lines, or is of another kind.
    """
    if not text or "\n" in text:
        raise ConfigurationError(
            "the file of NATS credentials must be one line: USER:PASSWORD or a token; keys and JWTs are not "
            "supported: a TLS certificate can name the user"
        )
    name, colon, password = text.partition(":")
    return NatsUser(name, password) if colon else NatsUser(token=text)


def parse_journal(text: str) -> Path | StreamAddress:
    """Return the place in *text*: the address of a stream, or else the path of a file.

    Raises:
        ConfigurationError: it is the address of a stream, and malformed, or that of something else.
    """
    return parse_stream(text) if "://" in text else Path(text)


def parse_stream(text: str) -> StreamAddress:
    """Return the address in *text*: `nats://` or, for TLS, `tls://`, one or more servers, and a name.

    Raises:
        ConfigurationError: it is malformed, or has a password in it.
    """
    scheme, _, rest = text.strip().partition("://")
    servers, slash, name = rest.partition("/")
    if "@" in rest:
        raise ConfigurationError(
            "the address of the journal has a user or a password in it, which every user of the host could "
            f"read; write {_FORM}, and the user and the password into a file of its own"
        )
    if f"{scheme.lower()}://" not in _SCHEMES or not slash:
        raise ConfigurationError(f"{text!r} is not the address of a journal; write {_FORM}")
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} cannot be the name of a journal: it has up to 64 letters, digits, - and _"
        )
    if not all(part.strip() for part in servers.split(",")):
        raise ConfigurationError(f"{text!r} has an empty address; write {_FORM}")
    entries = tuple(dict.fromkeys(parse_address(part, NATS_PORT) for part in servers.split(",")))
    if len(entries) > ENTRIES_MAX:
        raise ConfigurationError(f"{len(entries)} servers of one journal; {ENTRIES_MAX} are the most")
    for entry in entries:
        if not entry.port:
            raise ConfigurationError(f"{entry} cannot be called: port 0 is only for listening")
    return StreamAddress(entries, name, scheme.lower() == "tls")
