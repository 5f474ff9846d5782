"""The file descriptors of the manager: one for each connection."""

from __future__ import annotations

#: Descriptors that are kept for the journal, for HTTP and for others that come and go.
OTHERS = 256


def room_for(connections: int, half_open: int) -> tuple[int, int, int]:
    """Raise this process's limit as far as it has to be and may be, for *connections* and those half open.

    Returns:
        The connections for which there is room; the limit; and the limit that they would all need.
    """
    import resource

    needed = connections + half_open + OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return connections, needed, needed
    limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if limit > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    limit = max(limit, soft)
    return min(connections, max(limit - half_open - OTHERS, limit // 2)), limit, needed
