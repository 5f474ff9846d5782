"""The parts of `make bench-peers` that need no peer: nothing is installed, and no time is asserted."""

from __future__ import annotations

import ast
import os
import pickle
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from benchmarks import commands, heavy, tasks
from benchmarks.figures import Figures
from benchmarks.peers import client, report
from benchmarks.peers.environments import interpreter
from benchmarks.peers.remote import Remote
from benchmarks.peers.table import LOCKS, PEERS, Peer
from benchmarks.processes import cpu_seconds

ROOT = Path(__file__).parents[2]
ADAPTERS = ROOT / "benchmarks" / "peers" / "adapters"
each_peer = pytest.mark.parametrize("peer", PEERS, ids=[each.name for each in PEERS])


def test_the_table_names_each_peer_once_and_each_adapter_is_a_peers():
    names = [each.name for each in PEERS]
    assert len(set(names)) == len({each.title for each in PEERS}) == len(names)
    # NAME_far is the same peer at the other end of a link.
    adapters = {each.stem.removesuffix("_far") for each in ADAPTERS.glob("*.py")}
    assert adapters - {"__init__", "workers"} == set(names)


@each_peer
def test_a_peer_says_how_it_is_set_and_what_survives(peer: Peer):
    assert peer.settings
    assert peer.durable.startswith("in Redis" if peer.redis else "no")


@each_peer
def test_an_adapter_compiles_and_has_a_system_with_the_two_ways_to_have_work_done(peer: Peer):
    source = (ADAPTERS / f"{peer.name}.py").read_text()
    compile(source, peer.name, "exec")
    (system,) = (
        node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "System"
    )
    methods = {node.name for node in system.body if isinstance(node, ast.FunctionDef)}
    assert {"all", "one"} <= methods
    assert ("programs" in methods) == peer.programs


@pytest.mark.parametrize("name", [*(each.name for each in PEERS), "plot"])
def test_a_lock_pins_everything_by_hash_and_names_no_address(name):
    text = (LOCKS / f"{name}.lock").read_text()
    assert "://" not in text
    requirements = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert requirements
    for requirement in requirements:
        assert "==" in requirement.splitlines()[0]
        assert "--hash=sha256:" in requirement


@each_peer
def test_a_lock_pins_the_peer_itself(peer: Peer):
    assert re.fullmatch(r"[0-9][0-9.]*", peer.version)


def test_commands_are_measured_between_both_ways_of_hyperqueue_with_a_ratio_for_each(monkeypatch):
    order: list[str] = []
    rates = {"apart": 50.0, "svc": 100.0, "inside": 25.0}

    def rate_of(system: str) -> float:
        order.append(system)
        return rates[system]

    monkeypatch.setattr(commands, "service_rate", lambda durability, count: rate_of("svc"))
    monkeypatch.setattr(commands, "hyperqueue_rate", lambda count, way: rate_of(way))
    figures = Figures()
    heavy.shell_commands("fsync", heavy.Extent(), figures)
    assert order == ["apart", "svc", "inside"]
    ratios = {row.system: seen for row, seen in figures.rounds.items() if row.unit == "times"}
    assert ratios == {
        f"3,000 x true, HyperQueue {commands.WAYS[way]}": [100.0 / rates[way]] for way in commands.WAYS
    }


ADAPTER = """
    class System:
        def __enter__(self):
            print("what an adapter prints is no answer")
            return self

        def __exit__(self, *exception):
            print("ended")

        def all(self, function, arguments):
            return map(function, arguments)

        def one(self, function, argument):
            return function(argument)

        def pids(self):
            return {"consumers": [1]}

        def programs(self, count):
            return count * 2.0
"""


def test_a_client_in_another_process_measures_its_adapter_and_ends_it(tmp_path, monkeypatch):
    (tmp_path / "inline.py").write_text(textwrap.dedent(ADAPTER))
    log = tmp_path / "log"
    path = f"import sys; sys.path.insert(0, {str(tmp_path)!r})"
    code = f"{path}; from benchmarks.peers.client import main; main('inline')"
    remote = Remote("inline", Path(sys.executable), log)
    monkeypatch.setattr(remote, "_command", [sys.executable, "-c", code])
    with remote:
        figures = remote.measure(seconds=0.001, trips=2, naps=1)
    trips, parts = {"p50 ms", "p99 ms", "p99.9 ms"}, {"client ms", "consumers ms", "consumers MiB"}
    assert set(figures) == {"jobs", "trips", "jobs/s", "submits/s", "textbook s", *trips, *parts}
    assert figures["jobs"] >= 200
    assert figures["trips"] == 2
    assert figures["submits/s"] >= figures["jobs/s"]
    assert figures["p50 ms"] <= figures["p99 ms"] <= figures["p99.9 ms"]
    assert "ended" in log.read_text()


def test_a_slow_system_makes_as_many_round_trips_as_fit_into_the_time(monkeypatch):
    class Slow:
        def one(self, function, argument):
            now[0] += 2.0

    now = [0.0]
    monkeypatch.setattr("benchmarks.peers.client.time.perf_counter", lambda: now[0])
    assert client._trips(Slow(), 1000) == client._TRIP_SECONDS / 2  # type: ignore[arg-type]
    assert client._trips(Slow(), 4) == 4  # type: ignore[arg-type]


def test_a_kept_result_appears_when_it_is_complete(tmp_path):
    file = tmp_path / "1"
    tasks.keep(str(file), lambda value: (value, file.exists()), 21)
    assert pickle.loads(file.read_bytes()) == (21, False)
    assert list(tmp_path.iterdir()) == [file]


def test_the_processor_time_of_a_process_includes_that_of_its_children_that_have_ended():
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    before = cpu_seconds([os.getpid()])
    subprocess.run([sys.executable, "-c", burn], check=True)
    assert cpu_seconds([os.getpid()]) - before > 0.2  # the kernel counts in ticks


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(400)  # it may have to be installed, and each call is a new Python
def test_hyperqueue_runs_functions_and_programs(tmp_path):
    (peer,) = (each for each in PEERS if each.name == "hyperqueue")
    settings = {"PEERS_WARM_UP": "2"}
    with Remote(peer.module, interpreter(peer.lock), tmp_path / "log", settings=settings) as remote:
        assert remote.ask({"task": "same", "argument": 1, "jobs": 4, "seconds": 1.0})["rate"] > 0
        assert len(remote.ask({"pauses": [0.01, 0.0]})["times"]) == 2
        assert remote.ask({"programs": 20})["rate"] > 0


def test_the_modules_that_a_peer_imports_need_no_svc():
    names = "benchmarks.peers.client", "benchmarks.peers.adapters.workers", "benchmarks.peers.producer"
    code = f"import sys; sys.modules['svc'] = None; import {', '.join(names)}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_client_that_cannot_start_is_an_error_that_names_its_log(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(RuntimeError, match=re.escape(str(log))), Remote("no.such", Path(sys.executable), log):
        pass
    assert "no.such" in log.read_text() or "No module named 'no'" in log.read_text()


def test_the_report_has_medians_and_what_svc_is_beside_each():
    def seen(*rates: float) -> list[dict[str, float]]:
        return [{"jobs": 10, "jobs/s": rate, "p50 ms": 2.0, "textbook s": 1.0} for rate in rates]

    facts = {"version": "1", "durable": "no", "settings": "as it comes"}
    rounds = {report.REFERENCE: seen(900.0, 1000.0, 5000.0), "slow": seen(10.0, 10.0, 10.0)}
    figures = report.document(rounds, dict.fromkeys(rounds, facts))
    assert [each["system"] for each in figures["systems"]] == ["slow", report.REFERENCE]
    assert figures["systems"][0]["svc"] == {"jobs/s": 100.0, "p50 ms": 1.0, "textbook s": 1.0}
    assert figures["systems"][1]["svc"] == {"jobs/s": 1.0, "p50 ms": 1.0, "textbook s": 1.0}
    header, slow, ours, _, compared, slow_ratio, *_ = report.table(figures).splitlines()
    assert header.split()[:2] == ["medians", "jobs/s"]
    assert slow.split() == ["slow", "10", "-", "2.00", *"-------", "1.00", "-"]
    assert "1,000" in ours
    assert compared.startswith(report.REFERENCE)
    assert slow_ratio.split()[:3] == ["slow", "100", "x"]


def test_a_client_tells_the_rate_of_a_task_and_the_times_of_sleeps(tmp_path, monkeypatch):
    (tmp_path / "inline.py").write_text(textwrap.dedent(ADAPTER))
    path = f"import sys; sys.path.insert(0, {str(tmp_path)!r})"
    code = f"{path}; from benchmarks.peers.client import main; main('inline')"
    remote = Remote("inline", Path(sys.executable), tmp_path / "log", settings={"PEERS_WARM_UP": "1"})
    monkeypatch.setattr(remote, "_command", [sys.executable, "-c", code])
    with remote:
        asked = remote.ask({"task": "pause", "argument": 0.0, "jobs": 40, "seconds": 1.0})
        times = remote.ask({"pauses": [0.001, 0.0]})["times"]
        programs = remote.ask({"programs": 3})
    assert programs == {"rate": 6.0}
    assert asked["rate"] > 0
    assert all(ended - began >= pause for (began, ended), pause in zip(times, (0.001, 0.0), strict=True))
    assert times == sorted(times)
