from __future__ import annotations

import concurrent.futures
import copy
import pickle
import queue

import pytest

from svc import errors
from svc.error_codes import error_for


def test_an_error_without_a_message_says_what_its_class_means():
    assert (
        str(errors.QueueFull())
        == "The queue has reached its bound; submit again when it has drained a little."
    )


def test_a_message_is_kept_as_it_is():
    assert errors.Conflict("the key is taken").message == "the key is taken"


def test_an_unknown_code_is_still_an_error_of_ours():
    """A newer manager may refuse for reasons that this client does not know."""
    error = error_for("from_the_future", "no")

    assert type(error) is errors.BrokerError
    assert str(error) == "no"


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [
        (errors.ServiceError, 1),
        (errors.ConfigurationError, 2),
        (errors.BadRequest, 2),
        (errors.ManagerUnreachable, 3),
        (errors.ProtocolMismatch, 3),
        (errors.AuthenticationFailed, 4),
        (errors.UnknownJob, 5),
        (errors.UnknownTask, 5),
        (errors.TaskNotFound, 5),
        (errors.Conflict, 6),
        (errors.JournalUnreachable, 3),
        (errors.Deposed, 6),
        (errors.JournalMoved, 6),
        (errors.CopyIncomplete, 6),
        (errors.JobFailed, 8),
        (errors.JobCancelled, 8),
        (errors.QueueFull, 9),
        (errors.JournalFull, 9),
        (errors.Draining, 9),
        (errors.ResultTimeout, 124),
    ],
)
def test_exit_codes_are_those_that_scripts_rely_on(kind, exit_code):
    assert kind.exit_code == exit_code


def test_what_may_be_asked_again_says_so():
    retryable = {
        errors.ManagerUnreachable,
        errors.QueueFull,
        errors.JournalFull,
        errors.Draining,
        errors.ResultTimeout,
        errors.LargeValueLost,
        errors.JournalUnreachable,
    }

    for name in vars(errors):
        kind = getattr(errors, name)
        if isinstance(kind, type) and issubclass(kind, errors.ServiceError):
            assert kind.retryable == (kind in retryable), name


@pytest.mark.parametrize(
    ("kind", "standard"),
    [
        (errors.ResultTimeout, TimeoutError),
        (errors.ManagerUnreachable, ConnectionError),
        (errors.ProtocolMismatch, ConnectionError),
        (errors.AuthenticationFailed, PermissionError),
        (errors.Forbidden, PermissionError),
        (errors.UnknownJob, LookupError),
        (errors.UnknownTask, LookupError),
        (errors.TaskNotFound, LookupError),
        (errors.ConfigurationError, ValueError),
        (errors.BadRequest, ValueError),
        (errors.JobTooLarge, ValueError),
        (errors.ArgumentError, ValueError),
        (errors.CodecError, ValueError),
        (errors.UntrustedPickle, ValueError),
        (errors.QueueFull, queue.Full),
        (errors.JobCancelled, concurrent.futures.CancelledError),
    ],
)
class TestErrorsOfTheStandardLibrary:
    def test_ours_is_one_of_them(self, kind, standard):
        with pytest.raises(standard, match=r"^why$"):
            raise kind("why")

    def test_it_says_what_its_class_means_if_nothing_else_is_said(self, kind, standard):
        assert str(kind()) == kind.__doc__.partition("\n")[0]

    def test_it_travels_by_its_code_and_as_a_pickle(self, kind, standard):
        error = error_for(kind.code, "why")
        error.add_note("beside")

        again = pickle.loads(pickle.dumps(error))

        assert (type(again), str(again), again.__notes__) == (kind, "why", ["beside"])


class TestJobFailed:
    FAILED = errors.JobFailed(
        "job o-1 failed: ValueError: no",
        job_id="o-1",
        type="ValueError",
        message="no",
        attempts=4,
        remote_traceback="Traceback …",
    )

    @pytest.mark.parametrize("error", [FAILED, copy.copy(FAILED), pickle.loads(pickle.dumps(FAILED))])
    def test_it_carries_what_the_job_raised(self, error):
        assert (error.type, error.message, error.attempts) == ("ValueError", "no", 4)
        assert (error.job_id, error.remote_traceback) == ("o-1", "Traceback …")
        assert str(error) == "job o-1 failed: ValueError: no"

    def test_a_message_that_is_empty_stays_empty(self):
        assert errors.JobFailed("job o-1 failed: ValueError", type="ValueError", message="").message == ""

    def test_without_any_facts_the_message_is_the_sentence(self):
        error = errors.JobFailed("no", job_id="o-1")

        assert (error.type, error.message, error.attempts) == ("", "no", 0)
