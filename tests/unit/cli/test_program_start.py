"""The first and the last moments of a command: quick help, Ctrl-C, and a reader that goes away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from svc.cli import main

ROOT = Path(__file__).parents[3]


def test_a_reader_that_goes_away_ends_the_command_quietly():
    """`svc … | head -1`: no traceback, no message."""
    script = "import sys; from svc.cli.program import run; sys.exit(run(['--help']))"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (1, b"")


@pytest.mark.parametrize(
    ("argv", "module"),
    [(["status"], "svc.cli.program"), (["--help"], "svc.cli.quick_help"), (["health"], "svc.health")],
)
def test_a_ctrl_c_while_a_command_is_imported_shows_no_traceback(argv, module, monkeypatch, capfd):
    class Interrupted:
        def find_spec(self, name: str, path: object, target: object = None) -> None:
            if name == module:
                raise KeyboardInterrupt

    package, _, own = module.rpartition(".")
    monkeypatch.delattr(sys.modules[package], own, raising=False)
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    monkeypatch.setattr(sys, "argv", ["svc", *argv])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("columns", ["80", "200", "60"])
def test_the_help_that_is_written_without_typer_is_what_typer_writes(columns):
    """`svc --help` as a command, beside the program itself in a terminal of the same width."""
    environment = {**os.environ, "COLUMNS": columns}
    quick, whole = (
        subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, cwd=ROOT, env=environment, check=True
        ).stdout
        for command in (
            ["-m", "svc", "--help"],
            ["-c", "import sys; from svc.cli.program import run; sys.exit(run(['--help']))"],
        )
    )
    assert quick == whole
    assert quick.startswith("Usage: svc ")


def test_the_help_that_is_written_without_typer_loads_no_typer():
    script = (
        "import sys; sys.argv = ['svc', '--help']; from svc.cli import main\n"
        "try: main()\n"
        "finally: print([name for name in ('typer', 'svc.settings') if name in sys.modules], file=sys.stderr)"
    )
    environment = {**os.environ, "COLUMNS": "80"}
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, env=environment, check=True
    )
    assert ended.stderr == "[]\n"


@pytest.mark.parametrize("argv", [["--help"], ["manager", "--help"], ["status", "--help"]])
def test_the_help_needs_little_more_than_typer(argv):
    """What `--help` imports decides how fast it is: nothing of the queue, the wire or rich."""
    script = (
        f"import sys; from svc.cli.program import run; run({argv});"
        "print(sorted({name.partition('.')[0] for name in sys.modules} &"
        " {'msgspec', 'rich', 'structlog', 'apsw', 'prometheus_client', 'multiprocessing', 'asyncio'}),"
        " file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert ended.stderr == "[]\n"
