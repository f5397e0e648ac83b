"""Observers are called before the steps of their interval."""

from training.observe.hook import Observer, notify


def test_observers_are_called_before_the_steps_of_their_interval():
    calls = []
    observe = notify(
        [
            Observer(2, lambda step, *inputs: calls.append(("two", step, *inputs))),
            Observer(3, lambda step, *inputs: calls.append(("three", step, *inputs))),
        ]
    )
    for step in (5, 6, 8):
        observe(step, "state", "batch")
    assert calls == [
        ("two", 6, "state", "batch"),
        ("three", 6, "state", "batch"),
        ("two", 8, "state", "batch"),
    ]


def test_without_observers_there_is_nothing_to_call():
    assert notify([]) is None
