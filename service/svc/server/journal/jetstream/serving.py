"""The manager that serves a replicated journal now, as the key of its leader says."""

from __future__ import annotations

import base64
from typing import Final

from svc.server.journal.jetstream.candidacy import LEADER_KEY, decode_holding
from svc.server.journal.jetstream.connection import NatsConnection
from svc.server.journal.jetstream.log import Unanswered
from svc.server.journal.jetstream.stream_form import BUCKET_SUFFIX, NO_STREAM

#: No such message: the key is gone, since nobody has renewed it.
_NO_KEY: Final = 10037


async def serving_manager(connection: NatsConnection, name: str, seconds: float) -> str:
    """Return the addresses of the manager that leads the journal *name*; empty if none does.

    Raises:
        Unanswered: the servers do not answer within *seconds*.
        Forbidden: the user may not ask.
    """
    bucket = f"{name}{BUCKET_SUFFIX}"
    found = await connection.ask(
        f"STREAM.MSG.GET.KV_{bucket}", {"last_by_subj": f"$KV.{bucket}.{LEADER_KEY}"}, seconds
    )
    error = found.get("error")
    if error is None:
        holding = decode_holding(base64.b64decode(found["message"].get("data", "")))
        return "" if holding is None or holding.free else ", ".join(holding.addresses) or "no address"
    if error.get("err_code") in (NO_STREAM, _NO_KEY):
        return ""
    raise Unanswered(f"the bucket {bucket}: {error.get('description')}")
