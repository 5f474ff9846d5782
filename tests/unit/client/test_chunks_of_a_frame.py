"""How the jobs of a frame are divided into chunks and requests."""

from __future__ import annotations

import pytest

from svc.client.frames import requests_of
from svc.client.pending import PendingJob
from svc.domain.job import Terms

TERMS, URGENT = Terms("m:f"), Terms("m:f", priority=1)


@pytest.mark.parametrize(
    ("jobs", "chunks"),
    [
        ([PendingJob(TERMS, b"")] * 3, [[0, 1, 2]]),
        ([PendingJob(TERMS, b"", origin="o", number=number) for number in (3, 4, 5)], [[0, 1, 2]]),
        ([PendingJob(TERMS, b"", origin="o", number=number) for number in (3, 4, 6)], [[0, 1], [2]]),
        ([PendingJob(each, b"") for each in (TERMS, URGENT, TERMS, URGENT)], [[0, 2], [1, 3]]),
        ([PendingJob(TERMS, b"", delay) for delay in (0.0, 1.0, 1.0, 0.0)], [[0], [1, 2], [3]]),
        ([PendingJob(TERMS, b"", alone=alone) for alone in (False, True, False)], [[0], [1], [2]]),
        ([PendingJob(TERMS, b"", key="k", alone=True)] * 2, [[0], [1]]),
    ],
    ids=["alike", "numbered", "with a gap", "two lanes", "delays", "alone", "keys"],
)
def test_jobs_are_in_one_chunk_if_they_are_alike_and_follow_each_other(jobs, chunks):
    places = [PendingJob(*[getattr(job, name) for name in job.__struct_fields__]) for job in jobs]
    for place, job in enumerate(places):
        job.owner = place
    (found,) = requests_of(places).values()
    assert [[job.owner for job in chunk] for chunk in found] == chunks


def test_jobs_of_another_origin_and_strict_ones_are_requests_of_their_own():
    jobs = [PendingJob(TERMS, b""), PendingJob(TERMS, b"", strict=True), PendingJob(TERMS, b"", origin="o")]
    assert list(requests_of(jobs)) == [("", False), ("", True), ("o", False)]
