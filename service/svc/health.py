"""`svc health`: ask a manager or worker on this host whether it is ready. Standard library only.

Containers run this every few seconds. So it imports nothing else of svc, and only the modules of the standard
library that a plain HTTP request needs. `svc` calls it before it loads its command line.
"""

from __future__ import annotations

import os
import socket
import sys

from svc.printable import printable_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

USAGE = """\
Usage: svc health [OPTIONS]

  Ask the manager or worker on this host whether it is ready to work.

Options:
  --http HOST:PORT   Address of its metrics and health.  [env var: SVC_HTTP; default: 127.0.0.1:9100]
  --live             Ask only whether the process is alive, not whether it can work.
  --timeout SECONDS  Time to wait for the answer.  [default: 3]
  --json             Print one JSON document.
  --quiet            Print nothing.
  --help             Show this message and exit.

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


def main(argv: list[str]) -> int:
    """Run `svc health` with *argv* after the verb; return the exit code."""
    if "--help" in argv or "-h" in argv:
        sys.stdout.write(USAGE)
        return 0
    try:
        options = _parse(argv)
        host, port = _address(options["--http"] or os.environ.get("SVC_HTTP") or DEFAULT_HTTP)
        timeout = _seconds(options["--timeout"] or "3")
    except ValueError as error:
        sys.stderr.write(f"svc: {error}; try `svc health --help`\n")
        return 2
    path = "/livez" if options["--live"] else "/readyz"
    try:
        status, said = probe(host, port, path, timeout)
    except (OSError, ValueError) as error:
        _tell(options, "unreachable", f"nothing answers at {host}:{port}: {error}")
        return 3
    _tell(options, "ok" if status == 200 else "not ready", said)
    return 0 if status == 200 else 1


def probe(host: str, port: int, path: str, timeout: float) -> tuple[int, str]:
    """Return the status and the first line of the answer to an HTTP GET, within *timeout* seconds.

    Raises:
        OSError: no connection, or no answer in time.
        ValueError: the answer is not HTTP.
    """
    request = f"GET {path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    # As bytes, because otherwise the standard library loads its tables of international names.
    at: Any = (host.encode("ascii"), port)
    with socket.create_connection(at, timeout) as connection:
        connection.sendall(request.encode("ascii"))
        answer = b""
        while len(answer) < _ANSWER_BYTES_MAX and (part := connection.recv(_ANSWER_BYTES_MAX)):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    protocol, _, rest = head.partition(b" ")
    if not protocol.startswith(b"HTTP/") or not rest[:3].isdigit():
        raise ValueError("the answer is not HTTP")
    return int(rest[:3]), body.decode("utf-8", "replace").strip().partition("\n")[0]


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


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit():
        raise ValueError(f"{text!r} is not HOST:PORT")
    host = host.strip("[]")
    return _LOOPBACK.get(host, host), int(port)


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
