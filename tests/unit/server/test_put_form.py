"""A put of one item, as CPython pickles it, is read without the bytes around the item."""

from __future__ import annotations

import pickle
from multiprocessing.reduction import ForkingPickler
from types import SimpleNamespace

import pytest

from svc.server.put_form import NO_PUT, item_of

ITEMS = [
    0,
    255,
    70_000,
    -1,
    1.5,
    True,
    None,
    "text",
    b"bytes",
    (1, "a"),
    [1, [2]],
    {"a": {"b": 1}},
    {1, 2},
    (),
]


def put(item: object, protocol: int = 4) -> bytes:
    return pickle.dumps(("tasks", "put", (item,), {}), protocol)


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("item", ITEMS, ids=repr)
def test_the_item_of_a_put_is_found(item, protocol):
    found = item_of(put(item, protocol))
    assert (type(found), found) == (type(item), item)


def test_the_stdlib_sends_a_put_in_this_form():
    """If it does not on a newer CPython, puts are read in the usual way, which takes longer."""
    assert item_of(bytes(ForkingPickler.dumps(("tasks", "put", (7,), {})))) == 7


@pytest.mark.parametrize(
    "request_",
    [
        ("tasks", "put", (1, True), {}),
        ("tasks", "put", (1,), {"block": False}),
        ("tasks", "put", (), {"item": 1}),
        ("tasks", "put_nowait", (1,), {}),
        ("tasks", "get", (), {}),
        ("results", "put", (1,), {}),
        ("tasks", "put", 1, {}),
    ],
    ids=repr,
)
def test_another_request_is_no_put(request_):
    assert item_of(pickle.dumps(request_, 4)) is NO_PUT


@pytest.mark.parametrize("protocol", [0, 1, 2, 3])
def test_an_older_protocol_is_left_to_the_usual_way(protocol):
    assert item_of(put(1, protocol)) is NO_PUT


@pytest.mark.parametrize(
    "item", [[1] * 5000, "x" * 5000, SimpleNamespace(a=1), print], ids=lambda item: repr(item)[:20]
)
def test_what_is_large_or_more_than_data_is_left_to_the_scan(item):
    assert item_of(put(item)) is NO_PUT


def test_an_item_that_refers_to_what_is_around_it_is_left_to_the_scan():
    item = ["tasks", "put"]
    assert item_of(put([item, item])) is NO_PUT
    name = "tasks"
    assert item_of(pickle.dumps((name, "put", (name,), {}), 4)) is NO_PUT


@pytest.mark.parametrize(
    "inside", [b"", b".", b"0", b"\x85", b"K\x01\x85\x94}\x94t\x94.", b"(", b"a", b"h\x00", b"cos\nsystem\n"]
)
def test_bytes_that_are_no_item_put_nothing(inside):
    message = put(7)
    place = message.index(b"K\x07")
    assert item_of(message[:place] + inside + message[place + 2 :]) is NO_PUT


def test_every_cut_of_a_put_is_no_put():
    message = put("text")
    assert {item_of(message[:size]) is NO_PUT for size in range(len(message))} == {True}
