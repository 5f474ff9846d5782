"""What the kernel kills in a full control group is a fault; nothing else that ends there is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.fault import strikes as strikes_module
from tests.fault.campaign import EXPECTED
from tests.fault.site import TASKS, Site
from tests.fault.strikes import Strikes
from tests.fault.victims import CHOSEN, FILLED, Watched, fill_group
from tests.support.checker import Books, Checker, Job, read_books
from tests.support.history import (
    OK,
    Call,
    Execution,
    Fault,
    History,
    read_calls,
    read_executions,
    read_faults,
)
from tests.support.privileges import obtained
from tests.support.processes import alive

DEVOUR = f"{TASKS}:devour"
SUPERVISOR, FORKSERVER, GREEDY, OTHER = 1, 2, 3, 4
AT = 10.0


def watched(*gone: int, kills: int) -> Watched:
    """A worker of which *gone* ended just after a look at 10 s, while the kernel killed so many."""
    seen = dict.fromkeys((SUPERVISOR, FORKSERVER, GREEDY, OTHER), AT)
    return Watched(SUPERVISOR, {FORKSERVER}, seen, dict.fromkeys(gone, AT + 0.03), kills)


def victims(*gone: int, kills: int) -> list[frozenset[int] | None]:
    return [fault.pids for fault in watched(*gone, kills=kills).by_kernel({GREEDY})]


ALL = (SUPERVISOR, FORKSERVER, GREEDY, OTHER)


@pytest.mark.parametrize("kills", [1, 2])
def test_a_supervisor_that_the_kernel_killed_takes_its_worker_along(kills: int):
    """It kills the greedy one first, or that dies with its supervisor as all others do."""
    assert victims(*ALL, kills=kills) == [frozenset(ALL)]


def test_so_does_a_forkserver():
    assert victims(FORKSERVER, GREEDY, OTHER, kills=1) == [frozenset((FORKSERVER, GREEDY, OTHER))]


def test_a_consumer_is_a_victim_by_itself():
    assert victims(GREEDY, OTHER, kills=2) == [frozenset((OTHER,))]


def test_the_greedy_one_notes_its_own_end():
    assert victims(GREEDY, kills=1) == []


@pytest.mark.parametrize(("gone", "kills"), [(ALL, 0), ((GREEDY, OTHER), 1), ((OTHER,), 0)])
def test_an_end_for_which_the_kernel_counts_no_kill_is_not_explained(gone: tuple[int, ...], kills: int):
    assert victims(*gone, kills=kills) == []


def test_a_victim_that_ended_before_its_supervisor_needs_a_kill_of_its_own():
    worker = watched(*ALL, kills=2)
    worker.seen[OTHER], worker.gone[OTHER] = AT - 2, AT - 1.9

    assert [fault.pids for fault in worker.by_kernel({GREEDY})] == [
        frozenset((SUPERVISOR, FORKSERVER, GREEDY)),
        frozenset((OTHER,)),
    ]
    worker.kills = 1
    assert worker.by_kernel({GREEDY}) == []


# --- what the checker makes of it -------------------------------------------------------------------------


#: The runs of the poison job: the process of each and its time.
RUNS = ((GREEDY, AT), (7, AT + 3), (8, AT + 4), (9, AT + 5))


def violations(faults: list[Fault], *, other: int = OTHER, later: float = 0.0) -> set[str]:
    """Check a poison job with a run beyond its three charges, and a good job that ran again beside it."""
    own = [Fault("greed", at, at + 0.1, frozenset({pid}), injected=False, fatal=True) for pid, at in RUNS]
    again = Execution("p-1", 7, AT + 2 + later, AT + 2.1 + later)
    runs = [*(Execution("p-0", pid, at, at) for pid, at in RUNS), Execution("p-1", other, AT + later), again]
    calls = [Call("p", "submit", 0, 2, 0.0, 0.1, OK)]
    poison = Job("p-0", "p-0", DEVOUR, "poison", ["dead"], charged=Counter(crashed=3))
    good = Job("p-1", "p-1", f"{TASKS}:work", "default", ["succeeded"], ["p-1"])
    books = Books({job.id: job for job in (poison, good)})
    return kinds(Checker(History(calls, runs, own + faults), books, EXPECTED).check().violations)


def kinds(lines: list[str]) -> set[str]:
    return {line.partition(":")[0] for line in lines}


def test_the_end_of_a_supervisor_explains_the_runs_of_its_consumers():
    assert violations(watched(*ALL, kills=2).by_kernel({GREEDY})) == set()


def test_without_a_kill_of_the_kernel_the_same_repeats_fail():
    assert violations(watched(*ALL, kills=0).by_kernel({GREEDY})) == {"I4", "I5"}


def test_it_explains_no_repeat_on_another_worker():
    assert violations(watched(*ALL, kills=2).by_kernel({GREEDY}), other=77) == {"I4"}


def test_it_explains_no_repeat_of_a_later_time():
    assert violations(watched(*ALL, kills=2).by_kernel({GREEDY}), later=0.2) == {"I4"}


# --- the kernel -------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path, seed=1)
    try:
        yield site
    finally:
        site.close()


@pytest.mark.slow
def test_a_supervisor_that_a_full_group_has_killed_is_noted(site: Site, monkeypatch: pytest.MonkeyPatch):
    """The kernel is told to prefer it. The poison job runs once more than it is charged, rightly."""
    obtained(lambda: _need_groups(site))
    monkeypatch.setattr(strikes_module, "_POISON_PATIENCE", timedelta(0))
    site.start_manager()
    site.start_worker("direct")
    strikes = Strikes(site)
    assert strikes.until(lambda: len(site.consumers("direct")) == 3, 60)
    worker, tree, poison = site.workers["direct"], site.tree("direct"), strikes.poison

    def poison_to_the_end(kind: str) -> None:
        poison(kind)
        assert strikes.until(lambda: not any(map(alive, tree)), 60)

    monkeypatch.setattr(strikes, "poison", poison_to_the_end)
    Path(f"/proc/{worker.pid}/oom_score_adj").write_text("1000")

    fill_group(strikes, FILLED)

    noted = [fault for fault in strikes.faults if fault.kind == CHOSEN]
    assert worker.wait(60) == -9
    assert [worker.pid in (fault.pids or ()) for fault in noted] == [True]
    site.replace_workers()
    with site.broker() as broker:
        assert broker.wait(["poison0-0"], timedelta(seconds=60))
    site.stop()
    assert _repeats(site, strikes.faults) == []
    assert kinds(_repeats(site, [fault for fault in strikes.faults if fault not in noted])) == {"I5"}


def _need_groups(site: Site) -> None:
    if "groups" in site.missing:
        raise OSError(site.missing["groups"])


def _repeats(site: Site, faults: list[Fault]) -> list[str]:
    folder = site.folder
    seen = History(read_calls(folder), read_executions(folder), [*faults, *read_faults(folder)])
    return Checker(seen, read_books(site.service.own_records()), EXPECTED).check().violations
