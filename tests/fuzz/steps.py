"""The steps of a story of the fuzzer of typed commands; each is a plain value that can be run again.

Each peer has a number of its own. A step of a missing peer is skipped, so that a story remains valid if some
of its steps are left out.
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
    """A peer connects with a key of this role."""

    peer: int
    role: Role


@dataclass(frozen=True, slots=True)
class HangUp:
    """A peer's connection ends."""

    peer: int


@dataclass(frozen=True, slots=True)
class Frame:
    """A peer sends one frame of commands, which is encoded, decoded and checked with the role table."""

    peer: int
    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class Typed:
    """Commands reach the host typed, like those of plain calls; the role table is not checked."""

    peer: int
    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """A peer makes a stock client's call, pickled with this protocol."""

    peer: int
    typeid: str
    method: str
    args: tuple[Any, ...] = ()
    kwds: dict[str, Any] = field(default_factory=dict)
    protocol: int = 4


@dataclass(frozen=True, slots=True)
class Turn:
    """The loop ends its turn; an *early* turn only hands out jobs before that."""

    early: bool = False


@dataclass(frozen=True, slots=True)
class Pass:
    """Time passes, and the loop turns."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Silence:
    """No worker sends anything for longer than a lease: then only plain clients still hold jobs."""


@dataclass(frozen=True, slots=True)
class Restart:
    """The manager ends and another one opens its journal, with the last turn *committed* or lost."""

    committed: bool


@dataclass(frozen=True, slots=True)
class Recover:
    """The manager drops its state and recovers in place, with the last turn *committed* or lost."""

    committed: bool


@dataclass(frozen=True, slots=True)
class Desert:
    """All peers disconnect, and a lease time passes: then no job is held, and no request waits."""


@dataclass(frozen=True, slots=True)
class Review:
    """The whole state is checked, and the journal is replayed for comparison."""


Step = Connect | HangUp | Frame | Typed | Call | Turn | Pass | Silence | Restart | Recover | Desert | Review


def _told(step: Step) -> Iterator[str]:
    """Yield a step as text; for a long frame only the first commands, each cut if it is long."""
    if not isinstance(step, Frame | Typed):
        yield f"{step!r:.2000}"
        return
    yield f"{type(step).__name__} of peer {step.peer}, {len(step.commands)} commands:"
    yield from (f"  {command!r:.2000}" for command in step.commands[:12])


@dataclass(frozen=True, slots=True)
class Story:
    """Steps, and the *seed* of their limits and journal."""

    seed: str
    steps: list[Step]

    def save(self, path: Path) -> None:
        """Write the story to *path*, and a text for people beside it."""
        path.write_bytes(pickle.dumps(self))
        lines = [f"{number:4} {line}\n" for number, step in enumerate(self.steps) for line in _told(step)]
        path.with_suffix(".txt").write_text("".join(lines), errors="backslashreplace")

    @classmethod
    def load(cls, path: Path) -> Story:
        """Read a file that `save` wrote; it is trusted, and unpickled."""
        story = pickle.loads(path.read_bytes())
        if not isinstance(story, cls):
            raise TypeError(f"{path} is not a story")
        return story
