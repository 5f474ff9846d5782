"""The steps of a story that the fuzzer of typed commands tells, each a plain value that can be told again.

Each peer has a number of its own. A step of a peer that is not there is passed over, so that a story stays
one when some of its steps are left out.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from svc.domain.commands import Command
from svc.domain.roles import Role


@dataclass(frozen=True, slots=True)
class Connect:
    """A peer comes with a key of this role."""

    peer: int
    role: Role


@dataclass(frozen=True, slots=True)
class HangUp:
    """A peer's connection ends."""

    peer: int


@dataclass(frozen=True, slots=True)
class Frame:
    """A peer sends one frame of commands, which is encoded, decoded and held against the role table."""

    peer: int
    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class Typed:
    """Commands reach the host typed, as those of plain calls do; the role table is not asked."""

    peer: int
    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """A peer makes a stock client's call, pickled by this protocol."""

    peer: int
    typeid: str
    method: str
    args: tuple[Any, ...] = ()
    kwds: dict[str, Any] = field(default_factory=dict)
    protocol: int = 4


@dataclass(frozen=True, slots=True)
class Turn:
    """The loop ends its turn; an *early* one only hands out jobs before that."""

    early: bool = False


@dataclass(frozen=True, slots=True)
class Pass:
    """Time passes, and the loop turns."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Silence:
    """No worker is heard of for longer than a lease lasts: only plain clients still hold jobs."""


@dataclass(frozen=True, slots=True)
class Restart:
    """The manager ends and another opens its journal, with the last turn *committed* or lost."""

    committed: bool


@dataclass(frozen=True, slots=True)
class Recover:
    """The manager drops its state and recovers in place, with the last turn *committed* or lost."""

    committed: bool


@dataclass(frozen=True, slots=True)
class Desert:
    """All peers hang up, and a lease time passes: no job is held any more, and nobody waits."""


@dataclass(frozen=True, slots=True)
class Review:
    """The whole state is checked, and the journal replayed beside it."""


Step = Connect | HangUp | Frame | Typed | Call | Turn | Pass | Silence | Restart | Recover | Desert | Review


def _told(step: Step) -> Iterator[str]:
    """Yield a step as text; of a long frame the first commands, each cut off where it gets long."""
    if not isinstance(step, Frame | Typed):
        yield f"{step!r:.2000}"
        return
    yield f"{type(step).__name__} of peer {step.peer}, {len(step.commands)} commands:"
    yield from (f"  {command!r:.2000}" for command in step.commands[:12])


@dataclass(frozen=True, slots=True)
class Story:
    """Steps, and the *seed* of the limits and the journal that they are told with."""

    seed: str
    steps: list[Step]

    def save(self, path: Path) -> None:
        """Write the story to *path*, and for people to read beside it."""
        path.write_bytes(pickle.dumps(self))
        lines = [f"{number:4} {line}\n" for number, step in enumerate(self.steps) for line in _told(step)]
        path.with_suffix(".txt").write_text("".join(lines), errors="backslashreplace")

    @classmethod
    def load(cls, path: Path) -> Story:
        """Read what `save` wrote; the file is our own, and is unpickled."""
        story = pickle.loads(path.read_bytes())
        if not isinstance(story, cls):
            raise TypeError(f"{path} is not a story")
        return story
