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

#: Commands in one frame: a consumer sends one for each job of its last three grants at most, and a few more.
FRAME_COMMANDS_MAX: Final = 4096
#: Elements of all lists of a frame: ids, jobs, results, names. An element takes a few bytes of the frame and
#: a hundred times as much to decode; our own clients name 10,000 jobs in a frame at most.
FRAME_ELEMENTS_MAX: Final = 400_000
#: Chunks in one submit; our own clients send 1,000 jobs at most, each a chunk where it has a key.
SUBMIT_CHUNKS_MAX: Final = 1024
#: Jobs in one chunk, and results in one acknowledgement.
CHUNK_JOBS_MAX: Final = 100_000
#: Jobs in all chunks of one submit, which is one change.
SUBMIT_JOBS_MAX: Final = CHUNK_JOBS_MAX
#: Jobs that one command names, and that one reply describes.
REPLY_JOBS_MAX: Final = 10_000
#: Outcomes in one page of a feed; mostly it ends before that by its bytes or its work.
FEED_JOBS_MAX: Final = 25_000
#: Leases that a consumer names when it reconnects: those of three grants.
HELD_MAX: Final = 1024
#: Consumers of one worker.
CONSUMERS_MAX: Final = limits.CONSUMERS_MAX
#: Codecs that a consumer accepts.
CODECS_MAX: Final = 16
#: States that a command names.
STATES_MAX: Final = 16
#: Tasks that a consumer knows.
TASKS_MAX: Final = 10_000

#: Bytes of the header of a job.
HEADER_MAX: Final = 1024

#: Pieces of output in one command, and bytes of one piece.
OUTPUT_PIECES_MAX: Final = 2_000
OUTPUT_PIECE_MAX: Final = 64 * 1024
#: Bytes of a checkpoint: 64 KiB of data, and its encoding.
CHECKPOINT_DATA_MAX: Final = 64 * 1024
CHECKPOINT_MAX: Final = CHECKPOINT_DATA_MAX + 16
#: Partial results in one command.
YIELDED_VALUES_MAX: Final = 1000
#: Bytes of a piece of a large value, and large arguments of a job.
PIECE_MAX: Final = 1024 * 1024
LARGE_ARGUMENTS_MAX: Final = 16
#: The largest amount in a report of progress, such as the number of bytes of all disks.
AMOUNT_MAX: Final = 1e30
#: Characters of the note in a report of progress.
PROGRESS_NOTE_MAX: Final = 200

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
States = Annotated[list[Label], Meta(max_length=STATES_MAX)]
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
#: Bytes of memory: a Python process alone takes more than the least of it.
Memory = Annotated[int, Meta(ge=limits.MEMORY_MIN, le=NUMBER_MAX)]
#: Seconds from now; a negative delay is a time that has passed already.
Delay = Annotated[float, Meta(ge=-SECONDS_MAX, le=SECONDS_MAX)]
#: A share of the work of a job, or all of it, in a unit of the task's own.
Amount = Annotated[float, Meta(ge=0.0, le=AMOUNT_MAX)]
ProgressNote = Annotated[str, Meta(max_length=PROGRESS_NOTE_MAX)]
CheckpointData = Annotated[bytes, Meta(max_length=CHECKPOINT_MAX)]
YieldedValues = Annotated[list[bytes], Meta(max_length=YIELDED_VALUES_MAX)]
Bodies = Annotated[list[bytes], Meta(max_length=CHUNK_JOBS_MAX)]
Headers = Annotated[list[bytes], Meta(max_length=CHUNK_JOBS_MAX)]
Results = Annotated[list[bytes], Meta(max_length=CHUNK_JOBS_MAX)]
PieceData = Annotated[bytes, Meta(max_length=PIECE_MAX)]
#: The place of a large argument among those of its job, and the sizes of all of them.
LargePlace = Annotated[int, Meta(ge=1, le=LARGE_ARGUMENTS_MAX)]
LargeSizes = Annotated[list[Number], Meta(max_length=LARGE_ARGUMENTS_MAX)]
LargeNumbers = Annotated[list[Number], Meta(max_length=CHUNK_JOBS_MAX)]
OutputData = Annotated[bytes, Meta(max_length=OUTPUT_PIECE_MAX)]
RunTimes = Annotated[list[Seconds], Meta(max_length=CHUNK_JOBS_MAX)]
Peaks = Annotated[list[Number], Meta(max_length=CHUNK_JOBS_MAX)]
Ids = Annotated[list[JobId], Meta(max_length=REPLY_JOBS_MAX)]
