"""The fuzzer of typed commands: `python -m tests.fuzz.commands --seconds 60 --seed 1`.

It sends stories of commands and plain calls with odd fields to a queue host, with disconnects, jumps of the
clock and restarts, and checks the invariants of the ledger after each step. A story that breaks one is
shortened to the necessary steps and kept in `.fuzz/findings`; `--input FILE` runs it again.
"""

from __future__ import annotations

import argparse
import logging
import random
import re
import resource
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from svc.broker.broken import StateBroken
from svc.broker.host import QueueHost
from tests.fuzz.author import Author
from tests.fuzz.oracle import Hang, limit_memory
from tests.fuzz.scene import Scene
from tests.fuzz.steps import Desert, Frame, Restart, Review, Step, Story, Typed

FOLDER = Path(__file__).parents[2] / ".fuzz" / "findings"
#: The largest numbers of steps in a story: a state that only grows teaches little.
STORY_STEPS = (50, 200, 600, 1500)
#: Steps between two checks of the whole state.
REVIEW_STEPS = 25
#: Seconds for which a story is repeated to find the necessary steps.
SHORTENING_SECONDS = 20.0
#: Bytes by which the memory of the process may exceed that at its start.
MEMORY_BYTES_MAX = 1 << 30
_END: tuple[Step, ...] = (Review(), Restart(committed=True), Desert(), Review())


@dataclass(frozen=True, slots=True)
class Failure:
    """A story that broke a promise, and the error."""

    story: Story
    error: BaseException

    @property
    def kind(self) -> str:
        """The difference from other failures: the kind of the error, and the place that raised it."""
        return _kind(self.error)


@dataclass(slots=True)
class Tally:
    """The amount of work so far."""

    stories: int = 0
    steps: int = 0


def tell(seed: str, tally: Tally, host: type[QueueHost] = QueueHost) -> Failure | None:
    """Make up a story with *seed* and run it; return its failure, or None."""
    rng = random.Random(seed)
    told: list[Step] = []
    tally.stories += 1
    with Scene(seed, host) as scene:
        author = Author(scene, rng)
        try:
            for number in range(rng.choice(STORY_STEPS)):
                told.append(Review() if number % REVIEW_STEPS == REVIEW_STEPS - 1 else author.step())
                scene.tell(told[-1])
            for step in _END:
                told.append(step)
                scene.tell(step)
        except (Exception, Hang) as error:  # noqa: BLE001  # the fuzzer looks for any error
            return Failure(Story(seed, told), error)
        finally:
            tally.steps += len(told)
    return None


def retell(story: Story, host: type[QueueHost] = QueueHost) -> Failure | None:
    """Run the steps of *story* again; return its failure, or None."""
    with Scene(story.seed, host) as scene:
        for number, step in enumerate(story.steps):
            try:
                scene.tell(step)
            except (Exception, Hang) as error:  # noqa: BLE001  # as in `tell`
                return Failure(Story(story.seed, story.steps[: number + 1]), error)
    return None


def shortened(failure: Failure, host: type[QueueHost] = QueueHost) -> Failure:
    """Return the same failure with fewer steps, found by leaving out ever smaller parts."""
    best, kind = failure, failure.kind
    part = max(1, len(failure.story.steps) // 2)
    until = time.monotonic() + SHORTENING_SECONDS
    while True:
        start = 0
        while start < len(best.story.steps) and time.monotonic() < until:
            steps = best.story.steps
            found = retell(Story(best.story.seed, steps[:start] + steps[start + part :]), host)
            if found is not None and found.kind == kind:
                best = found
            else:
                start += part
        if part == 1:
            break
        part //= 2
    return _with_fewer_commands(best, host, until)


def _with_fewer_commands(failure: Failure, host: type[QueueHost], until: float) -> Failure:
    """Return the same failure with fewer commands in its frames."""
    best = failure
    for number, step in enumerate(failure.story.steps):
        for place in reversed(range(len(getattr(step, "commands", ())))):
            steps = list(best.story.steps)
            frame = steps[number]
            if isinstance(frame, Frame | Typed) and len(frame.commands) > 1 and time.monotonic() < until:
                commands = frame.commands[:place] + frame.commands[place + 1 :]
                steps[number] = replace(frame, commands=commands)
                found = retell(Story(best.story.seed, steps), host)
                if found is not None and found.kind == best.kind and len(found.story.steps) == len(steps):
                    best = found
    return best


def fuzz(
    seed: int, enough: Callable[[Tally], bool], tally: Tally, host: type[QueueHost] = QueueHost
) -> dict[str, Failure]:
    """Run stories until *enough* is true; return one failure of each kind, shortened."""
    found: dict[str, Failure] = {}
    while not enough(tally):
        failure = tell(f"{seed}-{tally.stories}", tally, host)
        if failure is not None and failure.kind not in found:
            found[failure.kind] = shortened(failure, host)
    return found


def _kind(error: BaseException) -> str:
    """Return the type, place and words of an error, without its numbers."""
    if isinstance(error, StateBroken) and error.__cause__ is not None:
        error = error.__cause__
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/service/" in frame.filename] or list(frames)
    place = f"{Path(ours[-1].filename).name}:{ours[-1].name}" if ours else ""
    words = re.sub(r":.*|\d+", "", str(error), flags=re.DOTALL)[:60].strip()
    return f"{type(error).__name__} in {place}: {words}"


def _report(number: int, failure: Failure, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"commands-{failure.story.seed}-{number}"
    failure.story.save(path)
    lines = "".join(traceback.format_exception(failure.error))
    path.with_suffix(".error").write_text(lines, errors="backslashreplace")
    sys.stdout.write(f"found: {failure.kind} by {len(failure.story.steps)} steps: {path}\n")


def again(path: Path) -> int:
    """Run the story in a file again; return 1 if it fails, with the error on standard error."""
    failure = retell(Story.load(path))
    if failure is None:
        sys.stdout.write("nothing is found in it\n")
        return 0
    traceback.print_exception(failure.error)
    return 1


def main() -> int:
    """Fuzz with the options of the command line; return the exit code, 1 if something was found."""
    parser = argparse.ArgumentParser(description="Fuzz the queue with typed commands.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--findings", type=Path, default=FOLDER, metavar="FOLDER", help="failed stories go there"
    )
    parser.add_argument("--input", type=Path, metavar="FILE", help="tell this story again")
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    if asked.input:
        return again(asked.input)
    limit_memory(MEMORY_BYTES_MAX)
    started, tally = time.monotonic(), Tally()
    found = fuzz(asked.seed, lambda tally: time.monotonic() > started + asked.seconds, tally)
    for number, failure in enumerate(found.values()):
        _report(number, failure, asked.findings)
    taken = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sys.stdout.write(
        f"{tally.steps} steps of {tally.stories} stories in {taken:.0f} s, "
        f"{tally.steps / taken:.0f} a second, {peak >> 10} MiB at most; {len(found)} kinds of failure\n"
    )
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
