"""The settings of TLS, which each command has that serves or calls a manager."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from svc.errors import ConfigurationError
from svc.setting_kinds import path
from svc.wire_tls import TlsFiles


def parse_tls(
    cert: Path | None, key: Path | None, ca: Path | None, name: str = "", option: str = "--tls"
) -> TlsFiles | None:
    """Return the files in the TLS settings *option*`-cert` and so on, or None if none is set.

    Raises:
        ConfigurationError: some are set and others not.
    """
    if cert is None and key is None and ca is None:
        return None
    if cert is None or key is None or ca is None:
        raise ConfigurationError(f"TLS needs all three: {option}-cert, {option}-key and {option}-ca")
    return TlsFiles(cert, key, ca, name)


@dataclass(frozen=True, kw_only=True)
class TlsSettings:
    """The certificates of each command that serves or calls a manager."""

    tls_cert: Path | None = path(None, "FILE", "Our certificate (PEM); turns TLS 1.3 on.")
    tls_key: Path | None = path(None, "FILE", "Its private key (PEM).")
    tls_ca: Path | None = path(None, "FILE", "The CA of the other side's certificate (PEM).")
    tls_name: str = ""

    def __post_init__(self) -> None:
        """Check that all three are set, or none."""
        parse_tls(self.tls_cert, self.tls_key, self.tls_ca)

    @property
    def tls(self) -> TlsFiles | None:
        """The files for a TLS connection, or None for a plain one."""
        return parse_tls(self.tls_cert, self.tls_key, self.tls_ca, self.tls_name)
