"""A worker process for tests: `python -m tests.support.worker_main DOCUMENT`."""

from __future__ import annotations

import functools
import json
import sys
from dataclasses import replace

import msgspec

from svc.app.worker import make_child_client
from svc.errors import ServiceError
from svc.worker.options import Connect, WorkerOptions
from svc.worker.process import signals_held_back
from svc.worker.supervisor import Supervisor
from tests.support.workers import configure_logging, connect


def main(document: str) -> int:
    """Run the worker in *document* (see `workers.Worker.start`); return its exit code."""
    settings = json.loads(document)
    address, key, level = tuple(settings.pop("address")), settings.pop("key"), settings.pop("level")
    settings.pop("submitter", None)  # a function
    options = replace(msgspec.convert(settings, WorkerOptions), submitter=make_child_client)
    with signals_held_back():  # as `svc.app.worker` does
        return _run(options, functools.partial(connect, address, bytes.fromhex(key)), level)


def _run(options: WorkerOptions, connect: Connect, level: str) -> int:
    configure_logging(level)
    supervisor = Supervisor(options, connect, functools.partial(configure_logging, level))
    try:
        return supervisor.run()
    except ServiceError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
