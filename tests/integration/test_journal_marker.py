"""A manager tells a first start from one whose disk is not mounted by a file on another disk."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.small_disk import small_disk
from tests.support.svc import SVC, Host, end


def _replace_by_directory(journal: Path) -> None:
    journal.unlink()
    journal.mkdir()


LOSSES: dict[str, Callable[[Path], object]] = {
    "the file is deleted": lambda journal: journal.unlink(),
    "the directory is deleted": lambda journal: shutil.rmtree(journal.parent),
    "the directory is renamed": lambda journal: journal.parent.rename(journal.parent.with_name("other")),
    "a directory has its name": _replace_by_directory,
}


class Site(Host):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.journal, self.marker = folder / "data" / "j.db", folder / "marker"
        self.journal.parent.mkdir()
        self.env |= {"SVC_JOURNAL": str(self.journal), "SVC_JOURNAL_MARKER": str(self.marker)}

    def once(self) -> None:
        end(self.start_manager())

    def refused(self) -> str:
        """Start the manager, which must end; return its messages."""
        done = subprocess.run(
            [*SVC, "manager", "--listen", "127.0.0.1:0", "--http", "off"],
            env=self.env, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        return done.stderr


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.log.close()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_journal_that_was_made_must_be_there_at_the_next_start(site: Site, loss: str):
    site.once()
    site.once()
    LOSSES[loss](site.journal)
    said = site.refused()
    assert f"there is no journal {site.journal}" in said
    assert f"{site.marker} says that it was made once" in said
    assert not site.journal.is_file()


def test_a_disk_that_is_not_mounted_is_noticed_and_one_that_is_back_is_served(site: Site, tmp_path: Path):
    with small_disk(site.journal.parent, 64 * 1024 * 1024):
        site.once()
        kept = tmp_path / "kept"
        shutil.copytree(site.journal.parent, kept)
    assert "is its disk mounted" in site.refused()
    site.journal.parent.rmdir()
    kept.rename(site.journal.parent)
    site.once()


def test_who_deletes_the_marker_begins_anew(site: Site):
    site.once()
    site.journal.unlink()
    site.refused()
    site.marker.unlink()
    for beside in site.journal.parent.glob("j.db?*"):
        beside.unlink()
    site.once()
    assert site.marker.exists()


def test_a_journal_from_before_the_setting_gets_its_marker(site: Site):
    site.once()
    site.marker.unlink()
    site.once()
    assert str(site.journal) in site.marker.read_text()


def test_a_marker_that_cannot_be_written_ends_the_start(site: Site, tmp_path: Path):
    site.env["SVC_JOURNAL_MARKER"] = str(tmp_path / "nowhere" / "marker")
    assert "--journal-marker" in site.refused()
