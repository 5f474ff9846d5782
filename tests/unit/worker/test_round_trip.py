"""The estimate of the round trip to the manager."""

from svc.worker.round_trip import RoundTrip


def test_nothing_is_known_before_the_first_measurement():
    trip = RoundTrip()
    assert (trip.seconds, trip.is_due(0.0)) == (0.0, True)


def test_three_are_made_at_once_and_then_one_every_five_seconds():
    trip = RoundTrip()
    for now in (100.0, 100.1, 100.2):
        assert trip.is_due(now)
        trip.note(0.1, now)
    assert [trip.is_due(now) for now in (100.3, 105.1, 105.2)] == [False, False, True]


def test_the_quickest_of_the_last_eight_counts():
    trip = RoundTrip()
    for seconds in (0.01, 0.5, 0.02, 0.3):
        trip.note(seconds, 1.0)
    assert trip.seconds == 0.01
    for _ in range(7):
        trip.note(0.4, 2.0)
    assert trip.seconds == 0.3  # the way has become longer: 0.01 and 0.02 are forgotten


def test_a_new_connection_begins_anew():
    trip = RoundTrip()
    for _ in range(3):
        trip.note(0.1, 1.0)
    trip.forget()
    assert (trip.seconds, trip.is_due(1.0)) == (0.0, True)
