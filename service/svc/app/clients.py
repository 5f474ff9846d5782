"""The classes for users: a client and an executor of the manager at an address."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from svc.addresses import Address, ManagerAddresses, parse_manager
from svc.broker.manager import ManagerBroker
from svc.client import client, executor
from svc.client.session import PATIENCE_SECONDS
from svc.codec import PLAIN
from svc.domain.commands import Hello
from svc.errors import ConfigurationError
from svc.key_files import read_authkey, read_pickle_keys
from svc.tls_settings import parse_tls
from svc.wire_tls import TlsFiles

#: Seconds that a call may take at most: a day, as for `--timeout`. A socket waits for 24 days at most.
CALL_SECONDS_MAX: Final = 86_400.0


class Client(client.BrokerClient):
    """A client of the manager at an address; see `svc.client.client.BrokerClient` for its verbs."""

    def __init__(
        self,
        manager: str | None = None,
        *,
        authkey_file: str | os.PathLike[str] | None = None,
        timeout: float = 10.0,
        accept: Collection[str] = (PLAIN,),
        tls: TlsFiles | None = None,
        pickle_key_file: str | os.PathLike[str] | None = None,
    ) -> None:
        """Connect, when first used, to *manager* (`HOST:PORT`; else `SVC_MANAGER`, else this host).

        Args:
            manager: the manager's address, or several of them with commas: the first that answers.
            authkey_file: the file with the shared secret; else `SVC_AUTHKEY_FILE`, else the container secret.
            timeout: seconds that one call may take beyond the time that it waits for jobs; a day at most.
            accept: codecs of the results that are read; with `pickle`, a worker can run code here.
            tls: certificates to dial with; else those in `SVC_TLS_CERT`, `_KEY`, `_CA` and `_NAME`.
            pickle_key_file: the key for pickles, shared with workers and never with the manager; else
                `SVC_PICKLE_KEY_FILE`, else the container secret.

        Raises:
            ConfigurationError: *manager* is not an address, *timeout* is out of bounds, or *accept* names
                `pickle` and there is no key.
            AuthenticationFailed: there is no authkey, or it is not a safe one.
        """
        source = _source(manager, authkey_file, timeout, tls)
        keys = read_pickle_keys(pickle_key_file)
        super().__init__(source, patience=timeout, accept=accept, pickle_keys=keys)


class Executor(executor.BrokerExecutor):
    """The interface of `concurrent.futures` over a manager; see `svc.client.executor.BrokerExecutor`."""

    def __init__(
        self,
        manager: str | client.BrokerClient | None = None,
        *,
        authkey_file: str | os.PathLike[str] | None = None,
        codec: str = PLAIN,
        timeout: float = 10.0,
        patience: float = PATIENCE_SECONDS,
        tls: TlsFiles | None = None,
        pickle_key_file: str | os.PathLike[str] | None = None,
    ) -> None:
        """Connect, when first used, to *manager* (`HOST:PORT`, else `SVC_MANAGER`, else this host).

        Args:
            manager: the manager's address, several of them with commas, or a client of it, whose address and
                authkey are used.
            authkey_file: the file with the shared secret; else `SVC_AUTHKEY_FILE`, else the container secret.
            codec: `plain` for names of tasks and data; `pickle` for any callable and any value.
            timeout: seconds that one call may take beyond the time that it waits for jobs; a day at most.
            patience: seconds for which the manager may be away before waiting futures fail.
            tls: this side's certificate; else the one that `SVC_TLS_*` name; else none, without encryption.
            pickle_key_file: the key for the codec `pickle`, shared with workers and never with the manager;
                else `SVC_PICKLE_KEY_FILE`, else the container secret, else the client's.

        Raises:
            ConfigurationError: *manager* is not an address, *timeout* is out of bounds, there is no such
                codec, or no key for pickles.
            AuthenticationFailed: there is no authkey, or it is not a safe one.
        """
        source = (
            manager
            if isinstance(manager, client.BrokerClient)
            else _source(manager, authkey_file, timeout, tls)
        )
        keys = read_pickle_keys(pickle_key_file)
        super().__init__(source, codec=codec, patience=patience, pickle_keys=keys)


def _source(
    manager: str | None, authkey_file: str | os.PathLike[str] | None, timeout: float, tls: TlsFiles | None
) -> Callable[[], ManagerBroker]:
    """Return a function that connects to the manager in these settings."""
    address = parse_manager(manager or os.environ.get("SVC_MANAGER") or "127.0.0.1")
    seconds = _checked(timeout)
    authkey = read_authkey(authkey_file)
    return functools.partial(connect, address, authkey, seconds, tls=tls or _tls_of_environment())


def _checked(timeout: float) -> float:
    """Return the *timeout* of calls.

    Raises:
        ConfigurationError: it is no number of seconds within the bounds.
    """
    kind = type(timeout) is int or isinstance(timeout, float)
    if not (kind and 0 < timeout <= CALL_SECONDS_MAX):
        raise ConfigurationError(
            f"the timeout of calls is a number of seconds above 0, {CALL_SECONDS_MAX:.0f} at most, "
            f"not {timeout!r:.40}"
        )
    return float(timeout)


def connect(
    address: Address | ManagerAddresses,
    authkey: bytes,
    timeout: float | None = 10.0,
    hello: Callable[[], Hello] | None = None,
    *,
    tls: TlsFiles | None = None,
) -> ManagerBroker:
    """Return a broker of the manager at *address*; it connects at the first use."""
    hosts = address.pairs() if isinstance(address, ManagerAddresses) else [(address.host, address.port)]
    return ManagerBroker(hosts, authkey, hello=hello, timeout=timeout, tls=tls)


def _tls_of_environment() -> TlsFiles | None:
    cert, key, ca = (
        Path(value) if (value := os.environ.get(f"SVC_TLS_{name}")) else None
        for name in ("CERT", "KEY", "CA")
    )
    return parse_tls(cert, key, ca, os.environ.get("SVC_TLS_NAME", ""))
