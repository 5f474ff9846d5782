from __future__ import annotations

import pickle
import sys
import threading
import types
from fractions import Fraction

import msgspec
import pytest

from svc import callables, codec
from svc.envelope import PickleKeys
from svc.errors import CodecError, QueueFull, UntrustedPickle

ENVELOPES = PickleKeys((b"k" * 32,)).of("o-0")


def test_plain_arguments_come_back_as_data():
    encoded = codec.encode_arguments(codec.PLAIN, (1, "a", [2.5, None]), {"b": {"c": b"x"}})

    assert codec.decode_arguments(codec.PLAIN, encoded, (codec.PLAIN,)) == (
        [1, "a", [2.5, None]],
        {"b": {"c": b"x"}},
    )


@pytest.mark.parametrize(
    "args", [(), (1, "a", 2.5, True, None), ("x" * 70_000,)], ids=["none", "few", "long"]
)
def test_the_quick_way_makes_the_same_body(args):
    assert (codec.encode_quickly(args, {}), codec.PLAIN) == codec.encode_call(codec.PLAIN, args, {})


@pytest.mark.parametrize(
    ("args", "kwargs"), [((1,), {"a": 1}), (([1],), {}), ((b"x",), {}), ((2**64,), {}), (("\ud800",), {})]
)
def test_the_quick_way_leaves_to_the_other_one_what_needs_a_look(args, kwargs):
    assert codec.encode_quickly(args, kwargs) is None


@pytest.mark.parametrize("value", [Fraction(1, 2), object(), lambda: 1, 1 << 70])
def test_what_is_no_plain_data_is_refused_with_what_to_do(value):
    with pytest.raises(CodecError, match="pickle"):
        codec.encode_arguments(codec.PLAIN, (value,), {})
    with pytest.raises(CodecError, match="pickle"):
        codec.encode_result(codec.PLAIN, value)


def test_endless_arguments_are_refused():
    endless: list[object] = []
    endless.append(endless)

    with pytest.raises(CodecError):
        codec.encode_arguments(codec.PLAIN, (endless,), {})


def test_pickled_arguments_need_a_worker_that_accepts_them():
    encoded = codec.encode_arguments(codec.PICKLE, (Fraction(1, 2),), {"a": 1})

    with pytest.raises(CodecError, match="--accept pickle"):
        codec.decode_arguments(codec.PICKLE, encoded, (codec.PLAIN,))
    both = (codec.PLAIN, codec.PICKLE)
    assert codec.decode_arguments(codec.PICKLE, encoded, both, memoryview) == ([Fraction(1, 2)], {"a": 1})
    with pytest.raises(UntrustedPickle, match="no key"):
        codec.decode_arguments(codec.PICKLE, encoded, both)


@pytest.mark.parametrize("module", ["__main__", "__mp_main__"])
@pytest.mark.parametrize("named", ["function", "class", "object"])
def test_without_cloudpickle_names_of_the_main_module_are_refused_with_what_to_do(monkeypatch, module, named):
    def is_prime(number: int) -> bool:
        return number > 1

    class Point:
        pass

    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(is_prime=is_prime, Point=Point))
    for each in (is_prime, Point):
        each.__module__, each.__qualname__ = module, each.__name__
    value: object = {"function": is_prime, "class": Point, "object": Point()}[named]
    name = "is_prime" if named == "function" else "Point"

    with pytest.raises(
        CodecError, match=rf"^argument 2: `{name}` is of the program's `__main__`.*svc-queue\[pickle\]"
    ):
        codec.encode_arguments(codec.PICKLE, (1, value), {})


def test_without_cloudpickle_names_of_other_modules_travel(monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    encoded = codec.encode_arguments(codec.PICKLE, (divmod, Fraction, Fraction(1, 2)), {})
    decoded = codec.decode_arguments(codec.PICKLE, encoded, (codec.PICKLE,), memoryview)
    assert decoded == ([divmod, Fraction, Fraction(1, 2)], {})


def test_callables_that_no_module_names_travel_as_pickles():
    encoded = codec.encode_arguments(codec.PICKLE, (lambda x: x + 1,), {})

    (function,), _ = codec.decode_arguments(codec.PICKLE, encoded, (codec.PICKLE,), memoryview)

    assert function(1) == 2


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x91\x90", pickle.dumps(1)])
@pytest.mark.parametrize("name", codec.CODECS)
def test_a_body_that_cannot_be_read_is_a_codec_error(name, body):
    with pytest.raises(CodecError):
        codec.decode_arguments(name, body, codec.CODECS, memoryview if name == codec.PICKLE else None)


@pytest.mark.parametrize("value", [None, 0, "ä", [1, [2]], {"a": b"b"}, 1.5])
def test_results_come_back(value):
    assert codec.decode_result(codec.encode_result(codec.PLAIN, value)) == value


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("value", ["\ud800", ["\ud800"], {"\ud800": 1}])
def test_text_that_utf_8_cannot_encode_is_refused_as_such(value, typed):
    """It is plain data, so it would be no help to say that it is none."""
    reason = rf"{type(value).__name__} holds a character that UTF-8 cannot encode \('\\ud800'\)"
    with pytest.raises(CodecError, match=rf"^the result of type {reason}"):
        codec.encode_result(codec.PLAIN, value, typed=typed)
    with pytest.raises(CodecError, match=rf"^the checkpoint of type {reason}"):
        codec.encode_checkpoint(value)
    with pytest.raises(CodecError, match=r"^argument 2.* holds a character that UTF-8 cannot encode"):
        codec.encode_call(codec.PLAIN, [1, value], {})


def test_a_checkpoint_that_is_no_data_is_refused_by_its_name():
    with pytest.raises(CodecError, match=r"^the checkpoint of type object is not plain data"):
        codec.encode_checkpoint(object())


def test_a_pickled_result_is_read_only_by_who_accepts_pickles():
    encoded = codec.encode_result(codec.PICKLE, Fraction(1, 2), ENVELOPES)

    with pytest.raises(CodecError, match="pickle"):
        codec.decode_result(encoded)
    assert codec.decode_result(encoded, ENVELOPES) == Fraction(1, 2)


def test_plain_data_of_a_pickle_job_is_read_by_everybody():
    assert codec.decode_result(codec.encode_result(codec.PICKLE, [1])) == [1]


def test_an_acknowledgement_without_a_result_reads_as_none():
    assert codec.decode_result(b"") is None


def test_an_extension_of_another_type_is_refused():
    with pytest.raises(CodecError, match="unknown type 69"):
        codec.decode_result(b"\xd4\x45\x00", ENVELOPES)


def test_what_cannot_be_pickled_says_so():
    with pytest.raises(CodecError, match="cannot be pickled"):
        codec.encode_arguments(codec.PICKLE, (threading.Lock(),), {})


def test_a_result_that_nobody_signed_is_not_opened():
    bare = msgspec.msgpack.encode(msgspec.msgpack.Ext(80, pickle.dumps(Fraction(1, 2))))

    with pytest.raises(UntrustedPickle, match="not signed"):
        codec.decode_result(bare, ENVELOPES)
    with pytest.raises(UntrustedPickle, match="not signed"):
        codec.decode_exception(pickle.dumps(ValueError()), ENVELOPES)


def test_an_exception_cannot_be_given_out_as_a_result():
    sealed = codec.encode_exception(ValueError("x"), ENVELOPES)

    with pytest.raises(UntrustedPickle, match="signature"):
        codec.decode_result(msgspec.msgpack.encode(msgspec.msgpack.Ext(80, sealed)), ENVELOPES)


@pytest.mark.parametrize(
    ("pickled", "value"),
    [
        (b"(cservice.callables\nEach\n(cbuiltins\npow\ntRtp0\n0(g0\n(dt.", callables.Each),
        (b"(cservice.callables\nExactly\n(cbuiltins\npow\ntRtp0\n0(g0\n(dt.", callables.Exactly),
        (b"((cservice.callables\n_same\n(I7\ntRt(dt.", int),
        (b"((cservice.errors\nQueueFull\n(Vfull\ntRt(dt.", QueueFull),
    ],
)
def test_a_pickle_of_the_release_before_finds_what_was_renamed(pickled, value):
    (found,), _ = codec.decode_arguments(codec.PICKLE, pickled, (codec.PICKLE,), memoryview)
    assert type(found) is value


def test_a_module_of_the_users_own_is_not_taken_for_one_of_ours(monkeypatch):
    own = types.ModuleType("service.models")
    vars(own)["Fraction"] = Fraction
    monkeypatch.setitem(sys.modules, "service", types.ModuleType("service"))
    monkeypatch.setitem(sys.modules, "service.models", own)
    pickled = b"((cservice.models\nFraction\n(I1\nI2\ntRt(dt."
    assert codec.decode_arguments(codec.PICKLE, pickled, (codec.PICKLE,), memoryview) == (
        [Fraction(1, 2)],
        {},
    )
