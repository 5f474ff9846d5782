"""`svc logs` of a job that has written nothing."""

import pytest


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "there is no output of {job}"),
        (("--stderr",), "there is nothing on stderr of {job}; leave out --stderr for both streams"),
        (("--stdout",), "there is nothing on stdout of {job}; leave out --stdout for both streams"),
    ],
)
def test_a_stream_without_output_is_told_apart_from_a_job_without(svc, options, told):
    job = svc("submit", "t:f").out.strip()
    ended = svc("logs", job, *options)
    assert (ended.code, ended.out, ended.err) == (0, "", f"svc: {told.format(job=job)}\n")
