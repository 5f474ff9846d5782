"""`concurrent.futures` over the queue: what a ProcessPoolExecutor does, on the workers of any host.

In one terminal: `svc dev`. In another, after the lines that it prints:
`python examples/executor.py`.

It needs `pip install '.[pickle]'`, which `make venv` does: `is_prime` is in the program itself, so it travels
as code. A function in a module that the workers have goes as its name, without that package.

`codec="pickle"` lets any callable go, as a process pool does; `svc dev` accepts it, and so does a worker
elsewhere with `--accept pickle`. Pickles are signed with the key in SVC_PICKLE_KEY_FILE, which client and
worker share. Without all that, functions of modules that workers serve and plain data can go.
"""

import concurrent.futures
import math

from svc import Executor

NUMBERS = [112272535095293, 112582705942171, 115280095190773, 115797848077099, 1099726899285419]


def is_prime(number):
    """Tell whether a number is prime, in the slow way."""
    return all(number % divisor for divisor in range(3, math.isqrt(number) + 1, 2))


if __name__ == "__main__":
    with Executor(
        codec="pickle"
    ) as executor:  # SVC_MANAGER and SVC_AUTHKEY_FILE say where, and with which key
        futures = {executor.submit(is_prime, number): number for number in NUMBERS}
        for future in concurrent.futures.as_completed(futures):
            print(
                futures[future], "is prime" if future.result() else "is not prime", f"(job {future.job_id})"
            )

        impossible = executor.submit(divmod, 1, 0)
        print("one failure is one future's:", repr(impossible.exception()))

        for number, power in enumerate(executor.map(pow, range(10), range(10), chunksize=5)):
            print(f"{number} ** {number} = {power}")
