"""The number of threads of numerical libraries."""

from __future__ import annotations

import pytest

from svc.worker.library_threads import LIBRARIES, OPENMP, limit_library_threads


def limited(**before: str) -> dict[str, str]:
    limit_library_threads(before)
    return before


def test_every_library_gets_one_thread_if_nothing_is_set():
    assert limited() == dict.fromkeys((OPENMP, *LIBRARIES), "1")


def test_a_number_for_all_libraries_leaves_each_of_them_alone():
    assert limited(OMP_NUM_THREADS="4") == {OPENMP: "4"}


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_number_of_one_library_stays_and_the_others_get_one(library):
    assert limited(**{library: "3"}) == {**dict.fromkeys((OPENMP, *LIBRARIES), "1"), library: "3"}


def test_an_empty_value_counts_as_none():
    assert limited(OMP_NUM_THREADS="", MKL_NUM_THREADS="")["MKL_NUM_THREADS"] == "1"
