"""Scaling laws: loss as a function of the budget, fitted over a ladder of budgets.

    loss(C) = E + A C^-alpha

(Hoffmann et al. 2022, "Training Compute-Optimal Large Language Models", section 3.3,
whose form for parameters and tokens is taken for one budget C; Kaplan et al. 2020,
equation 1.1, without E). As Hoffmann et al. do, log losses are fitted with a Huber loss
from several starts. Their delta, 1e-3, suits residuals of that size; where the median
residual is larger, delta is 1.345 robust standard deviations (Huber 1964). With fewer
than MIN_BUDGETS budgets E is 0.

Intervals resample the residuals of the runs about the curve. These are scaled up for
the parameters that were fitted, and by the ratio of the t to the normal quantile: plain
percentiles of a dozen runs cover 85% to 90% instead of 95%.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq, least_squares
from scipy.special import ndtri, stdtrit

from utils.errors import UserError

MIN_BUDGETS = 4  # different ones, from which on E is fitted
HUBER_DELTA = 1e-3  # of log losses, at least
HUBER_DEVIATIONS = 1.345  # delta in standard deviations
MEDIAN_TO_DEVIATION = 1.4826  # of the absolute values of normal residuals
NUM_RESAMPLES = 200
NUM_STEPS = 40  # of a fit to resampled residuals
NUM_POINTS = 400  # of a budget axis on which crossings are looked for
STARTING_SHARES = (0.1, 0.6)  # of E in the smallest loss
STARTING_EXPONENTS = (0.05, 0.3, 1.0)

Budgets = Float[np.ndarray, "N"]
Parameters = Float[np.ndarray, "P"]  # log A at the centre, log alpha, and log E


@dataclasses.dataclass(frozen=True)
class ScalingLaw:
    """Fitted curve of losses over budgets.

    Attributes:
      irreducible: E, the limit of the loss; 0 where it was not fitted.
      coefficient: A.
      exponent: alpha.
      measured: smallest and largest budget that the fit has seen.
      resampled: laws fitted to resampled residuals; () with too few runs.
    """

    irreducible: float
    coefficient: float
    exponent: float
    measured: tuple[float, float]
    resampled: tuple["ScalingLaw", ...] = ()

    def predict(self, budgets: Budgets | float) -> Budgets:
        """Returns the expected losses at budgets."""
        power = np.asarray(budgets, float) ** -self.exponent
        return self.irreducible + self.coefficient * power

    def is_extrapolated(self, budget: float) -> bool:
        """Whether a budget is outside of the measured range."""
        low, high = self.measured
        return not low * (1 - 1e-9) <= budget <= high * (1 + 1e-9)

    def interval(
        self, value: Callable[["ScalingLaw"], float]
    ) -> tuple[float, float] | None:
        """Returns the 95% interval of a value, such as `lambda law: law.exponent`."""
        if not self.resampled:
            return None
        low, high = np.percentile([value(law) for law in self.resampled], [2.5, 97.5])
        return float(low), float(high)


@dataclasses.dataclass(frozen=True)
class Crossing:
    """Budget at which two scaling laws are equal.

    Attributes:
      budget: None: they do not cross within the range that both were measured on.
      interval: 95% interval over the resampled laws that cross; None: too few do.
      fraction: fraction of pairs of resampled laws that cross within the range.
      measured: the range.
      num_crossings: number of crossings within the range; `budget` is the largest.
    """

    budget: float | None
    interval: tuple[float, float] | None
    fraction: float
    measured: tuple[float, float]
    num_crossings: int

    def __str__(self):
        low, high = self.measured
        if self.budget is None:
            return f"no crossing within the measured range, {low:.3g} to {high:.3g}"
        if self.interval is None:
            return f"crossing at {self.budget:.3g}, without an interval"
        ends = "{:.3g} to {:.3g}".format(*self.interval)
        return f"crossing at {self.budget:.3g} (95% interval {ends})"


@dataclasses.dataclass(frozen=True)
class BackTest:
    """Loss at the largest budget, predicted from the smaller ones.

    Attributes:
      relative_error: predicted minus measured loss, over the measured one.
    """

    budget: float
    predicted: float
    measured: float
    relative_error: float


def fit_scaling_law(
    budgets: Budgets, losses: Budgets, *, num_resamples: int = NUM_RESAMPLES
) -> ScalingLaw:
    """Fits a scaling law to the final losses of runs.

    Args:
      budgets: budget of each run, such as FLOPs; seeds of one budget repeat it.

    Raises:
      UserError: there are fewer than two budgets, or values that are not positive.
    """
    budgets, losses = np.asarray(budgets, float), np.asarray(losses, float)
    for name, values in (("budget", budgets), ("loss", losses)):
        if not (np.isfinite(values) & (values > 0)).all():
            raise UserError(f"Each {name} of a scaling law must be positive and finite")
    distinct = np.unique(budgets)
    if len(distinct) < 2:
        raise UserError(f"{len(distinct)} budget has no scaling law; it needs two")
    has_limit = len(distinct) >= MIN_BUDGETS
    centre = np.exp(np.log(distinct).mean())
    x, y = np.log(budgets / centre), np.log(losses)
    starts = [
        _minimize(start, x, y, HUBER_DELTA, 50) for start in _starts(y, has_limit)
    ]
    best = min(starts, key=lambda result: result.cost)
    num_free = len(y) - len(best.x)
    scale = np.sqrt(len(y) / max(num_free, 1))
    deviation = MEDIAN_TO_DEVIATION * scale * np.median(np.abs(best.fun))
    delta = max(HUBER_DELTA, HUBER_DEVIATIONS * deviation)
    best = _minimize(best.x, x, y, delta, 200)
    measured = float(distinct[0]), float(distinct[-1])
    law = _make_law(best.x, centre, measured)
    if num_free < 1:
        return law
    fitted = _predict_log(best.x, x)
    residuals = (y - fitted) * scale * stdtrit(num_free, 0.975) / ndtri(0.975)
    residuals -= residuals.mean()
    random = np.random.default_rng(0)
    drawn = fitted + random.choice(residuals, (num_resamples, len(y)))
    found = _refine(np.tile(best.x, (num_resamples, 1)), x, drawn, delta)
    resampled = tuple(_make_law(one, centre, measured) for one in found)
    return dataclasses.replace(law, resampled=resampled)


def _starts(y: Budgets, has_limit: bool) -> list[Parameters]:
    smallest, middle = np.exp(y.min()), np.exp(np.median(y))
    if not has_limit:
        return [np.asarray([np.log(middle), np.log(a)]) for a in STARTING_EXPONENTS]
    return [
        np.log([middle - share * smallest, exponent, share * smallest])
        for share in STARTING_SHARES
        for exponent in STARTING_EXPONENTS
    ]


def _predict_log(
    parameters: Float[np.ndarray, "*R P"], x: Budgets
) -> Float[np.ndarray, "*R N"]:
    """Returns log losses at log budgets x; see `Parameters`."""
    level, exponent, *limit = np.moveaxis(parameters[..., None], -2, 0)
    power = level - np.exp(exponent) * x
    return np.logaddexp(power, limit[0]) if limit else power


def _refine(
    parameters: Float[np.ndarray, "R P"],
    x: Budgets,
    y: Float[np.ndarray, "R N"],
    delta: float,
) -> Float[np.ndarray, "R P"]:
    """Minimises the Huber loss of many samples at once, from a near start.

    Gauss-Newton steps on reweighted residuals, of at most 1 in each parameter.
    """
    damping = 1e-6 * np.eye(parameters.shape[-1])
    for _ in range(NUM_STEPS):
        residuals = y - _predict_log(parameters, x)
        weights = delta / np.maximum(np.abs(residuals), delta)
        jacobian = _jacobian(parameters, x)
        weighted = (weights[..., None] * jacobian).mT
        gradient = weighted @ residuals[..., None]
        step = np.linalg.solve(weighted @ jacobian + damping, gradient)[..., 0]
        parameters = np.clip(parameters + np.clip(step, -1, 1), -50, 50)
    return parameters


def _minimize(start: Parameters, x: Budgets, y: Budgets, delta: float, max_steps: int):
    """Minimises the Huber loss of log losses."""
    bounds = np.full(len(start), -50.0), np.full(len(start), 50.0)
    bounds[1][1] = np.log(10.0)  # of alpha
    return least_squares(
        lambda parameters: _predict_log(parameters, x) - y,
        np.clip(start, bounds[0], bounds[1] - 1e-6),
        lambda parameters: _jacobian(parameters, x),
        bounds=bounds,
        loss="huber",
        f_scale=delta,
        x_scale="jac",
        max_nfev=max_steps,
    )


def _jacobian(
    parameters: Float[np.ndarray, "*R P"], x: Budgets
) -> Float[np.ndarray, "*R N P"]:
    level, exponent, *limit = np.moveaxis(parameters[..., None], -2, 0)
    slope = -np.exp(exponent) * x
    if not limit:
        return np.stack([np.ones_like(slope), slope], axis=-1)
    power = level + slope
    share = np.exp(power - np.logaddexp(power, limit[0]))
    return np.stack([share, share * slope, 1 - share], axis=-1)


def _make_law(
    parameters: Parameters, centre: float, measured: tuple[float, float]
) -> ScalingLaw:
    exponent = float(np.exp(parameters[1]))
    coefficient = float(np.exp(parameters[0] + exponent * np.log(centre)))
    limit = float(np.exp(parameters[2])) if len(parameters) == 3 else 0.0
    return ScalingLaw(limit, coefficient, exponent, measured)


def find_crossing(first: ScalingLaw, second: ScalingLaw) -> Crossing:
    """Returns where two laws cross within the range that both were measured on."""
    low = max(first.measured[0], second.measured[0])
    high = min(first.measured[1], second.measured[1])
    if low >= high:
        return Crossing(None, None, 0.0, (low, high), 0)
    crossings = _crossings(first, second, low, high)
    pairs = list(zip(first.resampled, second.resampled, strict=False))
    # Resampled laws may cross outside of the range; those do not count.
    found = [_crossings(*pair, low, high) for pair in pairs]
    last = [budgets[-1] for budgets in found if budgets]
    fraction = len(last) / len(pairs) if pairs else 0.0
    interval = None
    if crossings and fraction >= 0.5:
        ends = np.exp(np.percentile(np.log(last), [2.5, 97.5]))
        interval = float(ends[0]), float(ends[1])
    budget = crossings[-1] if crossings else None
    return Crossing(budget, interval, fraction, (low, high), len(crossings))


def _crossings(
    first: ScalingLaw, second: ScalingLaw, low: float, high: float
) -> list[float]:
    def gap(log_budget):
        budget = np.exp(log_budget)
        return first.predict(budget) - second.predict(budget)

    grid = np.linspace(np.log(low), np.log(high), NUM_POINTS)
    signs = np.sign(gap(grid))
    starts = np.flatnonzero(signs[:-1] * signs[1:] < 0)
    return [float(np.exp(brentq(gap, grid[n], grid[n + 1]))) for n in starts]


def back_test(budgets: Budgets, losses: Budgets) -> BackTest:
    """Predicts the mean loss at the largest budget from the runs at smaller ones.

    Raises:
      UserError: there are fewer than three budgets; see also `fit_scaling_law`.
    """
    budgets, losses = np.asarray(budgets, float), np.asarray(losses, float)
    if len(np.unique(budgets)) < 3:
        raise UserError("A back-test of a scaling law needs three budgets")
    is_largest = budgets == budgets.max()
    law = fit_scaling_law(budgets[~is_largest], losses[~is_largest], num_resamples=0)
    predicted = float(law.predict(budgets.max()))
    measured = float(losses[is_largest].mean())
    error = (predicted - measured) / measured
    return BackTest(float(budgets.max()), predicted, measured, error)
