"""A job as a client encodes it, without a client."""

from __future__ import annotations

from svc.client.pending import PendingJob
from svc.client.pipeline import encoded
from svc.client.specs import JobSpec, JobTemplate


def encode(spec: JobSpec) -> PendingJob:
    """Return the job in *spec*; pickles have no signature yet."""
    template = JobTemplate.of(spec.task, spec.options, signs=True)
    return encoded(template, spec.args, spec.kwargs)
