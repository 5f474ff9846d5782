"""The threads of numerical libraries in consumers: one each, unless the user has set their number.

Such a library starts a thread for each core of the host. A worker has two consumers for each CPU, so together
they would start many times more threads than there are cores, and only slow each other down.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Final

#: The variable that OpenMP reads, and each of the libraries below that has no value of its own.
OPENMP: Final = "OMP_NUM_THREADS"
#: The variables of OpenBLAS, Intel MKL, NumExpr, Apple's vecLib and BLIS.
LIBRARIES: Final = (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "BLIS_NUM_THREADS",
)


def limit_library_threads(environment: MutableMapping[str, str]) -> None:
    """Set the number of threads to 1 in *environment*, for each library for which it is not set.

    The number for OpenMP counts for all of them: if a user has set it, nothing is changed. An empty value
    counts as not set, as the libraries read it.
    """
    if environment.get(OPENMP):
        return
    for variable in (OPENMP, *LIBRARIES):
        if not environment.get(variable):
            environment[variable] = "1"
