"""Plain data always comes through a request; no bytes at all do anything but be read or refused."""

import pickle
import pickletools
import random
import tracemalloc
from itertools import islice

from hypothesis import given, settings
from hypothesis import strategies as st

from svc.errors import BadRequest
from svc.server.pickle_scan import loads_plain
from svc.server.pickle_stack import NESTING_MAX

EXPANDED_MAX = 100_000
PLAIN_TYPES = (type(None), bool, int, float, str, bytes, bytearray, tuple, list, dict, set, frozenset)

atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(2**600), max_value=2**600),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
)
keys = st.recursive(
    atoms, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=4
)
plain = st.recursive(
    atoms | st.binary().map(bytearray),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(keys, inner, max_size=5),
        st.sets(keys, max_size=4),
        inner.map(lambda value: [value, value, (value,)]),
        inner.map(lambda value: {"a": value, "b": (value, [value])}),
    ),
    max_leaves=25,
)
#: Kinds that every protocol writes as data.
old_plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=5)
        | inner.map(lambda value: [value, (value, value)])
    ),
    max_leaves=25,
)

CODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
#: One opcode with an argument that may fit.
step = st.one_of(
    st.sampled_from(CODES),
    st.sampled_from(
        [b"N", b"K\x01", b"]", b"}", b"\x8f", b"(", b"t", b"\x85", b"\x86", b"a", b"e", b"s", b"u"]
    ),
    st.sampled_from(
        [b"(", b"l", b"d", b"\x90", b"\x91", b"\x94", b")", b"I7\n", b"F1\n", b"Vab\n", b"L5L\n"]
    ),
    st.builds(lambda index: b"h" + bytes([index]), st.integers(0, 8)),
    st.builds(lambda index: b"q" + bytes([index]), st.integers(0, 8)),
    st.builds(lambda index: b"g%d\n" % index, st.integers(0, 8)),
    st.builds(lambda index: b"r" + index.to_bytes(4, "little"), st.integers(0, 2**32 - 1)),
    st.builds(lambda text: b"\x8c" + bytes([len(text)]) + text, st.binary(max_size=5)),
    st.builds(lambda number: b"\x8a" + bytes([len(number)]) + number, st.binary(max_size=12)),
)
programs = st.builds(
    lambda steps, tail: b"\x80\x04" + b"".join(steps) + tail,
    st.lists(step, max_size=150),
    st.sampled_from([b".", b"t.", b"a.", b"", b"\x86."]),
)


class Assembler:
    """Writes programs that are sound as to stack, marks and memo, but otherwise as strange as can be."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.code = bytearray(b"\x80\x04")
        self.kinds: list[str] = []
        self.marks: list[int] = []
        self.memo: list[str] = []

    def write(self, length: int) -> bytes:
        """Return a program of about *length* opcodes that leaves one object."""
        for _ in range(length):
            self.dice.choice(
                (self.push, self.push, self.fill, self.fill, self.note, self.recall, self.wrap)
            )()
        while self.marks:
            self.close(b"t", "tuple")
        while len(self.kinds) > 1:
            self.code += b"\x86"
            self.kinds[-2:] = ["tuple"]
        return bytes(self.code + b".")

    def above(self) -> int:
        return len(self.kinds) - (self.marks[-1] if self.marks else 0)

    def push(self) -> None:
        code, kind = self.dice.choice(
            [
                (b"]", "list"),
                (b"}", "dict"),
                (b"\x8f", "set"),
                (b")", "tuple"),
                (b"K\x07", ""),
                (b"(", "mark"),
            ]
        )
        self.code += code
        if kind == "mark":
            self.marks.append(len(self.kinds))
        else:
            self.kinds.append(kind)

    def note(self) -> None:
        if self.above():
            self.code += b"\x94"
            self.memo.append(self.kinds[-1])

    def recall(self) -> None:
        if self.memo:
            index = self.dice.randrange(min(256, len(self.memo)))
            self.code += b"h" + bytes([index])
            self.kinds.append(self.memo[index])

    def wrap(self) -> None:
        count = self.dice.randint(1, 3)
        if self.above() >= count:
            self.code += bytes([0x84 + count])
            self.kinds[-count:] = ["tuple"]

    def fill(self) -> None:
        """Add the values on top to a container below them, by one of the opcodes that fits."""
        if self.marks and self.dice.random() < 0.7:
            below = self.kinds[self.marks[-1] - 1] if self.marks[-1] else ""
            code, kind = {"list": (b"e", "grow"), "set": (b"\x90", "grow")}.get(below, (b"t", "tuple"))
            self.close(code, kind)
        elif self.above() >= 2 and self.kinds[-2] == "list":
            self.code += b"a"
            self.kinds.pop()
        elif self.above() >= 3 and self.kinds[-3] == "dict":
            self.code += b"s"
            del self.kinds[-2:]

    def close(self, code: bytes, kind: str) -> None:
        self.code += code
        del self.kinds[self.marks.pop() :]
        if kind != "grow":
            self.kinds.append(kind)
        elif not self.above():
            self.kinds.append("")  # cannot be: the unpickler refuses it, and so must the scan
            self.code += b"N"


def check(message: bytes) -> None:
    """Give *message* to the reader: a refusal is well, and so is plain, finite data that costs little."""
    tracemalloc.start()
    try:
        try:
            value = loads_plain(message, max_expanded_bytes=EXPANDED_MAX)
        except BadRequest:
            value = None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200_000 + 500 * len(message)
    assert sum(1 for _ in islice(parts(value, 0), EXPANDED_MAX * 2)) < EXPANDED_MAX * 2


def parts(value, depth):
    """Walk through everything inside *value*, shared objects each time they are met."""
    assert type(value) in PLAIN_TYPES
    assert depth <= NESTING_MAX
    yield value
    if isinstance(value, dict):
        inner = [part for item in value.items() for part in item]
    else:
        inner = list(value) if isinstance(value, tuple | list | set | frozenset) else []
    for part in inner:
        yield from parts(part, depth + 1)


@given(plain)
def test_plain_data_comes_through_as_it_is(value):
    message = pickle.dumps(("ident", "put", (value,), {"timeout": 1.5}), 5)
    found = loads_plain(message)
    assert found == ("ident", "put", (value,), {"timeout": 1.5})
    assert pickle.dumps(found, 5) == pickle.dumps(pickle.loads(message), 5)


@given(old_plain, st.integers(0, 5))
def test_plain_data_comes_through_in_every_protocol(value, protocol):
    assert loads_plain(pickle.dumps(value, protocol)) == value


@settings(max_examples=300)
@given(st.binary(max_size=2000))
def test_random_bytes_are_read_or_refused(message):
    check(message)


@settings(max_examples=400)
@given(programs)
def test_random_programs_of_opcodes_are_read_or_refused(message):
    check(message)


@settings(max_examples=400)
@given(st.integers(0, 2**32), st.integers(1, 300))
def test_sound_but_strange_programs_are_read_or_refused(seed, length):
    """These get far: aliases that grow, cycles, deep and shared structures."""
    message = Assembler(random.Random(seed)).write(length)
    check(message)


@settings(max_examples=300)
@given(st.data())
def test_mutated_requests_are_read_or_refused(data):
    """Bytes of a good request are replaced, inserted, removed or repeated."""
    message = bytearray(pickle.dumps(("ident", "put", (data.draw(plain),), {}), 5))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(message)))
        end = data.draw(st.integers(place, min(len(message), place + 8)))
        change = data.draw(
            st.one_of(st.binary(max_size=6), st.sampled_from(CODES), st.just(message[place:end] * 3))
        )
        message[place:end] = change
    check(bytes(message))


@given(programs)
def test_what_is_read_is_what_the_stdlib_reads(message):
    try:
        value = loads_plain(message, max_expanded_bytes=EXPANDED_MAX)
    except BadRequest:
        return
    assert repr(value) == repr(pickle.loads(message))
