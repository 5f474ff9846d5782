"""`svc health`: ask a manager or worker on this host whether it is ready. Standard library only.

Containers run this every few seconds. So it imports only those modules of svc that import nothing either, and
of the standard library what a plain HTTP request needs. `svc` calls it before it loads its command line.
"""

from __future__ import annotations

import os
import socket
import sys
import time

from svc.first_answer import Dial, NamedAddresses, Target, first_answer, shown
from svc.printable import printable_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

USAGE = """\
Usage: svc health [OPTIONS]

  Ask the manager or worker on this host whether it is ready to work.

Options:
  --http HOST:PORT[,…]  Address of its metrics and health, or several: the first that answers.
                        [env var: SVC_HTTP; default: 127.0.0.1:9100]
  --live                Ask only whether the process is alive, not whether it can work.
  --timeout SECONDS     Time to wait for the answer.  [default: 3]
  --json                Print one JSON document.
  --quiet               Print nothing.
  --help                Show this message and exit.

  Exit code: 0 ready, 1 not ready, 3 nothing answers.

  Example: svc health --http 127.0.0.1:9101
"""

DEFAULT_HTTP = "127.0.0.1:9100"
#: Wildcard addresses, which are only for listening, and the addresses to connect to in their place.
_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "*": "127.0.0.1", "::": "::1"}  # noqa: S104 - mapped away
_FLAGS = ("--live", "--json", "--quiet")
_ANSWER_BYTES_MAX = 65536
#: Seconds that one may wait for the answer.
TIMEOUT_MIN, TIMEOUT_MAX = 0.001, 3600.0
_PORT_MAX = 65535


def main(argv: list[str]) -> int:
    """Run `svc health` with *argv* after the verb; return the exit code."""
    if "--help" in argv or "-h" in argv:
        sys.stdout.write(USAGE)
        return 0
    try:
        options = _parse(argv)
        hosts = _addresses(options["--http"] or os.environ.get("SVC_HTTP") or DEFAULT_HTTP)
        timeout = _seconds(options["--timeout"] or "3")
    except ValueError as error:
        sys.stderr.write(f"svc: {error}; try `svc health --help`\n")
        return 2
    path = "/livez" if options["--live"] else "/readyz"
    try:
        status, said = probe(hosts, path, timeout)
    except OSError as error:
        at = ",".join(shown(host, port) for host, port in hosts)
        _tell(options, "unreachable", f"nothing answers at {at}: {error}")
        return 3
    _tell(options, "ok" if status == 200 else "not ready", said)
    return 0 if status == 200 else 1


def probe(hosts: Sequence[tuple[str, int]], path: str, timeout: float) -> tuple[int, str]:
    """Return the status and the first line of the first answer to an HTTP GET, within *timeout* seconds.

    Raises:
        NoAnswer: none of *hosts* has answered in HTTP in time.
    """
    won = first_answer(NamedAddresses(hosts), lambda target: _Get(target, path), time.monotonic() + timeout)
    won.sock.close()
    return won.status, won.said


class _Get(Dial):
    """An HTTP GET."""

    def __init__(self, target: Target, path: str) -> None:
        super().__init__(target)
        self._request = f"GET {path} HTTP/1.0\r\nHost: {target.host}\r\nConnection: close\r\n\r\n"
        self._answer = b""
        self.status, self.said = 0, ""

    def greet(self) -> None:
        """Ask."""
        self.say(self._request.encode("utf-8"))

    def take(self, data: bytes) -> None:
        """Take a part of the answer, which ends with the connection; see `Dial.take`."""
        self._answer += data
        if data and len(self._answer) < _ANSWER_BYTES_MAX:
            return
        head, _, body = self._answer.partition(b"\r\n\r\n")
        protocol, _, rest = head.partition(b" ")
        if not protocol.startswith(b"HTTP/") or not rest[:3].isdigit():
            raise ValueError("the answer is not HTTP")
        self.status = int(rest[:3])
        self.said = body.decode("utf-8", "replace").strip().partition("\n")[0]
        self.answered = True


def _parse(argv: list[str]) -> dict[str, str]:
    options = dict.fromkeys(("--http", "--timeout", *_FLAGS), "")
    rest = iter(argv)
    for word in rest:
        name, equals, value = word.partition("=")
        if name not in options or (equals and name in _FLAGS):
            raise ValueError(f"unknown option {word!r}")
        options[name] = value if equals else "yes" if name in _FLAGS else next(rest, "")
        if not options[name]:
            raise ValueError(f"{name} needs a value")
    return options


def _seconds(text: str) -> float:
    seconds = float(text)
    if not TIMEOUT_MIN <= seconds <= TIMEOUT_MAX:
        raise ValueError(f"--timeout {text} is out of bounds: {TIMEOUT_MIN:g} to {TIMEOUT_MAX:g} s")
    return seconds


def _addresses(text: str) -> list[tuple[str, int]]:
    """Return the hosts and ports in a list: each is HOST:PORT, [IPV6]:PORT, or a PORT of this host."""
    return [_address(part.strip(), text) for part in text.split(",")]


def _address(text: str, whole: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit()) or not (colon or text):
        raise ValueError(f"{text!r} is not HOST:PORT" + ("" if text == whole else f", in {whole!r}"))
    if not 0 < int(port) <= _PORT_MAX:
        raise ValueError(f"{text!r} is not HOST:PORT: a port is 1 to {_PORT_MAX}")
    bare = host[1:-1] if host[:1] == "[" and host[-1:] == "]" else host
    if ":" in bare and (bare == host or not _is_ipv6(bare)):
        raise ValueError(f"{text!r} is not HOST:PORT; IPv6 has brackets: [::1]:9100")
    return _LOOPBACK.get(bare, bare), int(port)


def _is_ipv6(host: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except OSError:
        return False
    return True


def _tell(options: dict[str, str], status: str, said: str) -> None:
    if options["--quiet"]:
        return
    if options["--json"]:
        import json  # the usual call does not need it, and its import is slow

        sys.stdout.write(json.dumps({"status": status, "detail": said}) + "\n")
    elif status == "unreachable":
        sys.stderr.write(f"svc: {printable_line(said)}\n")
    else:
        sys.stdout.write(f"{status}: {printable_line(said)}\n" if said and said != status else f"{status}\n")
