"""Directories for files that came over the network."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from svc import received_files
from svc.errors import CodecError
from svc.received_files import Folder, remove_lost
from tests.support.svc import environment

_PROGRAM = """
import sys, time
from svc.received_files import Folder
folder = Folder()
(folder.path / "file").write_text("content")
print(folder.path, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of this user below a temporary directory of the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(received_files, "_own", [])
    return tmp_path / f"svc-files-{os.getuid()}"


def test_a_folder_is_private_and_goes_with_its_object(place):
    folder = Folder()
    path = folder.path
    assert path.is_relative_to(place)
    assert place.stat().st_mode & 0o777 == path.stat().st_mode & 0o777 == 0o700
    del folder
    gc.collect()
    assert not path.exists()


def test_a_folder_can_be_removed_before(place):
    folder = Folder()
    (folder.path / "file").write_text("content")
    folder.remove()
    folder.remove()
    assert not folder.path.exists()


def test_what_a_killed_process_leaves_is_removed_and_what_a_living_one_has_is_not(place, tmp_path):
    env = environment(TMPDIR=tmp_path)
    children = [
        subprocess.Popen([sys.executable, "-c", _PROGRAM], env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    paths = [Path(child.stdout.readline().strip()) for child in children if child.stdout is not None]
    try:
        remove_lost()
        assert [path.exists() for path in paths] == [True, True]
        children[0].send_signal(signal.SIGKILL)
        children[0].wait()
        remove_lost()
        assert [path.exists() for path in paths] == [False, True]
        children[1].send_signal(signal.SIGKILL)
        children[1].wait()
        kept = Folder()
        assert not paths[1].exists()
        assert kept.path.exists()
    finally:
        for child in children:
            child.kill()
            child.communicate()


def test_a_forked_child_keeps_the_folders_of_its_parent(place):
    folder = Folder()
    child = os.fork()
    if not child:
        folder.remove()
        other = Folder()
        os._exit(0 if other.path.parent != folder.path.parent else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert folder.path.exists()
    remove_lost()
    assert list(place.iterdir()) == [folder.path.parent]


def test_a_link_that_somebody_put_there_is_neither_used_nor_followed(place, tmp_path):
    (tmp_path / "precious" / "data").mkdir(parents=True)
    place.symlink_to(tmp_path / "precious")
    remove_lost()
    with pytest.raises(CodecError, match="of this user alone"):
        Folder()
    assert (tmp_path / "precious" / "data").is_dir()


def test_a_directory_that_others_may_write_is_not_used(place):
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(CodecError, match="of this user alone"):
        Folder()


def test_without_a_directory_nothing_is_looked_for(place):
    remove_lost()
    assert not place.exists()
