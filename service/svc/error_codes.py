"""Errors by their code, which is their name on the wire."""

from __future__ import annotations

from svc.errors import BrokerError, ServiceError


def error_for(code: str, message: str) -> ServiceError:
    """Return an error of the class that has *code*; for an unknown code, a BrokerError."""
    return _by_code().get(code, BrokerError)(message)


def _by_code() -> dict[str, type[ServiceError]]:
    found: dict[str, type[ServiceError]] = {}
    pending: list[type[ServiceError]] = [ServiceError]
    while pending:
        kind = pending.pop()
        found.setdefault(kind.code, kind)  # a kind without a code of its own is told as its base
        pending.extend(kind.__subclasses__())
    return found
