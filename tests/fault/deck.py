"""All faults of a campaign, by kind; the name of a kind begins with its row of the fault matrix."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.fault.controlled_jobs import CONTROLLED
from tests.fault.deadly_jobs import DEADLY, run_deadly_job
from tests.fault.replication import REPLICATION
from tests.fault.scarcity import SCARCITY
from tests.fault.streams import IN_STREAMS, kill_in_stream
from tests.fault.strikes import POISONS, Strikes
from tests.fault.surroundings import AHEAD, SURROUNDINGS
from tests.fault.victims import FILLED, fill_group
from tests.support.fail_points import PLACES
from tests.support.memory_service import MemoryService
from tests.support.processes import Service
from tests.support.replicated_service import ReplicatedService

#: To add one, write a function or a method of `Strikes`, and name it here or in one of the tables below.
FAULTS: dict[str, Callable[[Strikes, str], None]] = {
    "F1 kill -9 a consumer": Strikes.kill_consumer,
    **dict.fromkeys((f"F1 kill {place}" for place in PLACES), Strikes.fail_point),
    "F2 kill -9 a whole worker": Strikes.kill_worker,
    "F3 freeze a worker beyond its lease": Strikes.freeze_worker,
    "F4 kill -9 the manager": Strikes.kill_manager,
    "F4 kill -9 the manager in recovery": Strikes.kill_manager_in_recovery,
    "F5 freeze the manager 1–5 s": Strikes.freeze_manager,
    "F11 reset a worker's connections": Strikes.reset_worker,
    "F11 reset clients' connections": Strikes.reset_clients,
    "F11 half-open: a worker": Strikes.silence_worker,
    "F11 half-open: clients": Strikes.silence_clients,
    "F12 cut replies to a worker": Strikes.cut_worker,
    "F12 cut replies to clients": Strikes.cut_clients,
    "F12 slow network": Strikes.slow_network,
    "F18 drain, with kills, and resume": Strikes.drain,
    "F19 kill -9 a stock consumer": Strikes.kill_plain_consumer,
    "F19 kill -9 a stock producer": Strikes.kill_plain_producer,
    **dict.fromkeys(POISONS, Strikes.poison),
    FILLED: fill_group,
    **{kind: strike for kind, (strike, _) in SCARCITY.items()},
    **SURROUNDINGS,
    **dict.fromkeys(DEADLY, run_deadly_job),
    **dict.fromkeys(IN_STREAMS, kill_in_stream),
    **CONTROLLED,
}
#: Faults of the files in which a manager has its journal.
_OF_FILES = (
    "F19 journal of an older format",
    "F26 the journal's files go",
    "F27 a second manager, without locks",
)
#: Faults that end the manager, some of them only at times: what it has in memory goes with it. And a backup,
#: which it refuses.
_OF_MANAGERS = (
    "F4 kill -9 the manager",
    "F4 kill -9 the manager in recovery",
    "F15 time of day jumps by hours",
    AHEAD,
    "F16 manager out of memory",
    "F18 drain, with kills, and resume",
    "F23 backup under load",
    "F35 kill -9 the manager in a stream",
    *CONTROLLED,
)
#: All faults on each kind of journal, and the service that has such a one.
DECKS = {
    "sqlite": FAULTS,
    "memory": {kind: strike for kind, strike in FAULTS.items() if kind not in (*_OF_FILES, *_OF_MANAGERS)},
    "jetstream": {
        **{kind: strike for kind, strike in FAULTS.items() if kind not in _OF_FILES},
        **{kind: strike for kind, (strike, _) in REPLICATION.items()},
    },
}
SERVICES = {"sqlite": Service, "memory": MemoryService, "jetstream": ReplicatedService}
#: The resource that a kind needs and the machine may refuse: the name of the site's attribute.
NEEDS = {kind: need for kind, (_, need) in (SCARCITY | REPLICATION).items() if need} | {
    FILLED: "groups",
    AHEAD: "clock",
}
#: Bytes that the manager may keep beyond the allowance after any fault. A backup reads the whole file
#: through SQLite's page cache, which holds 16 MiB at most and keeps them. A deadly job takes so many seconds
#: to its end, and so do several kills in a row, that the cache of a young manager may fill meanwhile.
ALLOWANCES = dict.fromkeys(("F23 backup under load", *DEADLY, *CONTROLLED, *REPLICATION), 16 << 20)
#: Bytes for each job that is kept by which the manager may grow in one step: a table of CPython doubles when
#: it is full, and the largest has an entry for each event that ended jobs (seen: 10 MiB at 350,000 of these).
TABLE_BYTES = 32
#: Bytes for each job that the manager keeps: those of a table, and in memory also its events.
JOB_BYTES = {"sqlite": TABLE_BYTES, "memory": 1024 + TABLE_BYTES, "jetstream": TABLE_BYTES}


def hand(seed: int, of: int) -> list[str]:
    """Return hand *seed* if the deck of a file is divided into *of* hands; together they have all kinds."""
    deck = sorted(FAULTS)
    random.Random(of).shuffle(deck)
    return deck[seed % of :: of]
