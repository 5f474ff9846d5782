"""Log records as another program sees them: on the stderr of real processes."""

from __future__ import annotations

import json
import os
import pickle
import pty
import re
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import pytest

from svc.errors import ConfigurationError
from svc.telemetry.logs import LogSettings
from tests.support.hostile_text import HOSTILE, raw_in

ROOT = Path(__file__).parents[3]
PROLOGUE = """
import logging, structlog
from svc.telemetry.logs import LogSettings
log = structlog.get_logger()
"""


def run(program: str, *, stderr: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    code = PROLOGUE + textwrap.dedent(program)
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True, check=False
    )


def records(program: str) -> list[dict[str, object]]:
    done = run(program)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "", "logs go to stderr; stdout is for data"
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_a_pipe_gets_one_json_object_a_line():
    first, second = records("""
        LogSettings().configure()
        log.info("worker_joined", worker="w1", consumers=4)
        log.warning("worker_lost", worker="w1")
    """)
    assert first["event"] == "worker_joined"
    assert first["consumers"] == 4
    assert second["level"] == "warning"
    assert list(first)[:3] == ["timestamp", "level", "event"]


def test_times_are_utc_in_iso_8601():
    (record,) = records("LogSettings().configure()\nlog.info('started')")
    text = str(record["timestamp"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", text)
    assert abs((datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds()) < 60


def test_a_terminal_gets_columns_and_not_json():
    parent, child = pty.openpty()
    try:
        done = run("LogSettings().configure()\nlog.info('worker_joined', consumers=4)", stderr=child)
        text = os.read(parent, 65536).decode()
    finally:
        os.close(parent)
        os.close(child)
    assert done.returncode == 0
    assert "worker_joined" in text
    with pytest.raises(ValueError, match=r"Expecting value|Extra data"):
        json.loads(text)


@pytest.mark.parametrize("form", ["console", "json"])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_terminal_obeys_nothing_that_is_logged_and_no_record_is_forged(text: str, form: str):
    done = run(f"""
        LogSettings({form!r}).configure()
        text = {text!r}
        log.info(text, error=text, nested={{"of": [text]}}, **{{text: 1}})
        logging.getLogger(text).warning(text)
        try:
            raise ValueError(text)
        except ValueError:
            log.exception("failed")
    """)
    assert done.returncode == 0, done.stderr
    assert not raw_in(done.stderr)
    heads = [line for line in done.stderr.splitlines() if not line.startswith("    ")]
    assert len(heads) == 3
    if form == "json":
        assert json.loads(heads[0])["error"] == text


def test_task_code_that_uses_logging_comes_out_in_the_same_form():
    (record,) = records("""
        LogSettings(worker="w1").configure()
        structlog.contextvars.bind_contextvars(job_id="o-7")
        logging.getLogger("mytasks").warning("disk %s is %d%% full", "sda", 91, extra={"disk": "sda"})
    """)
    assert record["event"] == "log_message"
    assert record["message"] == "disk sda is 91% full"
    assert record["logger"] == "mytasks"
    assert record["level"] == "warning"
    assert record["job_id"] == "o-7"
    assert record["disk"] == "sda"
    assert record["worker"] == "w1"


@pytest.mark.parametrize("call", ["log.exception('task_failed')", "logging.exception('task failed')"])
def test_an_exception_brings_its_traceback_in_the_same_record(call: str):
    (record,) = records(f"""
        LogSettings().configure()
        try:
            1 / 0
        except ZeroDivisionError:
            {call}
    """)
    assert "ZeroDivisionError: division by zero" in str(record["exception"])
    assert record["level"] == "error"


def test_what_is_below_the_level_is_not_written():
    shown = records("""
        LogSettings(level="warning").configure()
        log.info("quiet")
        logging.info("quiet too")
        log.warning("loud")
    """)
    assert [record["event"] for record in shown] == ["loud"]


def test_settings_cross_to_another_process_by_pickle():
    configure = LogSettings(format="json", level="debug", worker="w1", consumer="w1-3").configure
    (record,) = records(f"""
        import pickle
        pickle.loads({pickle.dumps(configure)!r})()
        log.debug("consumer_started")
    """)
    assert (record["worker"], record["consumer"]) == ("w1", "w1-3")


def test_a_second_configure_replaces_the_first():
    shown = records("""
        LogSettings(level="error").configure()
        LogSettings(level="info").configure()
        log.info("once")
        logging.getLogger("mytasks").info("once")
    """)
    assert len(shown) == 2


@pytest.mark.parametrize("settings", [LogSettings(format="loud"), LogSettings(level="loud")])  # type: ignore[arg-type]
def test_an_unknown_setting_is_refused_by_name(settings: LogSettings):
    with pytest.raises(ConfigurationError, match="'loud'"):
        settings.configure()


def test_records_of_many_processes_on_one_pipe_are_never_torn():
    """Eight writers at once, records of every length up to the bound, one shared pipe."""
    shown = records("""
        import multiprocessing
        def write(number, start, settings):
            settings.configure()
            start.wait()
            for size in range(0, 6000, 40):
                structlog.get_logger().info("noise", number=number, text=str(number) * size)
        context = multiprocessing.get_context("fork")
        start = context.Barrier(8)
        writers = [context.Process(target=write, args=(n, start, LogSettings())) for n in range(8)]
        for writer in writers: writer.start()
        for writer in writers: writer.join()
    """)
    assert len(shown) == 8 * 150
    for record in shown:
        text = str(record["text"]).split("…")[0]
        assert set(text) <= {str(record["number"])}


def test_a_reader_that_went_away_does_not_stop_the_program():
    done = run("""
        import os
        reading, writing = os.pipe()
        os.dup2(writing, 2)
        os.close(reading)
        LogSettings().configure()
        log.info("into_the_void")
        logging.warning("into the void")
        print("still here")
    """)
    assert (done.returncode, done.stdout) == (0, "still here\n")


def test_a_burst_of_a_repeating_event_shows_as_one_record():
    shown = records("""
        from svc.telemetry.events import repeating_events
        LogSettings().configure()
        kind = sorted(repeating_events())[0]
        for _ in range(1000):
            log.warning(kind)
        log.info("other")
    """)
    assert len(shown) == 2
