"""Observers are called before the steps of their interval."""

from training.observe.hook import Observer, observed


def test_observers_are_called_before_the_steps_of_their_interval():
    calls = []

    def step(*inputs):
        calls.append(("step", *inputs))
        return inputs

    observers = [
        Observer(2, lambda number, *inputs: calls.append(("two", number, *inputs))),
        Observer(3, lambda number, *inputs: calls.append(("three", number, *inputs))),
    ]
    call = observed(step, observers, done=4)
    assert [call("state", k) for k in (4, 5)] == [("state", 4), ("state", 5)]
    assert calls == [
        ("step", "state", 4),  # step 5
        ("two", 6, "state", 5),
        ("three", 6, "state", 5),
        ("step", "state", 5),
    ]
