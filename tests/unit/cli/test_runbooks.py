"""The first commands of runbooks show the things that their comments promise."""

from __future__ import annotations

import shlex
from copy import copy
from functools import partial

import pytest

from svc.broker.local import LocalBroker
from svc.domain import commands as c
from svc.wire import PROTOCOL_VERSION
from tests.support.readme import blocks, lines, section
from tests.support.svc import ROOT

#: A runbook, the words of the comment, and the text that the command must show.
SHOWN = [
    ("SvcUnknownTask", "tasks that nobody knows", "nobody:knows"),
    ("SvcUnknownTask", "which queues and tasks each worker knows", "t:known"),
    ("SvcUnknownTask", "the note says why", "knows the task 'nobody:knows'"),
    ("SvcQueueStalled", "known to nobody", "nobody:knows"),
    ("SvcQueueOldestJobTooOld", "which tasks they know", "t:known"),
    ("SvcWorkerNotScraped", "its address under http", "127.0.0.1:9999"),
    ("SvcDrainForgotten", "says that a drain is in force", "draining"),
]


@pytest.fixture
def queue_with_an_unknown_task(svc, queue):
    for role, name in (("worker", "w"), ("consumer", "w/1")):
        known = (["t:known"], ["default"])
        hello = c.Hello(PROTOCOL_VERSION, role, name, "w", "host", 1, *known, http="127.0.0.1:9999")
        LocalBroker(queue, partial(copy, hello))
    svc("submit", "nobody:knows")


@pytest.mark.usefixtures("queue_with_an_unknown_task")
@pytest.mark.parametrize(("runbook", "comment", "shown"), SHOWN)
def test_a_command_shows_what_its_comment_says(svc, runbook, comment, shown):
    if runbook == "SvcDrainForgotten":
        svc("drain", "--no-wait")
    (block,) = blocks(section("First look", ROOT / f"docs/runbooks/{runbook}.md"))
    (line,) = [line for line in lines(block) if comment in line.comment]
    ended = svc(*shlex.split(line.command.replace("QUEUE", "default"))[1:])
    assert ended.code == 0
    assert shown in ended.out + ended.err
