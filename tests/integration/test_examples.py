"""The page of examples: each line does as its comment says, and every command and option is in one."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from svc.cli.program import run as run_svc
from svc.health import USAGE
from tests.support.ports import lasting_port
from tests.support.readme import Line, blocks, lines
from tests.support.svc import ROOT, environment
from tests.support.workers import until
from tools.options import commands

PAGE = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
#: The lines of each section that has some.
SECTIONS = {
    text.partition("\n")[0]: [line for block in blocks(text) for line in lines(block)]
    for text in PAGE.split("\n## ")
    if blocks(text)
}
LINES = [line for each in SECTIONS.values() for line in each]
_NATS = "needs servers of NATS, which the page does not start"
_STREAMS = ["nats-credentials-file", "nats-tls-cert", "nats-tls-key", "nats-tls-ca"]
#: Options that are in no example, each with the reason.
WITHOUT = {
    f"svc {verb} --{option}": _NATS
    for verb, options in {
        "manager": [*_STREAMS, "journal-replicas", "mirror"],
        "journal info": _STREAMS,
        "journal verify": _STREAMS,
        "journal restore": [*_STREAMS, "journal-replicas"],
        "journal copy": [*_STREAMS, "journal-replicas"],
    }.items()
    for option in options
}
_SECONDS = 250.0
#: Written before the examples: checks the exit code of each, and its output if the comment says that.
_CHECKS = """
trap 'kill $(jobs -p); wait' EXIT
checked() {
  code=$?
  [ $code = "$2" ] || { echo "$1: exit code $code and not $2" >&2; exit 99; }
  [ -z "$3" ] || [ "$(cat printed)" = "$3" ] || { echo "$1: $(cat printed) and not $3" >&2; exit 99; }
}
"""


def option_of(each: Any) -> str:
    """Return the long name of an option, or "" for an argument."""
    return next((name for name in each.opts if name.startswith("--")), "")


def used(line: Line) -> Iterator[tuple[str, set[str]]]:
    """Yield each command in a line with its options, which end at `--`."""
    words = shlex.shlex(line.command, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    for call in "\n".join("\n" if set(word) <= {*";|&"} else word for word in words).split("\n\n\n"):
        _, found, rest = f"\n{call}".replace("\nstart\n", "\nsvc\nmanager\n").partition("\nsvc\n")
        own = rest.split("\n--\n")[0].split("\n")
        if found:
            pair, names = f"svc {' '.join(own[:2])}", {word for word in own if word.startswith("--")}
            yield pair if pair in DECLARED else f"svc {own[0]}", names


def declared() -> dict[str, dict[str, str]]:
    """Return the options of each command, with the help of each: the same text is one option of several."""
    found = {name: {option_of(each): each.help for each in command.params} for name, command in commands()}
    found["svc health"] = dict(re.findall(r"^  (--(?!help)[\w-]+).*?  (\S.*)$", USAGE, re.MULTILINE))
    for options in found.values():
        options.pop("", None)
    return found


DECLARED = declared()


def test_every_command_and_option_is_in_an_example():
    options = DECLARED
    verbs, shown = set[str](), set[tuple[str, str]]()
    for line in LINES:
        for verb, names in used(line):
            assert names <= options[verb].keys(), (line.command, names - options[verb].keys())
            verbs.add(verb)
            shown |= {(name, options[verb][name]) for name in names}
    assert options.keys() - verbs == set()
    missing = {
        f"{verb} {name}": text
        for verb, each in options.items()
        for name, text in each.items()
        if (name, text) not in shown
    }
    assert missing.keys() - WITHOUT.keys() == set()
    assert WITHOUT.keys() <= missing.keys(), "an example has one that is said to be in none"


class Terminal:
    """A shell in which one section after the other is typed; the ports of the page are free ones."""

    def __init__(self, folder: Path) -> None:
        ports = sorted(set(re.findall(r"127\.0\.0\.1:(\d+)", PAGE)))
        self._ports = {port: str(lasting_port()) for port in ports}
        (folder / "bin").mkdir()
        program = folder / "bin" / "svc"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m svc "$@"\n')
        program.chmod(0o755)
        self._home = folder / "here"
        self._home.mkdir()
        (self._home / "mytasks.py").write_text(blocks(PAGE, "python")[0])
        env = environment(SVC_MANAGER=f"127.0.0.1:{self._ports['7077']}")
        self._log = (folder / "log").open("w")
        self._shell = subprocess.Popen(
            ["bash"], cwd=self._home, env=env | {"PATH": f"{program.parent}:{env['PATH']}"},
            stdin=subprocess.PIPE, stdout=self._log, stderr=self._log, text=True,
        )  # fmt: skip
        self._type(_CHECKS)

    def _type(self, text: str) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.write(re.sub(r"(?<=127\.0\.0\.1:)\d+", lambda port: self._ports[port[0]], text))
        self._shell.stdin.flush()

    def run(self, section: str) -> None:
        """Type the lines of a section, and wait until all have been checked."""
        marker = self._home.parent / re.sub(r"\W", "-", section)
        assert self._shell.poll() is None, "an earlier section has failed"
        for line in SECTIONS[section]:
            wanted = line.printed or ""
            command = f"{{ {line.command}; }} > printed" if wanted else line.command
            arguments = shlex.join([line.command, str(line.exit_code), wanted])
            self._type(f"{command}\nchecked {arguments}\n")
        self._type(f"touch {shlex.quote(str(marker))}\n")
        until(lambda: marker.exists() or self._shell.poll() is not None, _SECONDS, section)
        log = Path(self._log.name).read_text(encoding="utf-8").splitlines()
        assert marker.exists(), [line for line in log if not line.startswith('{"timestamp"')][-5:]

    def close(self) -> None:
        """End the shell, and all that it has started."""
        self._shell.terminate()
        self._shell.communicate(timeout=60)
        self._log.close()


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    shell = Terminal(tmp_path_factory.mktemp("examples"))
    yield shell
    shell.close()


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS)
def test_the_examples_do_as_their_comments_say(terminal: Terminal, section: str):
    terminal.run(section)


def test_the_options_of_svc_health_are_all_known():
    """`svc health` declares no options for `tools.options`: its help is all there is."""
    assert run_svc(["health", "--help"]) == 0
    assert {"--http", "--live", "--timeout", "--json", "--quiet"} == declared()["svc health"].keys()
