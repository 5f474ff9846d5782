"""The bounds of every value that comes from outside, each declared once.

The fields of the commands have these types, so the decoder of a frame refuses a value out of bounds before
it makes any object of it. `job.check_chunk` checks the fields of a chunk, for frames and for the calls of
plain clients alike.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from svc.domain import limits
from svc.domain.limits import SECONDS_MAX
from svc.domain.names import LABEL_MAX, NAME_MAX, QUEUES_MAX

#: Characters of an origin in a job's id; the origin of an alias has a digest and a key in it.
ORIGIN_MAX: Final = NAME_MAX + 40
#: Characters of a text that is meant to be a name and is not checked yet.
TEXT_MAX: Final = 4096
#: What every number of a job is at most: msgpack and the numbers of other languages hold it exactly.
NUMBER_MAX: Final = limits.NUMBER_MAX
#: Characters of a job's id: an origin, a dash and a number.
JOB_ID_MAX: Final = ORIGIN_MAX + 1 + len(str(NUMBER_MAX))
#: The largest token or cursor: SQLite and a consumer's slot hold it.
COUNTER_MAX: Final = (1 << 63) - 1

#: Commands in one frame: a consumer sends one for each job of its last two grants, and a little more.
FRAME_COMMANDS_MAX: Final = 1024
#: Chunks in one submit; our own clients send 1,000 jobs at most, each a chunk where it has a key.
SUBMIT_CHUNKS_MAX: Final = 1024
#: Jobs in one chunk, and results in one acknowledgement.
CHUNK_JOBS_MAX: Final = 100_000
#: Jobs in all chunks of one submit, which is one change.
SUBMIT_JOBS_MAX: Final = CHUNK_JOBS_MAX
#: Jobs that one command names, and that one reply describes.
REPLY_JOBS_MAX: Final = 10_000
#: Leases that a consumer names when it reconnects: those of two grants.
HELD_MAX: Final = 1024
#: Consumers of one worker.
CONSUMERS_MAX: Final = limits.CONSUMERS_MAX
#: Codecs that a consumer accepts.
CODECS_MAX: Final = 16
#: Tasks that a consumer knows.
TASKS_MAX: Final = 10_000

#: Bytes of the header of a job.
HEADER_MAX: Final = 1024

#: Characters that are kept of an error's message and of its traceback; its type is kept as a name.
MESSAGE_MAX: Final = 2048
TRACEBACK_MAX: Final = 16 * 1024
#: Bytes of a pickled exception with its signature; a longer one is left out.
EXCEPTION_MAX: Final = 17 * 1024

Name = Annotated[str, Meta(min_length=1, max_length=NAME_MAX)]
#: A name, or nothing.
NameOrNone = Annotated[str, Meta(max_length=NAME_MAX)]
#: An origin, or nothing.
OriginOrNone = Annotated[str, Meta(max_length=ORIGIN_MAX)]
#: A text that is checked before it is used, with an error message of its own.
Text = Annotated[str, Meta(max_length=TEXT_MAX)]
Label = Annotated[str, Meta(max_length=LABEL_MAX)]
Codecs = Annotated[list[Label], Meta(max_length=CODECS_MAX)]
Consumers = Annotated[list[Label], Meta(max_length=CONSUMERS_MAX)]
Queues = Annotated[list[Name], Meta(max_length=QUEUES_MAX)]
Tasks = Annotated[list[Name], Meta(max_length=TASKS_MAX)]
JobId = Annotated[str, Meta(max_length=JOB_ID_MAX)]
Number = Annotated[int, Meta(ge=0, le=NUMBER_MAX)]
Priority = Annotated[int, Meta(ge=-NUMBER_MAX, le=NUMBER_MAX)]
#: The place from which a feed is read; a negative cursor is within an event.
Cursor = Annotated[int, Meta(ge=-COUNTER_MAX, le=COUNTER_MAX)]
#: A token, or a place in a list of jobs.
Counter = Annotated[int, Meta(ge=0, le=COUNTER_MAX)]
Seconds = Annotated[float, Meta(ge=0.0, le=SECONDS_MAX)]
#: Seconds from now; a negative delay is a time that has passed already.
Delay = Annotated[float, Meta(ge=-SECONDS_MAX, le=SECONDS_MAX)]
Bodies = Annotated[list[bytes], Meta(max_length=CHUNK_JOBS_MAX)]
Headers = Annotated[list[bytes], Meta(max_length=CHUNK_JOBS_MAX)]
Results = Annotated[list[bytes], Meta(max_length=CHUNK_JOBS_MAX)]
RunTimes = Annotated[list[Seconds], Meta(max_length=CHUNK_JOBS_MAX)]
Ids = Annotated[list[JobId], Meta(max_length=REPLY_JOBS_MAX)]
