"""A stock `BaseManager` client for any CPython from 3.9 on: a producer or a consumer that writes history.

It uses only the standard library: `python plain_actor.py ROLE HOST PORT KEY_IN_HEX NAME FOLDER [TASK]`.
It exits with code 3 when its manager has gone, because a stock client must then be started again.
"""

from __future__ import annotations

import json
import os
import sys
import time
from multiprocessing.managers import BaseManager
from typing import Any


class Manager(BaseManager):
    pass


Manager.register("tasks")


class Log:
    def __init__(self, *path):
        os.makedirs(os.path.join(*path[:-1]), exist_ok=True)  # noqa: PTH103, PTH118  # as short as it gets
        self.descriptor = os.open(os.path.join(*path), os.O_WRONLY | os.O_APPEND | os.O_CREAT)  # noqa: PTH118

    def write(self, **line):
        os.write(self.descriptor, json.dumps(line).encode() + b"\n")


def produce(tasks, name, folder, task):
    log = Log(folder, "calls", name + ".jsonl")
    number = 0
    while True:
        about = {"client": name, "verb": "submit", "first": number, "count": 1, "call": time.monotonic()}
        log.write(**about)
        tasks.put((task, (f"{name}-{number}", 0.002, folder), {}))
        log.write(returned=time.monotonic(), outcome="ok", **about)
        number += 1
        time.sleep(0.02)


def consume(tasks, name, folder, task):
    log = Log(folder, "executions", name + ".jsonl")
    while True:
        item = tasks.get()
        if item is None:
            return
        label, seconds, _ = item[1]
        log.write(label=label, pid=os.getpid(), start=time.monotonic())
        time.sleep(seconds)
        log.write(label=label, pid=os.getpid(), end=time.monotonic())
        tasks.task_done()


def main(role, host, port, key, name, folder, task=""):
    try:
        manager: Any = Manager((host, int(port)), authkey=bytes.fromhex(key))
        manager.connect()
        {"produce": produce, "consume": consume}[role](manager.tasks(), name, folder, task)
    except (OSError, EOFError):
        os._exit(3)


if __name__ == "__main__":
    main(*sys.argv[1:])
