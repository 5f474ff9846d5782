"""The textbook program of `multiprocessing` queues, with its consumers anywhere on the network.

In one terminal: `svc dev`. In another, after the lines that it prints: `python examples/textbook.py`.

The classes are the textbook's. Consumers know neither: the objects travel as pickles (by cloudpickle, since
a script is no module that others can import), which `svc dev` accepts and a worker elsewhere does with
`--accept pickle` and the key that signs them. `svc demo` runs the same two programs with a manager and a
worker of its own.
"""

import multiprocessing
import time

from svc import Client


class MyFancyClass:
    """An object to be sent to a consumer."""

    def __init__(self, name):
        self.name = name

    def do_something(self):
        """Print which process does it."""
        proc_name = multiprocessing.current_process().name
        print(f"Doing something fancy in {proc_name} for {self.name}", flush=True)


class Task:
    """A task is called by its consumer, and what it returns is the result."""

    def __init__(self, a, b):
        self.a = a
        self.b = b

    def __call__(self):
        """Return the line to print."""
        time.sleep(0.1)  # pretend to take time to do the work
        return f"{self.a} * {self.b} = {self.a * self.b}"

    def __str__(self):
        return f"{self.a} * {self.b}"


def pass_messages(client):
    """The first program: objects go to consumers, which print in the terminal of their worker."""
    jobs = [client.submit(MyFancyClass(f"Fancy Dan {i}").do_something) for i in range(3)]
    client.results(jobs)


def collect_results(client):
    """The second program: 40 tasks, and their results in the order in which they end."""
    jobs = [client.submit(Task(i, i)) for i in range(40)]
    for job in client.as_completed(jobs):
        print("Result:", job.result())


if __name__ == "__main__":
    with Client() as client:  # SVC_MANAGER and SVC_AUTHKEY_FILE say where, and with which key
        pass_messages(client)
        collect_results(client)
