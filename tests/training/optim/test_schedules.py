"""Learning rates: by the papers' formulas, and by what validations make of them."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base, ptb_zaremba
from training.optim.on_validation import on_validation
from training.optim.optimizers import learning_rate, make_optimizer
from training.optim.schedules import make_schedule, step_decay
from utils.errors import UserError

WARMUP, STEPS, WIDTH, LR = 10, 110, 16, 2.0
NAMES = ("constant", "linear", "cosine", "rsqrt", "noam", "wsd", "plateau")


def optim(**changes):
    cfg = base.get_config().optim
    cfg.update(changes)
    return cfg


@functools.cache
def rates(name, **changes):
    """The rate at steps 0 to STEPS."""
    cfg = optim(**{"lr": LR, "schedule": name, "warmup": WARMUP, **changes})
    return np.asarray(make_schedule(cfg, STEPS, WIDTH)(np.arange(STEPS + 1)))


def noam(step):
    """Vaswani et al. (2017), eq. 3, whose steps count from 1."""
    k = step + 1
    return LR * WIDTH**-0.5 * min(k**-0.5, k * WARMUP**-1.5)


# Step 9 is the last of the rise, 60 the middle of what follows, 109 the last step.
PROMISED = {
    "constant": {0: 0.2, 4: 1.0, 9: 2.0, 10: 2.0, 60: 2.0, 109: 2.0},
    "linear": {0: 0.2, 4: 1.0, 9: 2.0, 10: 2.0, 35: 1.5, 60: 1.0, 109: 0.02, 110: 0},
    "cosine": {0: 0.2, 9: 2.0, 10: 2.0, 60: 1.0, 110: 0.0}
    | {k: 1 + math.cos(math.pi * (k - 10) / 100) for k in (25, 80, 109)},
    "rsqrt": {0: 0.2, 9: 2.0, 10: 2.0, 40: 1.0, 90: 2 / 3},
    "noam": {k: noam(k) for k in (0, 4, 8, 9, 10, 11, 60, 109)},
    "wsd": {0: 0.2, 9: 2.0, 10: 2.0, 60: 2.0, 88: 2.0, 99: 1.0, 109: 1 / 11, 110: 0},
    "plateau": {0: 0.2, 4: 1.0, 9: 2.0, 60: 2.0, 109: 2.0},
}


@pytest.mark.parametrize("name", NAMES)
def test_rates_are_those_of_the_formula(name):
    found = rates(name)
    for step, rate in PROMISED[name].items():
        assert found[step] == pytest.approx(rate, rel=1e-5, abs=1e-6), step


@pytest.mark.parametrize("name", NAMES)
def test_a_rate_rises_then_falls_never_jumps_and_is_never_zero_in_training(name):
    found = rates(name)
    assert found[:STEPS].min() > 0
    top = np.argmax(found)
    assert top == WARMUP - 1
    assert (np.diff(found[:WARMUP]) > 0).all()
    assert (np.diff(found[top:]) <= 1e-6).all()
    assert np.abs(np.diff(found)).max() <= found.max() / WARMUP + 1e-6


@pytest.mark.parametrize("name", [name for name in NAMES if name != "noam"])
def test_without_a_warmup_the_first_rate_is_the_highest(name):
    assert rates(name, warmup=0)[0] == pytest.approx(LR)


@pytest.mark.parametrize("name", ["linear", "cosine", "wsd"])
def test_what_falls_ends_at_the_asked_share_of_the_highest_rate(name):
    found = rates(name, final_lr_ratio=0.25)
    assert found[STEPS] == pytest.approx(0.5)
    assert found.max() == pytest.approx(2.0)
    # Every rate lies the same share of the way down as it does on the way to zero.
    rest = rates(name)[WARMUP:] / LR
    np.testing.assert_allclose(found[WARMUP:], 0.5 + 1.5 * rest, rtol=1e-5)


@pytest.mark.parametrize(("share", "begin"), [(0.0, 110), (0.5, 55), (1.0, 10)])
def test_wsd_falls_in_the_asked_share_of_the_steps_but_never_while_it_rises(
    share, begin
):
    found = rates("wsd", wsd_decay_fraction=share)
    np.testing.assert_allclose(found[WARMUP : begin + 1], LR, rtol=1e-6)
    assert (found[begin + 1 :] < LR).all()


DECAY = {"step_decay_start": 30, "step_decay_interval": 20, "step_decay_factor": 0.5}


def test_a_step_decay_is_a_staircase_that_never_falls_below_the_lowest_rate():
    found = rates("step_decay", final_lr_ratio=0.2, **DECAY)
    expected = {0: 0.2, 4: 1.0, 9: 2.0, 29: 2.0, 30: 1.0, 49: 1.0, 50: 0.5, 69: 0.5}
    expected |= {70: 0.4, 110: 0.4}  # 0.25 without a lowest rate
    for step, rate in expected.items():
        assert found[step] == pytest.approx(rate), step


@pytest.mark.parametrize(("start", "interval"), [(30, 20), (7, 7), (90, 50)])
def test_a_step_decay_is_the_staircase_of_optax(start, interval):
    expected = optax.exponential_decay(
        1.0, interval, 0.8, transition_begin=start - interval, staircase=True
    )
    steps = np.arange(STEPS)
    found = step_decay(start, interval, 0.8, 0.0)(steps.astype(np.float32))
    np.testing.assert_allclose(found, [expected(k) for k in steps], rtol=1e-6)


def test_the_numbers_of_a_step_decay_may_be_traced():
    numbers = (np.asarray([30, 7]), np.asarray([20, 9]), np.asarray([0.5, 0.8]))

    def rate(*numbers):
        return step_decay(*numbers, 0.0)(jnp.float32(61))

    expected = [rate(30, 20, 0.5), rate(7, 9, 0.8)]
    np.testing.assert_allclose(jax.vmap(rate)(*numbers), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("model", "length", "first_epochs", "epochs", "factor"),
    [("rnn", 20, 4, 13, 2), ("rnn_medium", 35, 6, 39, 1.2)],
)
def test_updates_of_zaremba_are_those_of_the_sum_over_time(
    model, length, first_epochs, epochs, factor
):
    cfg = ptb_zaremba.get_config(model)
    per_epoch = cfg.steps // epochs
    assert per_epoch == math.ceil(929_589 / 20 / length)
    optimizer, schedule = make_optimizer(cfg.optim, cfg.steps)
    params = {"x": np.ones(2, np.float32)}
    state = optimizer.init(params)
    for norm, clipped in ((3.0, 3.0), (40.0, 5.0)):  # of the sum; the largest is 5
        direction = np.asarray([0.6, -0.8], np.float32)
        mean = {"x": norm * direction / length}
        update, _ = optimizer.update(mean, state, params, step=0)
        np.testing.assert_allclose(update["x"], -clipped * direction, rtol=1e-5)
    for epoch in range(epochs):
        rate = factor ** -max(epoch + 1 - first_epochs, 0)  # of the sum
        for step in (epoch * per_epoch, (epoch + 1) * per_epoch - 1):
            assert schedule(step) / length == pytest.approx(rate, rel=1e-5)


def test_noam_needs_a_warmup_and_an_unknown_schedule_is_told_of_those_there_are():
    with pytest.raises(UserError, match=r"optim\.warmup=0: schedule 'noam'"):
        make_schedule(optim(schedule="noam"), 10)
    with pytest.raises(UserError, match="constant, linear, cosine, rsqrt, noam, wsd"):
        make_schedule(optim(schedule="cosin"), 10)


def reference(losses, cut, patience, least):
    """The factor after each validation, in plain Python."""
    factor, best, bad, found = 1.0, math.inf, 0, []
    for loss in losses:
        if not math.isnan(loss) and loss < best:
            best, bad = loss, 0
        else:
            bad += 1
        if bad == patience:
            factor, bad = max(factor * cut, least), 0
        found.append(factor)
    return found


NAN, INF = math.nan, math.inf
SERIES = {
    "falls": [9, 8, 7, 6, 5, 4, 3, 2],
    "rises": [1, 2, 3, 4, 5, 6, 7, 8],
    "is equal": [5, 5, 5, 5, 5, 5, 5, 5],
    "falls by steps": [9, 9, 8, 8, 8, 7, 7, 7, 7, 6],
    "better just in time": [9, 10, 8, 10, 7, 10, 6],
    "has nan": [9, NAN, 8, NAN, NAN, 7, NAN, NAN, NAN, NAN],
    "begins with nan and inf": [NAN, INF, 3, 4, 2],
    "is random": list(np.random.default_rng(0).normal(size=40)),
}


@pytest.mark.parametrize("patience", [1, 2, 3])
@pytest.mark.parametrize("series", SERIES)
def test_a_plateau_lowers_the_rate_after_validations_without_a_better_one(
    series, patience
):
    changes = {
        "plateau_patience": patience,
        "plateau_factor": 0.1,
        "final_lr_ratio": 0.005,
    }
    cfg = optim(schedule="plateau", name="sgd", lr=LR, warmup=2, **changes)
    optimizer, schedule = make_optimizer(cfg, 10)
    state = optimizer.init({"x": jnp.zeros(1)})
    found = []
    for loss in SERIES[series]:
        state = on_validation(state, float(loss))
        found.append(float(learning_rate(schedule, state, 5)) / LR)
    expected = reference(SERIES[series], 0.1, patience, 0.005)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert float(learning_rate(schedule, state, 0)) == pytest.approx(found[-1])


def test_a_plateau_by_hand():
    assert reference([3, 2, 2, 2, 1, 1, NAN], 0.5, 2, 0) == [
        1,
        1,
        1,
        0.5,
        0.5,
        0.5,
        0.25,
    ]


@pytest.mark.parametrize("name", ["adamw", "nt_asgd"])
def test_the_updates_of_a_plateau_are_those_of_the_lowered_rate(name):
    cfg = optim(schedule="plateau", plateau_patience=1, name=name, lr=LR, clip_norm=0.0)
    optimizer, _ = make_optimizer(cfg, 10)
    params = jax.device_put({"x": jnp.ones(3)}, jax.devices()[0])
    update = jax.jit(optimizer.update)
    before = jax.device_put(optimizer.init(params), jax.devices()[0])
    after = on_validation(on_validation(before, 1.0), 2.0)
    first, _ = update(params, before, params, step=3)
    lower, kept = update(params, after, params, step=3)
    np.testing.assert_allclose(lower["x"], first["x"] / 2, rtol=1e-6)
    # A step keeps what was heard, and compiles no second time.
    again, _ = update(params, on_validation(kept, 3.0), params, step=3)
    assert float(jnp.abs(again["x"]).max()) < 0.3 * float(jnp.abs(first["x"]).max())
    assert update._cache_size() == 1


def test_a_schedule_without_a_plateau_does_not_hear_of_validations():
    optimizer, schedule = make_optimizer(optim(lr=LR), 10)
    state = optimizer.init({"x": jnp.zeros(1)})
    same = on_validation(on_validation(state, 1.0), 2.0)
    assert all(
        old is new
        for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(same), strict=True)
    )
    assert float(learning_rate(schedule, same, 4)) == float(schedule(4))
