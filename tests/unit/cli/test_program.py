"""Properties of every command: help, sources of settings, errors and exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer

from svc import Client, Executor, errors
from svc.addresses import ManagerAddresses
from svc.broker.base import Broker
from svc.cli.program import known_settings, program, run
from svc.cli.verbs import PROGRAM
from svc.cli.wiring import Wiring
from svc.errors import ConfigurationError, ServiceError
from tools.options import commands, written

ROOT = Path(__file__).parents[3]
DOCUMENTED = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


COMMANDS = dict(commands())
REMOTE = {
    "submit": ["submit", "t:f"],
    "run": ["run", "true"],
    "results": ["results", "k3v9x0m2q7w1z-0"],
    "wait": ["wait", "k3v9x0m2q7w1z-0"],
    "logs": ["logs", "k3v9x0m2q7w1z-0"],
    "jobs list": ["jobs", "list"],
    "jobs show": ["jobs", "show", "k3v9x0m2q7w1z-0"],
    "jobs cancel": ["jobs", "cancel", "k3v9x0m2q7w1z-0"],
    "jobs requeue": ["jobs", "requeue", "k3v9x0m2q7w1z-0"],
    "jobs purge": ["jobs", "purge", "--state", "dead"],
    "queues": ["queues"],
    "workers": ["workers"],
    "status": ["status"],
    "drain": ["drain", "--timeout", "1"],
    "resume": ["resume"],
    "manager handover": ["manager", "handover"],
    "metrics": ["metrics"],
    "journal backup": ["journal", "backup"],
    "journal accept-clock": ["journal", "accept-clock"],
}


def test_the_verbs_are_those_of_the_design():
    assert {name.removeprefix("svc ") for name in COMMANDS} == REMOTE.keys() | {
        "manager", "worker", "dev", "demo", "health", "tunnel", "auth generate", "auth ca",
        "journal info", "journal verify", "journal restore", "journal copy",
    }  # fmt: skip


def sentences(text: str) -> list[str]:
    """Return the sentences of all paragraphs, each in one line."""
    lines = (" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
    return [each for line in lines for each in re.split(r"(?<=\.) (?=[A-Z])", line)]


class TestHelp:
    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_command_has_help_that_ends_with_an_example(self, name, capfd):
        assert run([*name.split()[1:], "--help"]) == 0
        out = capfd.readouterr().out
        assert out.startswith(f"Usage: {name}")
        assert f"Example: {name}" in out

    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_option_has_help(self, name):
        for option in COMMANDS[name].params:
            assert option.help, option.name

    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_command_and_option_is_in_the_docs_with_an_example(self, name):
        _, found, rest = DOCUMENTED.partition(f"\n## `{name}`\n")
        assert found, f"docs/cli.md has no section for {name}"
        section = rest.partition("\n## ")[0]
        assert f"\n{name}" in section, "no example"
        for option in COMMANDS[name].params:
            for flag in option.opts:
                if flag.startswith("--") and flag != "--help":
                    assert f"`{flag}" in section, flag

    @pytest.mark.parametrize("name", COMMANDS)
    def test_the_docs_say_the_same_as_the_help_of_what_a_command_does_and_of_its_exit_codes(self, name):
        section = " ".join(DOCUMENTED.partition(f"\n## `{name}`\n")[2].partition("\n## ")[0].split())
        summary, *others = sentences(COMMANDS[name].help)
        for each in (summary, *(other for other in others if "xit code" in other)):
            assert each.replace("`", "") in section.replace("`", "")

    @pytest.mark.parametrize("name", COMMANDS)
    def test_the_list_of_commands_says_the_same_as_the_commands_help(self, name):
        group, words = program(), name.split()[1:]
        while " ".join(words) not in group.group.verbs:
            group = group.get_command(typer.Context(group), words.pop(0))
        summary = group.group.verbs[" ".join(words)].summary
        assert COMMANDS[name].help.startswith(summary)

    def test_the_help_lists_every_verb(self, capfd):
        assert run(["--help"]) == 0
        out = capfd.readouterr().out
        for name in COMMANDS:
            assert f"\n  {name.split()[1]}" in out

    def test_without_arguments_the_help_is_on_stderr_with_exit_code_2(self, capfd):
        assert run([]) == 2
        captured = capfd.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("Usage: svc")

    def test_the_version_is_printed(self, capfd):
        assert run(["--version"]) == 0
        assert capfd.readouterr().out == "svc 0.1.0\n"


class TestSettings:
    def test_the_table_of_settings_is_what_the_commands_declare(self):
        """A setting is an option that has a variable; svc.toml knows these and no others."""
        declared: dict[str, Any] = {}
        for name, command in COMMANDS.items():
            *groups, verb = [name.removeprefix("svc ")] if name.endswith("handover") else name.split()[1:]
            level = declared
            for group in groups:
                level = level.setdefault(group, {})
            if found := frozenset(param.name for param in command.params if param.envvar):
                level[verb] = found
        assert {name: value for name, value in declared.items() if value} == known_settings(PROGRAM)

    @pytest.mark.parametrize("name", COMMANDS)
    def test_a_variable_is_named_like_its_flag(self, name):
        for option in COMMANDS[name].params:
            if option.envvar:
                assert f"--{option.name.replace('_', '-')}" in option.opts
                assert option.envvar == f"SVC_{option.name.upper()}"

    def test_a_flag_beats_a_variable_and_that_the_file(self, svc, started, tmp_path, monkeypatch):
        (tmp_path / "svc.toml").write_text('manager = "file:1"\n[status]\ntimeout = "3s"\n')
        svc("status")
        monkeypatch.setenv("SVC_MANAGER", "variable:2")
        svc("status")
        svc("status", "--manager", "flag:3", "--timeout", "4")
        assert [(str(address), timeout) for address, _, timeout in started.connected] == [
            ("file:1", 3.0), ("variable:2", 3.0), ("flag:3", 4.0),
        ]  # fmt: skip

    def test_a_manager_may_have_several_addresses(self, svc, started, tmp_path, monkeypatch):
        (tmp_path / "svc.toml").write_text('manager = ["file:1", "[::1]"]\n')
        svc("status")
        monkeypatch.setenv("SVC_MANAGER", "a:7077, b:7077")
        svc("status")
        svc("worker", "--tasks", "m", "--manager", "c:1,d:2")
        assert [str(address) for address, _, _ in started.connected] == ["file:1,[::1]:7077", "a:7077,b:7077"]
        assert started.workers[0].manager.pairs() == [("c", 1), ("d", 2)]

    @pytest.mark.parametrize(
        ("manager", "why"),
        [
            ("a:7077,", "'a:7077,' has an empty address; write HOST:PORT, or several of them with commas"),
            ("a:7077,::1", "'::1' is not an address; write HOST:PORT"),
            ("300.0.0.1:1", "300.0.0.1 is no IPv4 address"),
            ("a:0", "port 0 is only for listening"),
        ],
    )
    def test_a_malformed_address_is_told_wherever_it_is_written(
        self, svc, tmp_path, monkeypatch, manager, why
    ):
        (tmp_path / "other.toml").write_text(f'manager = "{manager}"\n')
        ways = [
            svc("status", "--manager", manager),
            svc("worker", "--tasks", "m", "--manager", manager),
            svc("--config", str(tmp_path / "other.toml"), "jobs", "list"),
        ]
        monkeypatch.setenv("SVC_MANAGER", manager)
        ways.append(svc("submit", "t:f"))
        for ended in ways:
            assert (ended.code, ended.out) == (2, "")
            assert why in " ".join(ended.err.split())
        for made in (lambda: Client(manager), Client, lambda: Executor(manager)):
            with pytest.raises(ConfigurationError, match=re.escape(why)):
                made()

    def test_without_any_the_default_holds(self, svc, started):
        svc("status")
        ((address, _, timeout),) = started.connected
        assert (str(address), timeout) == ("127.0.0.1:7077", 10.0)

    def test_another_file_can_be_named(self, svc, started, tmp_path, monkeypatch):
        (tmp_path / "svc.toml").write_text('manager = "here:1"')
        other = tmp_path / "other.toml"
        other.write_text('[worker]\nmanager = "there:2"\nqueues = ["a", "b"]\nconsumers = 3\n')
        svc("--config", str(other), "worker", "--tasks", "m")
        monkeypatch.setenv("SVC_CONFIG", str(other))
        svc("worker", "--tasks", "m")
        for settings in started.workers:
            assert (str(settings.manager), settings.queues, settings.consumers) == ("there:2", ("a", "b"), 3)

    def test_the_managers_address_and_its_own_settings_stand_in_one_file(self, svc, started, tmp_path):
        (tmp_path / "svc.toml").write_text(
            '[manager]\naddress = "file:1"\nlisten = "0.0.0.0:2"\nlease = "5s"\n[worker]\ntasks = ["m"]\n'
        )
        for verb in ("manager", "worker", "status"):
            assert svc(verb).code == 0
        assert str(started.managers[0].listen) == "0.0.0.0:2"
        assert started.managers[0].limits.lease_seconds == 5.0
        assert str(started.workers[0].manager) == "file:1"
        assert str(started.connected[0][0]) == "file:1"

    def test_both_an_address_and_a_table_of_the_manager_are_told_with_the_cure(self, svc, tmp_path):
        (tmp_path / "svc.toml").write_text('manager = "file:1"\n[manager]\nlease = "5s"\n')
        ended = svc("status")
        assert (ended.code, ended.out) == (2, "")
        assert "write the key into [manager], as `address`" in ended.err

    def test_a_list_and_a_dash_are_taken_as_they_are_written(self, svc, started, tmp_path):
        (tmp_path / "svc.toml").write_text('[manager]\nmax-queue = 5\nretention = "1h"\nlease = 2\n')
        svc("manager")
        limits = started.managers[0].limits
        assert (limits.max_queue_jobs, limits.retention_seconds, limits.lease_seconds) == (5, 3600.0, 2.0)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ('mangaer = "x:1"', "unknown setting mangaer; the nearest setting is manager"),
            ("[workr]\n", "unknown table workr; the nearest table is worker"),
            (
                "[worker]\ncomsumers = 1",
                "unknown setting worker.comsumers; the nearest setting is worker.consumers",
            ),
            ('[jobs.list]\nstate = "dead"', "unknown setting jobs.list.state"),
            ("[worker.deep]\nx = 1", "unknown setting worker.deep"),
            ("manager = ", "is not TOML"),
        ],
    )
    def test_a_mistake_in_the_file_is_named_with_the_nearest_that_there_is(
        self, svc, tmp_path, content, said
    ):
        (tmp_path / "svc.toml").write_text(content)
        ended = svc("status")
        assert ended.code == 2
        assert said in ended.err
        assert len(ended.err.splitlines()) == 1

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ('timeout = "soon"', "timeout in the settings file svc.toml: 'soon' is not a duration; write"),
            ("[status]\ntimeout = true", "status.timeout in the settings file svc.toml: true is not a text"),
            ("timeout = [1, 2]", "timeout in the settings file svc.toml: it is a list and takes one value"),
            ('[manager]\naddress = "a b"', "manager.address in the settings file svc.toml: 'a b' is not an"),
        ],
    )
    def test_a_bad_value_in_the_file_is_told_with_the_file_the_key_and_what_is_allowed(
        self, svc, tmp_path, monkeypatch, content, said
    ):
        (tmp_path / "svc.toml").write_text(content)
        ended = svc("status")
        assert (ended.code, ended.out) == (2, "")
        assert f"Invalid value for {said}" in " ".join(ended.err.split())
        for way in (svc("status", "--timeout=x", "--manager=a b"), svc("status", "--json", "--timeout=x")):
            assert "svc.toml" not in way.err, "the bad value is that of a flag"

    def test_a_switch_in_the_file_is_true_or_false(self, svc, started, tmp_path):
        (tmp_path / "svc.toml").write_text("[worker]\nshell = 3\n")
        ended = svc("worker")
        assert ended.code == 2
        assert "worker.shell in the settings file svc.toml: '3' is neither true nor false" in ended.err
        (tmp_path / "svc.toml").write_text("[worker]\nshell = true\n")
        assert svc("worker").code == 0
        assert started.workers[0].shell

    def test_settings_of_the_file_that_do_not_go_together_are_told_with_their_places(self, svc, tmp_path):
        (tmp_path / "svc.toml").write_text('[manager]\nmax-buffered = "1MiB"\n')
        ended = svc("manager")
        assert ended.code == 2
        assert "; set by manager.max_buffered in the settings file svc.toml" in ended.err
        assert "svc.toml" not in svc("manager", "--max-buffered=2MiB").err, "a flag goes before it"

    def test_a_file_that_was_named_must_be_there(self, svc):
        assert svc("--config", "missing.toml", "status").code == 2

    def test_the_key_itself_is_no_option(self, svc):
        assert svc("status", "--authkey", "0123456789abcdef").code == 2


class TestErrors:
    @pytest.mark.parametrize(
        ("words", "meant"),
        [
            ("statsu", "status"),
            ("job list", "jobs"),
            ("jobs lst", "list"),
            ("requeue x-0", "jobs requeue"),
            ("zzzzzzz", ""),
        ],
    )
    def test_an_unknown_command_is_told_with_the_nearest_that_there_is(self, svc, words, meant):
        ended = svc(*words.split())
        assert (ended.code, ended.out) == (2, "")
        assert (f"; did you mean {meant}" in ended.err) is bool(meant)
        assert ("did you mean" in ended.err) is bool(meant)

    @pytest.fixture
    def refusing(self, authkey_file, capfd):
        """Run `svc` on a wiring whose connections fail with an error."""

        def call(error: BaseException, *argv: str) -> tuple[int, str, str]:
            def connect(address: ManagerAddresses, authkey: bytes, timeout: float, *, tls: object) -> Broker:
                raise error

            code = run([*argv], Wiring(connect, lambda settings: 0, lambda settings: 0))
            return code, *capfd.readouterr()

        return call

    #: The exit codes of docs/cli.md.
    EXIT_CODES = {
        errors.ConfigurationError: 2,
        errors.ManagerUnreachable: 3,
        errors.ProtocolMismatch: 3,
        errors.AuthenticationFailed: 4,
        errors.UnknownJob: 5,
        errors.UnknownTask: 5,
        errors.TaskNotFound: 5,
        errors.Conflict: 6,
        errors.LeaseLost: 6,
        errors.JobFailed: 8,
        errors.JobCancelled: 8,
        errors.QueueFull: 9,
        errors.JournalFull: 9,
        errors.Draining: 9,
        errors.JobTooLarge: 2,
        errors.ResultTimeout: 124,
        errors.BadRequest: 2,
        errors.JournalError: 1,
    }

    @pytest.mark.parametrize(("kind", "code"), EXIT_CODES.items(), ids=str)
    def test_an_error_gives_its_exit_code_and_one_line(self, refusing, kind, code):
        got, out, err = refusing(kind("It went wrong."), "status")
        assert (got, out) == (code, "")
        assert err.startswith("svc: It went wrong.")
        assert err.count("\n") == 1

    @pytest.mark.parametrize("argv", REMOTE.values(), ids=REMOTE)
    def test_every_command_gives_up_on_a_manager_that_does_not_answer(self, refusing, argv, monkeypatch):
        monkeypatch.setenv("SVC_TIMEOUT", "1ms")
        monkeypatch.setattr("svc.cli.drain.CALL_SECONDS", 0.0)
        got, out, err = refusing(errors.ManagerUnreachable("nobody there"), *argv)
        assert (got, out, err) == (3, "", "svc: nobody there\n")

    def test_the_docs_have_the_table_of_exit_codes(self):
        table = DOCUMENTED.partition("## Exit codes")[2].partition("\n## ")[0]
        for code in {0, 1, 2, 7, 130, *self.EXIT_CODES.values()}:
            assert f"\n| {code} |" in table

    @pytest.mark.parametrize("argv", [argv for name, argv in REMOTE.items() if name != "metrics"])
    def test_in_json_an_error_is_an_object_on_stderr(self, refusing, argv):
        code, out, err = refusing(errors.QueueFull("queue mail is full"), *argv, "--json")
        assert (code, out) == (9, "")
        assert json.loads(err) == {
            "error": {"code": "queue_full", "message": "queue mail is full", "hint": "", "retryable": True}
        }

    def test_so_is_a_usage_error(self, refusing):
        code, _, err = refusing(ServiceError(), "status", "--json", "--bogus")
        assert code == 2
        assert json.loads(err)["error"]["code"] == "usage"

    def test_ctrl_c_gives_130(self, refusing):
        assert refusing(KeyboardInterrupt(), "status") == (130, "", "")

    def test_what_nobody_thought_of_is_one_line_too(self, refusing):
        code, out, err = refusing(ZeroDivisionError("oops"), "status")
        assert (code, out, err) == (1, "", "svc: unexpected ZeroDivisionError: oops\n")

    def test_the_traceback_is_shown_on_request(self, refusing, monkeypatch):
        monkeypatch.setenv("SVC_DEBUG", "1")
        assert "Traceback" in refusing(errors.Conflict("no"), "status")[2]

    def test_a_missing_authkey_gives_4_and_says_how_to_make_one(self, svc, monkeypatch):
        monkeypatch.delenv("SVC_AUTHKEY_FILE")
        ended = svc("status")
        assert ended.code == 4
        assert "name the manager's with --authkey-file FILE or SVC_AUTHKEY_FILE" in ended.err
        assert "svc auth generate" in ended.err

    @pytest.mark.parametrize("argv", [["bogus"], ["status", "--bogus"], ["jobs", "bogus"], ["jobs", "show"]])
    def test_a_wrong_command_line_gives_2_and_names_the_help(self, svc, argv):
        ended = svc(*argv)
        assert ended.code == 2
        assert "--help`" in ended.err
        assert len(ended.err.splitlines()) == 1


def test_the_option_tables_of_the_docs_are_those_of_the_commands():
    assert written(DOCUMENTED) == DOCUMENTED, "run `make docs`"
