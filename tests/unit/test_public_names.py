"""The names that other people's programs import from us; to change them is to break those programs."""

from __future__ import annotations

import re
import subprocess
import sys

import svc
import svc.errors
import svc.testing
from svc.error_codes import error_for
from svc.errors import ServiceError


def _classes() -> dict[str, str]:
    """Return every error class of ours with its parent's name."""
    found, pending = {"ServiceError": ""}, [ServiceError]
    while pending:
        kind = pending.pop()
        for child in kind.__subclasses__():
            if child.__module__ == "svc.errors":
                found[child.__name__] = kind.__name__
                pending.append(child)
    return found


def _drawn() -> dict[str, str]:
    """Return the tree in the docstring as child -> parent."""
    found, path = {}, [""]
    for line in (svc.errors.__doc__ or "").splitlines():
        drawn = re.match(r"    ([│ ├└─]*)([A-Z]\w+)", line)
        if drawn:
            depth = len(drawn[1]) // 4
            path[depth + 1 :] = [drawn[2]]
            found[drawn[2]] = path[depth]
    return found


def test_the_public_names_are_these():
    of_clients = {"Client", "Executor", "File", "Future", "Job", "JobSpec", "Options", "Progress", "task"}
    of_tasks = {
        "CurrentJob",
        "ListedJob",
        "current_job",
        "Retry",
        "GiveUp",
        "Snooze",
        "on_start",
        "on_stop",
        "Cancelled",
    }
    of_the_manager_alone = {"RowMissing", "JournalUnreachable", "Deposed", "JournalMoved", "CopyIncomplete"}
    assert set(svc.__all__) == {"__version__", *of_clients, *of_tasks, *_classes()} - of_the_manager_alone
    assert sorted(svc.testing.__all__) == sorted({"LocalBroker", "LocalQueue", "local_client", "run_jobs"})


def test_every_public_name_can_be_had():
    for module in (svc, svc.testing):
        for name in module.__all__:
            assert getattr(module, name) is not None


def test_the_tree_in_the_docstring_is_the_tree_of_classes():
    assert _drawn() == _classes()


def test_every_error_has_a_code_of_its_own_that_leads_back_to_it():
    kinds = [getattr(svc.errors, name) for name in _classes()]

    assert len({kind.code for kind in kinds}) == len(kinds)
    assert all(type(error_for(kind.code, "why")) is kind for kind in kinds)


def test_an_error_without_a_code_of_its_own_does_not_take_the_place_of_its_base():
    """A text of a command line's file was told as the wrong class, once that was imported."""

    class Narrower(svc.errors.BadRequest):
        pass

    assert type(error_for(Narrower.code, "why")) is svc.errors.BadRequest


def test_no_public_name_needs_the_command_lines_libraries():
    script = (
        "import sys; sys.modules.update(dict.fromkeys(('typer', 'rich')));"
        "import svc; print(len([getattr(svc, name) for name in svc.__all__]))"
    )
    had = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert int(had) == len(svc.__all__)
