"""An audit that did not take place must never look like one that found nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tools import audit
from tools.audit import Answer, AuditFailed, answer_in

FINE = {"name": "a", "version": "1", "vulns": []}
LEFT_OUT = {"name": "b", "skip_reason": "Dependency not found on PyPI and could not be audited: b (2)"}
BAD = {"name": "c", "version": "3", "vulns": [{"id": "PYSEC-1", "fix_versions": ["4"]}]}


def said(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": packages})


def test_an_index_that_knows_no_package_is_no_database():
    """pip-audit ends with 0 then, and says that no vulnerability is known."""
    assert answer_in(said(LEFT_OUT, LEFT_OUT), "No known vulnerabilities found") is None


@pytest.mark.parametrize("kind", ["ConnectionError", "SSLError", "ProxyError", "ReadTimeout"])
def test_nor_is_one_that_cannot_be_reached(kind):
    assert answer_in("", f"Traceback …\nrequests.exceptions.{kind}: …") is None


def test_any_other_failure_is_a_failure():
    with pytest.raises(AuditFailed, match="bad lock"):
        answer_in("", "bad lock")


@pytest.mark.parametrize(
    ("answers", "flags", "code", "words"),
    [
        ([Answer(2, (), ())], [], 0, "2 packages of requirements.lock were audited"),
        ([None, Answer(2, (), ())], [], 0, "2 packages"),
        ([None, None], [], 3, "error: requirements.lock was NOT AUDITED"),
        ([None, None], ["--allow-unreachable"], 0, "WARNING: requirements.lock was NOT AUDITED"),
        ([answer_in(said(FINE, BAD), "")], ["--allow-unreachable"], 1, "c 3: PYSEC-1, mended in 4"),
        ([answer_in(said(FINE, LEFT_OUT), "")], [], 1, "b: NOT AUDITED, left out by the database"),
        ([answer_in(said(FINE, LEFT_OUT), "")], ["--allow-unreachable"], 0, "b: NOT AUDITED"),
        ([answer_in(said(BAD, LEFT_OUT), "")], ["--allow-unreachable"], 1, "c 3: PYSEC-1"),
    ],
)
def test_the_exit_code_says_what_was_audited(answers, flags, code, words, monkeypatch, capsys):
    waiting = list(answers)
    monkeypatch.setattr(audit, "ask", lambda service: waiting.pop(0))
    assert audit.main(flags) == code
    assert words in capsys.readouterr().err


def test_a_failing_tool_is_no_reason_to_go_on(monkeypatch, capsys):
    def ask(service: str) -> None:
        raise AuditFailed("no such option")

    monkeypatch.setattr(audit, "ask", ask)
    assert audit.main(["--allow-unreachable"]) == 1
    assert "no such option" in capsys.readouterr().err
