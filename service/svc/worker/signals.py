"""The signals that end a worker or have it load its tasks again, and who sent them.

SIGTERM and SIGINT are a planned stop, unless one of the worker's own tasks has sent them. So they are
blocked, and a thread waits for them: only so does the kernel tell the sender.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

#: Signals that only the supervisor acts on; its consumers hear from it what to do.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: The signals that a thread of the supervisor waits for; its forkserver never gets them.
AWAITED_SIGNALS = (*STOP_SIGNALS, signal.SIGHUP)
#: The signal on which a consumer looks for an order in its slot; it is one that programs hardly use.
INTERRUPT_SIGNAL = signal.SIGRTMAX - 2 if hasattr(signal, "SIGRTMAX") else signal.SIGUSR2


@contextlib.contextmanager
def signals_to(stop: Callable[[int], None], reload: Callable[[], None]) -> Iterator[None]:
    """Call *stop* with the sender's process id at each SIGTERM and SIGINT; 0 if that is not known.

    Call *reload* at each SIGHUP.

    It is called from a thread. Only a process's main thread can arrange that; in any other, nothing happens.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Installed and not inherited: process 1 of a container has no defaults. They are for threads from before
    # that have not blocked the signals.
    before = {number: signal.signal(number, lambda *_: stop(0)) for number in STOP_SIGNALS}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: reload())
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED_SIGNALS)
    ended = threading.Event()
    waiter = threading.Thread(target=_wait, args=(stop, reload, ended), name="signals", daemon=True)
    waiter.start()
    try:
        yield
    finally:
        ended.set()
        if waiter.ident is not None:
            signal.pthread_kill(waiter.ident, signal.SIGTERM)
        waiter.join()
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _wait(stop: Callable[[int], None], reload: Callable[[], None], ended: threading.Event) -> None:
    while True:
        told = signal.sigwaitinfo(AWAITED_SIGNALS)
        if ended.is_set():
            return
        if told.si_signo == signal.SIGHUP:
            reload()
            continue
        stop(told.si_pid if told.si_pid != os.getpid() else 0)
