"""Times as the command line prints them, also such as older managers have accepted."""

from __future__ import annotations

import json
import math

import pytest

from svc.cli.documents import job_document
from svc.cli.output import moment, span
from svc.domain.job import JobView


@pytest.mark.parametrize("due", [math.inf, 1e308, 1e18, 253_402_300_800.0, 99_999_999_999 * 86_400.0])
def test_a_job_that_is_never_due_can_be_printed(due):
    view = JobView("o-0", "t:f", "default", "scheduled", 0, "plain", 1.0, due_at=due)
    assert json.loads(json.dumps(job_document(view)))["due_at"] == "9999-12-31T23:59:59.000Z"
    assert span(due)
    assert span(-due)


def test_other_times_are_told_as_they_are():
    assert moment(1_700_000_000.25) == "2023-11-14T22:13:20.250Z"
    assert moment(None) is None
