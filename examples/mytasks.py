"""Tasks of one's own: plain functions in a module that workers import.

    svc dev --tasks mytasks            # in this folder; or svc worker --tasks mytasks
    svc submit mytasks:add 2 3 --wait

Every public function of the module is a task, `mytasks:add`. `@task` gives one a name of its own, a number of
retries, a timeout. Arguments and results are plain data, and arguments are checked against the annotations
before the function is called.
"""

import random
import time

from svc import task


def add(a: int, b: int) -> int:
    """Need no decorator."""
    return a + b


@task(name="greet")
def greet(name: str, *, loud: bool = False) -> str:
    """Have a name without a module: `svc submit greet Ada --kwargs '{"loud": true}' --wait`."""
    text = f"Hello, {name}!"
    return text.upper() if loud else text


@task(retries=5, backoff=0.2)
def fetch(address: str) -> str:
    """Fail now and then, as a network does; svc tries again after 0.2, 0.4, 0.8 … seconds."""
    if random.random() < 0.5:
        raise ConnectionError(f"{address} did not answer")
    return f"the page at {address}"


@task(timeout=2.0, retries=0)
def simulate(seconds: float) -> float:
    """Be killed after two seconds: the consumer that runs it is replaced, all others go on."""
    time.sleep(seconds)
    return seconds
