"""The random numbers of svc's own decisions, such as the jitter of a pause.

They come from the system. The generator of the module `random` belongs to the program that uses svc: a task
that seeds it must get the numbers that follow from the seed, and must not make all pauses equal.
"""

from __future__ import annotations

from random import SystemRandom
from typing import Final

#: Thread-safe, and of its own in each process.
CHANCE: Final = SystemRandom()
