"""Batches made ahead come in order, and errors and ends reach who asks."""

import threading
import time

import pytest

from training.prefetch import MAX_READY, Prefetch


def test_batches_come_in_order_and_a_few_ahead():
    made = []

    def batch(k):
        made.append(k)
        return k * 10

    with Prefetch(batch, 3, 9) as batches:
        assert [batches.next() for _ in range(2)] == [30, 40]
        time.sleep(0.3)
        assert made == list(range(3, 3 + 2 + MAX_READY + 1))  # one waits for room
        assert [batches.next() for _ in range(4)] == [50, 60, 70, 80]


def test_what_goes_wrong_is_raised_where_the_batch_is_asked_for():
    def batch(k):
        if k == 1:
            raise OSError("no such batch")
        return k

    with Prefetch(batch, 0, 5) as batches:
        assert batches.next() == 0
        with pytest.raises(OSError, match="no such batch"):
            batches.next()


def test_the_thread_ends_with_the_run():
    before = threading.active_count()
    with Prefetch(lambda k: k, 0, 10**6) as batches:
        batches.next()
    assert threading.active_count() == before


def test_waiting_is_measured():
    def slow(k):
        time.sleep(0.05)
        return k

    with Prefetch(slow, 0, 3) as batches:
        for _ in range(3):
            batches.next()
        assert 0.1 < batches.take_wait_seconds() < 2
        assert batches.take_wait_seconds() == 0
