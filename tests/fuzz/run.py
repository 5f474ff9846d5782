"""Fuzzes the code that the network reaches: `make fuzz MINUTES=10 SEED=1`.

It is guided by coverage, except for the target `commands`, which is `tests.fuzz.commands` with a share of the
time. At the end it prints a table, and exits with 1 if something was found: then the inputs are in
`.fuzz/findings`, and `python -m tests.fuzz.run --input FILE --target NAME` runs one of them again.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.environments import interpreter
from tests.fuzz import commands
from tests.fuzz.corpus import dictionary, seeds
from tests.fuzz.oracle import Watch
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
LOCK = Path(__file__).parent / "locks" / "fuzz.lock"
#: Inputs that reach new code are kept there; the next run starts with them.
FOLDER = ROOT / ".fuzz"
FINDINGS = FOLDER / "findings"
#: The share of the time for each target: a manager is far slower, and has the most code paths.
SHARES = {"decoder": 0.2, "frames": 0.2, "connection": 0.35, "commands": 0.25}
#: The limits for an input: its bytes, and the seconds and MiB that it may take.
INPUT_BYTES_MAX = 8192
INPUT_SECONDS_MAX = 5
PROCESS_MIB_MAX = 1024


@dataclass(frozen=True, slots=True)
class Result:
    """The figures of the fuzzing of one target."""

    target: str
    seconds: float
    executions: int
    coverage: int
    features: int
    kept: int
    peak_mib: int
    findings: int

    def row(self) -> str:
        """Return the line of the table."""
        speed = self.executions / max(self.seconds, 0.001)
        return (
            f"{self.target:<12}{self.executions:>12,}{speed:>9,.0f}{self.coverage:>8,}{self.features:>10,}"
            f"{self.kept:>8,}{self.peak_mib:>9,}{self.findings:>10,}"
        )


HEAD = (
    f"{'target':<12}{'executions':>12}{'a s':>9}{'edges':>8}{'features':>10}{'inputs':>8}{'peak MiB':>9}"
    f"{'findings':>10}"
)


def tell(seconds: float, seed: int) -> Result:
    """Fuzz the queue with typed commands for *seconds*."""
    FINDINGS.mkdir(parents=True, exist_ok=True)
    before = set(FINDINGS.glob("*.error"))
    started = time.monotonic()
    command = [sys.executable, "-m", "tests.fuzz.commands", "--seconds", str(seconds), "--seed", str(seed)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    (FOLDER / "commands.log").write_text(run.stdout + run.stderr)
    if run.returncode not in (0, 1):
        sys.stderr.write(run.stderr[-4000:])
    found = len(set(FINDINGS.glob("*.error")) - before)
    taken = time.monotonic() - started
    peak = _last(r"(\d+) MiB at most", run.stdout)
    steps, stories = (_last(rf"(\d+) {what}", run.stdout) for what in ("steps", "stories"))
    return Result("commands", taken, steps, 0, 0, stories, peak, max(found, int(run.returncode != 0)))


def fuzz(target: str, seconds: float, seed: int) -> Result:
    """Fuzz one target for *seconds*, or until something is found."""
    corpus = FOLDER / "corpus" / target
    for folder in (corpus, FINDINGS):
        folder.mkdir(parents=True, exist_ok=True)
    for data in seeds(target).values():
        (corpus / hashlib.sha1(data).hexdigest()).write_bytes(data)
    before = set(FINDINGS.iterdir())
    started = time.monotonic()
    log = FOLDER / f"{target}.log"
    with log.open("wb") as file:
        code = subprocess.run(
            _command(target, corpus, seconds, seed),
            cwd=ROOT,
            env=environment(),
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    found = len(set(FINDINGS.iterdir()) - before)
    if code and not found:
        sys.stderr.write(log.read_text(errors="replace")[-4000:])
    text = log.read_text(errors="replace")
    return Result(
        target,
        time.monotonic() - started,
        _last(r"stat::number_of_executed_units: +(\d+)", text) or _last(r"^#(\d+)", text),
        _last(r"cov: (\d+)", text),
        _last(r"ft: (\d+)", text),
        sum(1 for _ in corpus.iterdir()),
        _last(r"stat::peak_rss_mb: +(\d+)", text) or _last(r"rss: (\d+)Mb", text),
        max(found, int(code != 0)),
    )


def environment() -> dict[str, str]:
    """Return the environment of the fuzzer, whose interpreter is not the one that svc is installed for."""
    return {**os.environ, "PYTHONPATH": f"{ROOT / 'service'}{os.pathsep}{ROOT}"}


def _command(target: str, corpus: Path, seconds: float, seed: int) -> list[str]:
    words = FOLDER / "words.dict"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in dictionary()))
    flags = {
        "max_total_time": max(1, round(seconds)),
        "seed": seed,
        "max_len": INPUT_BYTES_MAX,
        "timeout": INPUT_SECONDS_MAX,
        "rss_limit_mb": PROCESS_MIB_MAX,
        "artifact_prefix": f"{FINDINGS}/{target}-",
        "print_final_stats": 1,
        "dict": words,
    }
    return [
        str(interpreter(LOCK)), "-m", "tests.fuzz.fuzzer", target,
        *(f"-{name}={value}" for name, value in flags.items()), str(corpus),
    ]  # fmt: skip


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def _last(pattern: str, text: str) -> int:
    found = re.findall(pattern, text, re.MULTILINE)
    return int(found[-1]) if found else 0


def main() -> int:
    """Fuzz with the options of the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Fuzz what the network reaches.")
    parser.add_argument("--minutes", type=float, default=10.0, help="for all targets together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=SHARES, help="this one alone")
    parser.add_argument("--input", type=Path, metavar="FILE", help="look at this input once, without atheris")
    asked = parser.parse_args()
    chosen = [asked.target] if asked.target else list(SHARES)
    if asked.input and chosen == ["commands"]:
        return commands.again(asked.input)
    if asked.input:
        with Watch().one_input():
            TARGETS[chosen[0]](asked.input.read_bytes())
        return 0
    shutil.rmtree(FINDINGS, ignore_errors=True)
    sys.stdout.write(f"{HEAD}\n")
    failed = False
    for target in chosen:
        share = 1.0 if asked.target else SHARES[target]
        seconds = asked.minutes * 60 * share
        result = tell(seconds, asked.seed) if target == "commands" else fuzz(target, seconds, asked.seed)
        sys.stdout.write(f"{result.row()}\n")
        sys.stdout.flush()
        failed = failed or result.findings > 0
    if failed:
        sys.stdout.write(f"found: see {FINDINGS.relative_to(ROOT)} and {FOLDER.relative_to(ROOT)}/*.log\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
