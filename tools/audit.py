"""Ask a vulnerability database about every pinned package: `make audit`.

pip-audit alone says "no known vulnerabilities" and exits with 0 even if the index has no data on
vulnerabilities, as with most mirrors and caches. So this program counts the packages for which the database
has an answer. The exit code is

- 0 if it has an answer for every package and no vulnerability is known,
- 1 if a vulnerability is known, a package was left out or pip-audit failed,
- 3 if no database was reached, so that nothing was audited.

With `--allow-unreachable`, the last case and a package that was left out give a warning and exit code 0.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.environments import ROOT, interpreter

LOCK = Path(__file__).parent / "locks" / "audit.lock"
AUDITED = ROOT / "requirements.lock"
#: The databases, in the order in which they are tried until one answers.
SERVICES = ("pypi", "osv")
#: The most seconds that one database may take.
SERVICE_SECONDS = 60
#: Words in a traceback of pip-audit if the network, a proxy or a certificate prevented the connection.
_NO_CONNECTION = ("requests.exceptions.", "ConnectionError", "ServiceError")
EXIT_VULNERABLE, EXIT_UNREACHABLE = 1, 3


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of one database: how many packages it knows, those left out, and the vulnerabilities."""

    known: int
    left_out: tuple[str, ...]
    vulnerable: tuple[str, ...]


class AuditFailed(Exception):
    """pip-audit itself failed, and not because a database could not be reached."""


def answer_in(document: str, said: str) -> Answer | None:
    """Return the answer in the JSON of pip-audit, or None if no database has an answer for any package.

    Raises:
        AuditFailed: there is no JSON, and the error output, *said*, names no broken connection.
    """
    try:
        packages: list[dict[str, Any]] = json.loads(document)["dependencies"]
    except (ValueError, KeyError, TypeError):
        if any(word in said for word in _NO_CONNECTION):
            return None
        raise AuditFailed(said[-2000:] or "pip-audit said nothing") from None
    left_out = tuple(each["name"] for each in packages if "skip_reason" in each)
    if len(left_out) == len(packages):
        return None
    vulnerable = tuple(_shown(each, found) for each in packages for found in each.get("vulns", ()))
    return Answer(len(packages) - len(left_out), left_out, vulnerable)


def _shown(package: dict[str, Any], found: dict[str, Any]) -> str:
    mended = ", ".join(found["fix_versions"]) or "no release yet"
    return f"{package['name']} {package['version']}: {found['id']}, mended in {mended}"


def ask(service: str) -> Answer | None:
    """Return a database's answer for all pinned packages, or None if it cannot be reached.

    Raises:
        AuditFailed: as for `answer_in`.
    """
    flags = ["--require-hashes", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
    command = [str(interpreter(LOCK)), "-m", "pip_audit", *flags, "--vulnerability-service", service]
    try:
        done = subprocess.run(
            [*command, "--requirement", str(AUDITED)],
            capture_output=True,
            text=True,
            timeout=SERVICE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    return answer_in(done.stdout, done.stderr)


def findings(answer: Answer | None, *, allow_unreachable: bool) -> tuple[int, str]:
    """Return the exit code and the text to print."""
    if answer is None:
        mark = "WARNING" if allow_unreachable else "error"
        return (0 if allow_unreachable else EXIT_UNREACHABLE), (
            f"{mark}: {AUDITED.name} was NOT AUDITED: no vulnerability database ({', '.join(SERVICES)}) can "
            "be reached from here; run `make audit` where one can"
        )
    if answer.vulnerable or answer.left_out:
        lines = [
            *answer.vulnerable,
            *(f"{name}: NOT AUDITED, left out by the database" for name in answer.left_out),
        ]
        bad = answer.vulnerable or not allow_unreachable
        return (EXIT_VULNERABLE if bad else 0), "\n".join(lines)
    return 0, f"{answer.known} packages of {AUDITED.name} were audited; no vulnerability is known"


def main(arguments: list[str] | None = None) -> int:
    """Audit; return the exit code."""
    parser = argparse.ArgumentParser(description="Ask a vulnerability database about every pinned package.")
    parser.add_argument("--allow-unreachable", action="store_true", help="only warn where there is none")
    asked = parser.parse_args(arguments)
    try:
        answer = next(filter(None, map(ask, SERVICES)), None)
    except AuditFailed as error:
        sys.stderr.write(f"pip-audit failed, and {AUDITED.name} was NOT AUDITED:\n{error}\n")
        return EXIT_VULNERABLE
    code, text = findings(answer, allow_unreachable=asked.allow_unreachable)
    sys.stderr.write(f"{text}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
