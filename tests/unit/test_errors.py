from __future__ import annotations

import pytest

from service import errors


def test_an_error_without_a_message_says_what_its_class_means():
    assert (
        str(errors.QueueFull())
        == "The queue has reached its bound; submit again when it has drained a little."
    )


def test_a_message_is_kept_as_it_is():
    assert errors.Conflict("the key is taken").message == "the key is taken"


def test_an_unknown_code_is_still_an_error_of_ours():
    """A newer manager may refuse for reasons that this client does not know."""
    error = errors.error_for("from_the_future", "no")

    assert type(error) is errors.BrokerError
    assert str(error) == "no"


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [
        (errors.ServiceError, 1),
        (errors.ConfigurationError, 2),
        (errors.ManagerUnreachable, 3),
        (errors.ProtocolMismatch, 3),
        (errors.AuthenticationFailed, 4),
        (errors.UnknownJob, 5),
        (errors.UnknownTask, 5),
        (errors.TaskNotFound, 5),
        (errors.Conflict, 6),
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
    }

    for name in vars(errors):
        kind = getattr(errors, name)
        if isinstance(kind, type) and issubclass(kind, errors.ServiceError):
            assert kind.retryable == (kind in retryable), name


def test_a_failed_job_carries_its_id_and_remote_traceback():
    error = errors.JobFailed("no", job_id="o-1", remote_traceback="Traceback …")

    assert (error.job_id, error.remote_traceback, error.message) == ("o-1", "Traceback …", "no")
