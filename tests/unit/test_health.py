"""`svc health` against a real HTTP server, and its cost."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from svc import health

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server():
    """Serve /readyz with a status that the test chooses, and /livez with 200."""
    asked: list[str] = []
    status = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(status[0] if self.path == "/readyz" else 200)
            self.end_headers()
            self.wfile.write(b"ok\nmore\n" if status[0] == 200 else b"no consumer is ready\n")

        def log_message(self, *args):
            pass

    http: Any = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    http.asked, http.status = asked, status
    yield http
    http.shutdown()
    thread.join()
    http.server_close()


def at(server) -> str:
    return f"127.0.0.1:{server.server_port}"


def test_a_ready_process_gives_0(server, capsys):
    assert health.main(["--http", at(server)]) == 0
    assert capsys.readouterr().out == "ok\n"
    assert server.asked == ["/readyz"]


def test_one_that_is_not_ready_gives_1_and_the_reason(server, capsys):
    server.status[0] = 503
    assert health.main([f"--http={at(server)}"]) == 1
    assert capsys.readouterr().out == "not ready: no consumer is ready\n"


def test_live_asks_only_whether_it_lives(server, capsys):
    server.status[0] = 503
    assert health.main(["--live", "--http", at(server)]) == 0


def test_nothing_there_gives_3(capsys):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        code = health.main(["--http", f"127.0.0.1:{unused.getsockname()[1]}"])
    captured = capsys.readouterr()
    assert (code, captured.out) == (3, "")
    assert captured.err.startswith("svc: nothing answers at 127.0.0.1:")


def test_one_that_accepts_and_says_nothing_gives_3_in_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert health.main(["--http", address, "--timeout", "0.1", "--quiet"]) == 3


def test_one_that_does_not_speak_http_gives_3():
    with socket.create_server(("127.0.0.1", 0)) as other:

        def challenge():
            connection, _ = other.accept()
            with connection:
                connection.sendall(b"#CHALLENGE#")
                connection.recv(1024)

        thread = threading.Thread(target=challenge)
        thread.start()
        assert health.main(["--http", f"127.0.0.1:{other.getsockname()[1]}", "--quiet"]) == 3
        thread.join()


def test_the_variable_names_the_address_and_a_listening_address_is_reached(server, monkeypatch):
    monkeypatch.setenv("SVC_HTTP", f"0.0.0.0:{server.server_port}")
    assert health.main(["--quiet"]) == 0


def test_several_addresses_are_asked_and_the_first_answer_counts(server, capsys):
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as free:
        dead = free.getsockname()[1]
        free.close()
        hosts = f"127.0.0.1:{dead}, [::1]:{dead},127.0.0.1:{silent.getsockname()[1]},{server.server_port}"
        assert health.main(["--http", hosts]) == 0
        assert capsys.readouterr().out == "ok\n"
        assert health.main(["--http", hosts.rpartition(",")[0], "--timeout", "0.3"]) == 3
        told = capsys.readouterr().err
        assert told.startswith(f"svc: nothing answers at 127.0.0.1:{dead},[::1]:{dead},127.0.0.1:")
        assert (told.count("Connection refused"), told.count("timed out")) == (2, 1)


def test_json_and_quiet(server, capsys):
    health.main(["--json", "--http", at(server)])
    assert json.loads(capsys.readouterr().out) == {"status": "ok", "detail": "ok"}
    health.main(["--quiet", "--http", at(server)])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "argv",
    [
        ["--bogus"],
        ["--http"],
        ["--http", "x"],
        ["--http", "::1:9100"],
        ["--http", "[::x]:9100"],
        ["--http", "h:0"],
        ["--http", "h:65536"],
        ["--http", "h:9100,"],
        ["--http", "h:9100,x"],
        ["--http", "off"],
        ["--live=1"],
        ["--timeout", "x"],
        ["--timeout", "0"],
        ["--timeout", "nan"],
        ["--timeout", "inf"],
        ["--timeout", "3601"],
        ["--timeout", "-1"],
    ],
)
def test_a_wrong_command_line_gives_2_in_one_line(argv, capsys):
    assert health.main(argv) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_it_imports_nothing_that_an_http_request_does_not_need(server):
    """A probe runs every few seconds in every container, and has 50 ms: the command line stays outside."""
    script = (
        "import sys; sys.argv = ['svc', 'health', '--http', sys.argv[1]];"
        "from svc.cli import main\n"
        "try: main()\n"
        "finally: print(*sorted(sys.modules), file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, at(server)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    imported = set(ended.stderr.split())
    assert (ended.returncode, ended.stdout) == (0, "ok\n")
    assert {name for name in imported if name.split(".")[0] == "svc"} == {
        "svc",
        "svc.cli",
        "svc.first_answer",
        "svc.health",
        "svc.printable",
    }
    bare = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True, check=False
    )
    heavy = {
        "asyncio",
        "email",
        "enum",
        "http.client",
        "msgspec",
        "re",
        "structlog",
        "subprocess",
        "typer",
        "typing",
    }
    # The standard library's socket needs enum and selectors; modules of a bare interpreter cost nothing.
    assert not (heavy - {"enum"}) & imported - set(bare.stdout.split())
