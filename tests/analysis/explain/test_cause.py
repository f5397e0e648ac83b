"""The search for the first bad operation, on functions of a few lines."""

import jax
import jax.numpy as jnp
import numpy as np

from analysis.explain.cause import find_growth, find_nonfinite
from analysis.explain.operations import examine
from analysis.step_replay.program import Program


def examined(function, **args):
    """The examination of a function of named arrays that returns named arrays."""
    names = list(args)
    outputs = jax.eval_shape(function, **args)
    program = jax.make_jaxpr(lambda *leaves: tuple(function(*leaves).values()))(
        *args.values()
    )
    return examine(Program(program, list(args.values()), names, list(outputs)))


def masked_softmax(x, mask):
    logits = jnp.where(mask, jnp.log(x), -jnp.inf)
    return {"metrics": jnp.exp(logits - logits.max(-1, keepdims=True)).sum(-1)}


MASK = jnp.asarray([[True, True, False], [True, False, False]])


def test_infinities_of_a_mask_are_no_cause():
    x = jnp.ones((2, 3))
    step = examined(masked_softmax, x=x, mask=MASK)
    assert step.is_finite
    assert find_nonfinite(step) is None
    assert step.masks


def test_the_operation_that_makes_a_nan_is_named_and_not_those_that_read_it():
    step = examined(masked_softmax, x=jnp.ones((2, 3)).at[1, 0].set(-1.0), mask=MASK)
    cause = find_nonfinite(step)
    assert (cause.operation.primitive, cause.input_name) == ("log", "")


def test_a_row_that_is_masked_as_a_whole_is_the_cause_of_its_nan():
    step = examined(masked_softmax, x=jnp.ones((2, 3)), mask=MASK.at[1].set(False))
    assert find_nonfinite(step).operation.primitive == "sub"


def test_bad_values_that_reach_no_output_are_passed_over():
    def safe(x):
        unused = jnp.where(x > 0, 1 / x, 0.0)
        return {"metrics": unused + jnp.sqrt(x - 2)}

    cause = find_nonfinite(examined(safe, x=jnp.asarray([0.0, 1.0])))
    assert cause.operation.primitive == "sqrt"


def test_an_input_that_is_bad_already_is_the_cause():
    x = jnp.asarray([1.0, np.inf])
    cause = find_nonfinite(examined(lambda x: {"metrics": jnp.sin(x)}, x=x))
    assert (cause.input_name, cause.operation.primitive) == ("x", "sin")


def test_an_operation_that_is_bad_in_a_finite_step_too_is_chosen_last():
    def step(x, y):
        return {"metrics": jnp.log(y).sum() * jnp.tanh(x) + jnp.sqrt(x).sum()}

    finite = {"x": jnp.ones(2), "y": jnp.ones(2)}
    both = {"x": -jnp.ones(2), "y": -jnp.ones(2)}
    cause = find_nonfinite(examined(step, **both), examined(step, **finite))
    assert cause.operation.primitive == "log"
    known = examined(step, **finite | {"y": -jnp.ones(2)})
    assert find_nonfinite(examined(step, **both), known).operation.primitive == "sqrt"


def test_growth_is_followed_back_to_where_it_began():
    def step(x, y):
        hidden = jnp.exp(x) * 3
        return {"metrics": hidden.sum() + y.sum()}

    before = examined(step, x=jnp.ones(3), y=jnp.ones(3))
    after = examined(step, x=4 * jnp.ones(3), y=jnp.ones(3))
    cause = find_growth(after, before)
    assert cause.operation.primitive == "exp"
    np.testing.assert_allclose(cause.growth, np.exp(3), rtol=1e-5)
    assert find_growth(before, before) is None


def test_iterations_of_a_loop_are_told_apart():
    def step(x):
        def body(carry, row):
            return carry + jnp.log(row), carry

        return {"metrics": jax.lax.scan(body, jnp.zeros(()), x)[0]}

    cause = find_nonfinite(examined(step, x=jnp.asarray([1.0, 2.0, -1.0, 3.0])))
    assert (cause.operation.primitive, cause.operation.iteration) == ("log", (2,))
