"""Pickles of arguments, results and exceptions: functions and classes in them go by their names.

Reading a pickle runs code. Only `codec` reads them, out of envelopes whose signature was right.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from types import FunctionType
from typing import Any

from svc.errors import CodecError

#: The modules that a pickle of an executor's call or of a result may name, by their names before release 0.2.
_RENAMED = {f"service.{module}": f"svc.{module}" for module in ("callables", "errors")}

#: The names of the module that a program starts with, in itself and in children of `multiprocessing`.
_MAIN_MODULES = ("__main__", "__mp_main__")


class _Unpickler(pickle.Unpickler):
    """Reads the pickles of this release and of the one before, in which svc's own package was `service`."""

    def find_class(self, module: str, name: str, /) -> Any:
        """Return a global; one of svc's own modules is found under its present name."""
        return super().find_class(_RENAMED.get(module, module), name)


def loads(signed: memoryview) -> Any:
    """Return the object in a pickle whose signature was right."""
    return _Unpickler(io.BytesIO(signed)).load()


def pickled(value: object) -> bytes:
    """Return the pickle of *value*.

    Raises:
        CodecError: it cannot be pickled.
    """
    try:
        return pickle_dumps()(value)
    except CodecError:
        raise
    except Exception as error:
        raise CodecError(f"{type(value).__name__} cannot be pickled: {error}") from error


def pickle_dumps() -> Callable[[object], bytes]:
    """Return the `dumps` of cloudpickle if it is installed (for lambdas and local classes), else ours.

    This imports cloudpickle.
    """
    try:
        import cloudpickle
    except ImportError:
        return _dumps
    return cloudpickle.dumps  # type: ignore[no-any-return]  # ships no types


class _NamePickler(pickle.Pickler):
    """Writes functions and classes as their names, and refuses those that no other process finds so."""

    def reducer_override(self, value: Any) -> Any:
        """Leave *value* to `pickle`, unless it is a function or class of a program's main module.

        Raises:
            CodecError: it is one.
        """
        if isinstance(value, (type, FunctionType)) and value.__module__ in _MAIN_MODULES:
            raise CodecError(
                f"`{value.__qualname__}` is of the program's `__main__`, which workers do not have; install "
                "svc-queue[pickle] here and there, or move it to a module that they have"
            )
        return NotImplemented


def _dumps(value: object) -> bytes:
    content = io.BytesIO()
    _NamePickler(content).dump(value)
    return content.getvalue()
