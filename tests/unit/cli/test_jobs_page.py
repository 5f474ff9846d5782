"""The commands of docs/jobs.md do what the page says."""

from __future__ import annotations

import shlex

from tests.support.readme import blocks, lines, section
from tests.support.svc import ROOT

PAGE = ROOT / "docs" / "jobs.md"


def test_the_purges_of_the_page_remove_the_jobs_that_it_says(svc, consumer):
    for task, queue in (("t:f", "mail"), ("t:f", "mail"), ("t:f", "default")):
        svc("submit", task, "1", "--queue", queue)
    consumer.take_from("mail", "default")
    for _ in range(3):
        consumer.fail()
    for number in range(3):
        svc("submit", "t:f", str(number))
        consumer.succeed()
    (block,) = blocks(section("Remove", PAGE))
    for line in lines(block):
        ended = svc(*shlex.split(line.command)[1:])
        assert (ended.code, ended.out) == (0, f"{line.comment}\n"), line.command
