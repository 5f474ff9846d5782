from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from svc.worker.process import kill, main_hidden, signals_held_back


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_guarded_process_does_not_hear_stop_signals_but_what_it_starts_does() -> None:
    """SIGTERM would otherwise be ignored by every program that a task starts, too."""
    program = """
        import os, signal, subprocess, sys
        from svc.worker.process import guard
        guard("title")
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        child = subprocess.Popen([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)"],
                                 stdout=subprocess.PIPE)
        child.stdout.readline()
        child.terminate()
        fork = os.fork()
        if fork == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        print(child.wait(), os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]))
    """
    assert run(program) == "-15 -15"


def test_a_guarded_process_leads_its_own_session() -> None:
    program = """
        import os
        from svc.worker.process import guard
        guard("title")
        print(os.getsid(0) == os.getpid() == os.getpgid(0))
    """
    assert run(program) == "True"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a score")
@pytest.mark.parametrize(("before", "after"), [("0", "100"), ("650", "750"), ("950", "1000")])
def test_the_kernel_kills_a_guarded_process_and_what_it_starts_before_its_parent(
    before: str, after: str
) -> None:
    program = f"""
        import subprocess
        from pathlib import Path
        from svc.worker.process import guard
        score = Path("/proc/self/oom_score_adj")
        score.write_text("{before}")
        guard("title")
        child = subprocess.check_output(["cat", str(score)], text=True)
        print(score.read_text().strip(), child.strip())
    """
    assert run(program) == f"{after} {after}"


def test_orphans_are_reaped_and_children_of_multiprocessing_are_left_to_it() -> None:
    program = """
        import ctypes, os, multiprocessing, time
        from svc.worker.process import helper_pids, reap_orphans
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans come here, as to process 1

        def ended():
            info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            return info.si_pid if info else 0

        middle = os.fork()
        if middle == 0:
            if os.fork():
                os._exit(0)
            os._exit(7)
        os.waitpid(middle, 0)
        while not ended():
            time.sleep(0.01)
        reap_orphans(set())
        try:
            os.waitpid(-1, os.WNOHANG)
            print("left over")
        except ChildProcessError:
            print("reaped")
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=int)
        process.start()
        while ended() != process.pid:
            time.sleep(0.01)
        reap_orphans({process.pid} | helper_pids())
        process.join()
        print(process.exitcode)
    """
    assert run(program) == "reaped\n0"


def test_killing_reaches_the_whole_group_of_a_leader() -> None:
    child = subprocess.Popen(
        ["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True
    )
    assert child.stdout is not None
    grandchild = int(child.stdout.readline())
    kill(child.pid)
    assert child.wait(30) == -signal.SIGKILL
    # The pipe ends when nobody holds it any more.
    assert child.stdout.read() == b""
    child.stdout.close()
    assert grandchild != child.pid


def test_killing_who_has_gone_is_harmless() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    kill(child.pid)


def test_killing_who_leads_no_group_reaches_the_process_alone() -> None:
    child = subprocess.Popen(["sleep", "60"])
    kill(child.pid)
    assert child.wait(30) == -signal.SIGKILL


def test_the_main_module_is_hidden_for_a_moment_only() -> None:
    main = sys.modules["__main__"]
    with main_hidden():
        assert sys.modules["__main__"] is not main
        assert not hasattr(sys.modules["__main__"], "__file__")
    assert sys.modules["__main__"] is main


def test_signals_are_held_back_for_a_moment_only() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with signals_held_back():
        assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    assert os.getpid() > 0
