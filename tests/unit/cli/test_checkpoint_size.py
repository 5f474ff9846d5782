"""What `svc jobs show` says of the size of a checkpoint."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from svc.domain import commands as c
from tests.support.asking import record


@pytest.mark.parametrize(("data", "told"), [(b"c", "1 byte"), (b"cc", "2 bytes")])
def test_one_byte_is_told_in_the_singular(svc, consumer, data, told):
    job = svc("submit", "t:f", "1").out.strip()
    (delivery,) = consumer.broker.lease(limit=1, wait=timedelta(seconds=5)).grant.deliveries
    record(consumer.broker, c.Checkpoint(delivery.token, delivery.first, data))
    assert re.search(rf"^checkpoint +{told}, ", svc("jobs", "show", job).out, re.MULTILINE)
