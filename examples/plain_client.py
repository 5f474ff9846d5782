"""A client of svc that imports nothing of svc: the standard library's BaseManager is enough.

    python plain_client.py submit      put jobs for svc's own workers, and print their results
    python plain_client.py produce     put plain data for plain consumers, and print their answers
    python plain_client.py consume     be such a consumer, until nothing came for a while; run several

It needs the manager's address and a copy of the authkey file, on any Python from 3.8 on.
"""

import argparse
import os
import queue
from contextlib import suppress
from multiprocessing.managers import BaseManager
from pathlib import Path

#: A consumer to which nothing has come for so long goes home.
IDLE_SECONDS = 3


class Service(BaseManager):
    """What `register` below gives the two queues of the manager."""


Service.register("tasks")
Service.register("results")


def connect(address, authkey_file):
    """Return the two shared queues."""
    host, _, port = address.rpartition(":")
    authkey = Path(authkey_file).read_bytes()
    service = Service((host.strip("[]"), int(port)), authkey[:-1] if authkey.endswith(b"\n") else authkey)
    service.connect()
    return service.tasks(), service.results()


def submit(tasks, results, count):
    """A tuple (task, args, kwargs) is a job that svc's workers run; its result comes into `results`."""
    for i in range(count):
        tasks.put(("svc.cli.demo_tasks:multiply", (i, i), {}))
    for _ in range(count):
        print("Result:", results.get())


def produce(tasks, results, count):
    """Anything else is an item for plain consumers, which answer into `results`."""
    for i in range(count):
        tasks.put({"number": i})
    for _ in range(count):
        print("Result:", results.get())


def consume(tasks, results, count):
    """What a consumer got and did not finish goes back to the queue when its process ends.

    `tasks.put(None)` is a pill: it ends exactly one consumer, the first that asks, be it plain or svc's own.
    """
    with suppress(queue.Empty):
        while (item := tasks.get(True, IDLE_SECONDS)) is not None:
            number = item["number"]
            results.put(f"{number} * {number} = {number * number}")
            tasks.task_done()
    print("Exiting")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("role", choices=("submit", "produce", "consume"))
    parser.add_argument(
        "--manager", default=os.environ.get("SVC_MANAGER", "127.0.0.1:7077"), metavar="HOST:PORT"
    )
    parser.add_argument(
        "--authkey-file", default=os.environ.get("SVC_AUTHKEY_FILE", "authkey"), metavar="FILE"
    )
    parser.add_argument("--count", type=int, default=10)
    options = parser.parse_args()
    role = {"submit": submit, "produce": produce, "consume": consume}[options.role]
    role(*connect(options.manager, options.authkey_file), options.count)
