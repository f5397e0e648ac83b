"""Some steps of a run are traced; the run is as without."""

import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from training.profiling.trace import Profile, parse_steps
from utils.errors import UserError


def counted(calls):
    add = jax.jit(lambda x: x + 1)

    def step(state, carry, batch):
        calls.append(1)
        return add(state), carry, {}

    return step


def run(folder, steps, number, done=0):
    calls = []
    state = jnp.zeros(())
    with Profile(steps, folder) as profile:
        step = profile.around(counted(calls), done)
        for _ in range(number):
            state, _, _ = step(state, (), None)
    assert len(calls) == number == int(state)
    return sorted(folder.rglob("perfetto_trace.json.gz"))


def traced_steps(trace):
    with gzip.open(trace) as file:
        events = json.load(file)["traceEvents"]
    found = (event.get("args", {}).get("step_num") for event in events)
    return sorted({int(number) for number in found if number is not None})


def test_the_trace_holds_the_steps_that_were_asked_for(tmp_path):
    (trace,) = run(tmp_path, (3, 4), number=6)
    assert traced_steps(trace) == [3, 4]
    assert list(tmp_path.rglob("*.xplane.pb"))  # TensorBoard's


def test_a_run_that_ends_before_leaves_what_it_traced(tmp_path):
    (trace,) = run(tmp_path, (12, 20), number=3, done=10)
    assert traced_steps(trace) == [12, 13]


@pytest.mark.parametrize("text", ["", "5", "0:3", "4:2", "a:b", "1:2:3"])
def test_other_words_are_refused(text):
    with pytest.raises(UserError, match="first and last step"):
        parse_steps(text)


def test_a_bucket_is_refused():
    with pytest.raises(UserError, match="local directory"):
        Profile((1, 2), "gs://bucket/run/profile")
