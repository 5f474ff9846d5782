"""The form of the stream under a replicated journal, and the checks that a stream and its servers must pass.

All of it is pure: settings and facts are mappings in the form of JetStream's JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from svc.errors import ConfigurationError, Conflict, JournalError, ServiceError

#: The version of the form: of the stream's settings, and of the meaning of its frames.
STREAM_VERSION: Final = 1
#: The release of nats-server from which `sync_interval: always` has no known hole, and an election none.
RELEASE_MIN: Final = (2, 14, 5)
#: The smallest `max_payload` of the servers in bytes: below it a frame has too many parts.
PAYLOAD_MIN: Final = 64 * 1024
#: The bytes of a message beside its data: NATS counts its headers.
ENVELOPE_BYTES: Final = 512
#: For so long a repeated append is told the number of the first, in seconds.
DUPLICATE_SECONDS: Final = 120
#: The bucket of keys of the journal NAME is NAME with this; NATS keeps it as the stream `KV_NAME_leader`.
BUCKET_SUFFIX: Final = "_leader"
#: All servers answer this with their settings, if the account may ask.
SETTINGS_OF_ALL: Final = "$SYS.REQ.SERVER.PING.JSZ"
#: The servers may answer no user but that of the system account; then nothing comes for so many seconds.
ALL_SECONDS: Final = 0.5
#: The error code of JetStream for a stream that is not there.
NO_STREAM: Final = 10059
#: The error code if too few servers are there for the replicas.
NO_PEERS: Final = 10005
#: Servers that have just been started do not know each other yet; for so many seconds too few are no refusal.
PEERS_SECONDS: Final = 10.0
_NANO: Final = 1_000_000_000
_VERSION_KEY: Final = "svc.journal"
_UNLIMITED: Final = -1


def subject_of(name: str) -> str:
    """Return the only subject of the stream *name*."""
    return f"svc.journal.{name}"


def new_stream(name: str, replicas: int) -> dict[str, Any]:
    """Return the settings of a new stream."""
    return {
        "name": name,
        "subjects": [subject_of(name)],
        "description": "a journal of svc; its frames are written by its leader alone",
        "metadata": {_VERSION_KEY: str(STREAM_VERSION)},
        "retention": "limits",
        "storage": "file",
        "num_replicas": replicas,
        "discard": "new",
        "max_msgs": _UNLIMITED,
        "max_bytes": _UNLIMITED,
        "max_age": 0,
        "max_msgs_per_subject": _UNLIMITED,
        "max_msg_size": _UNLIMITED,
        "max_consumers": _UNLIMITED,
        "duplicate_window": DUPLICATE_SECONDS * _NANO,
        # Unused here; releases before read single messages so, and refuse a stream without it.
        "allow_direct": True,
    }


def permissions(name: str) -> dict[str, Any]:
    """Return the least permissions of a manager on the journal *name*, in the form of a server's settings.

    They are for its stream, for the bucket that names the leader, and for the question whether the servers
    sync each write.
    """
    bucket = name + BUCKET_SUFFIX
    verbs = {
        name: ("STREAM.INFO", "STREAM.CREATE", "STREAM.PURGE", "STREAM.MSG.GET"),
        f"KV_{bucket}": ("STREAM.INFO", "STREAM.CREATE", "STREAM.MSG.GET"),
    }
    asked = [f"$JS.API.{verb}.{stream}" for stream in verbs for verb in verbs[stream]]
    consumer = [f"$JS.API.CONSUMER.{verb}.{name}.>" for verb in ("CREATE", "DELETE", "MSG.NEXT")]
    written = [subject_of(name), f"$KV.{bucket}.>"]
    publish = [*written, "$JS.API.INFO", SETTINGS_OF_ALL, *asked, *consumer]
    return {"publish": {"allow": publish}, "subscribe": {"allow": ["_INBOX.>"]}}


def check_stream(config: Mapping[str, Any], name: str, replicas: int) -> None:
    """Check that an existing stream is one of ours, and keeps all that it is given.

    Raises:
        Conflict: it is not ours.
        JournalError: a newer release has made it.
        ConfigurationError: a setting of it would lose messages, or it has fewer than *replicas*.
    """
    version = (config.get("metadata") or {}).get(_VERSION_KEY)
    if version is None or config.get("subjects") != [subject_of(name)]:
        raise Conflict(
            f"the stream {name} is there and is no journal of svc; take another name, or delete the stream"
        )
    if version != str(STREAM_VERSION):
        raise JournalError(
            f"the stream {name} has a journal of version {version}, and this release reads "
            f"{STREAM_VERSION}; start the release that made it"
        )
    wrong = list(_wrong_settings(config))
    if wrong:
        raise ConfigurationError(
            f"the stream {name} may lose what a journal must keep: {'; '.join(wrong)}; change it with "
            f"`nats stream edit {name}`, or where that is refused, copy the journal to a new stream"
        )
    if (kept := config.get("num_replicas", 1)) < replicas:
        raise ConfigurationError(
            f"the stream {name} has {kept} replica{'s' * (kept > 1)}, and {replicas} are wanted; "
            f"run `nats stream edit {name} --replicas {replicas}`, or ask for fewer"
        )


def _wrong_settings(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the settings that would lose messages, each as `name is value`."""
    required = {"retention": "limits", "storage": "file", "discard": "new", "allow_direct": True}
    for setting, value in required.items():
        if config.get(setting) != value:
            yield f"{setting} is {_shown(config.get(setting))} and not {_shown(value)}"
    for limit in ("max_bytes", "max_age", "max_msgs", "max_msgs_per_subject", "max_msg_size"):
        if config.get(limit, 0) > 0:
            yield f"{limit} is {config[limit]}"
    for switch in (
        "allow_rollup_hdrs", "allow_msg_ttl", "allow_msg_counter", "deny_delete", "deny_purge", "no_ack",
        "sealed", "mirror", "sources", "subject_transform", "republish",
    ):  # fmt: skip
        if config.get(switch):
            yield f"{switch} is set"
    if config.get("persist_mode", "default") not in ("", "default"):
        yield f"persist_mode is {config['persist_mode']}"
    window = config.get("duplicate_window", 0)
    if window < DUPLICATE_SECONDS * _NANO:
        yield f"duplicate_window is {window / _NANO:g} s and not {DUPLICATE_SECONDS}"


def _shown(value: object) -> str:
    return "not set" if value is None else str(value).lower()


def check_server(release: str, max_payload: int, *, jetstream: bool) -> None:
    """Check the server that was connected to.

    Raises:
        ConfigurationError: it has no JetStream, its release is too old, or its `max_payload` too small.
    """
    if not jetstream:
        raise ConfigurationError("the NATS server has no JetStream; set `jetstream` in its configuration")
    if old := old_release(release):
        raise ConfigurationError(f"the NATS server {old}")
    if max_payload < PAYLOAD_MIN:
        raise ConfigurationError(
            f"the NATS server takes messages of {max_payload} bytes; set its max_payload to at least "
            f"{PAYLOAD_MIN}"
        )


def old_release(release: str) -> str:
    """Return the fault of a server of *release*; empty if it has none."""
    if release_of(release) >= RELEASE_MIN:
        return ""
    return (
        f"is of release {release}, which may lose writes; {_dotted(RELEASE_MIN)} is the first to use: "
        "upgrade the servers one by one"
    )


def release_of(text: str) -> tuple[int, ...]:
    """Return a release such as `2.14.5-RC.1` as numbers; of an odd one the numbers that it begins with."""
    found = re.match(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in found.groups()) if found else ()


def refusal_of(error: Mapping[str, Any], name: str, replicas: int) -> ServiceError:
    """Return the error for an answer of JetStream that refuses to make the stream *name*."""
    code, text = error.get("err_code"), str(error.get("description", "an unknown error"))
    if code in _OFF:
        return ConfigurationError(
            f"the NATS servers have no JetStream for this user ({text}); set `jetstream` for its account"
        )
    if code in _TOO_FEW:
        return ConfigurationError(
            f"the stream {name} cannot have {replicas} replicas there ({text}); start more servers, or ask "
            "for one"
        )
    return ConfigurationError(f"the stream {name} cannot be made ({text}); see to the NATS servers")


#: Error codes of JetStream: not enabled, also for the account; no place for the replicas.
_OFF: Final = (10039, 10076, 10035)
_TOO_FEW: Final = (NO_PEERS, 10074, 10023)


def _dotted(release: tuple[int, ...]) -> str:
    return ".".join(map(str, release))
