"""Which search a config asks for, and how it runs over a model."""

import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key, PyTree
from ml_collections import ConfigDict

from decoding.beam import Scoring, beam_search
from decoding.constraints import DecodingConstraints
from decoding.greedy import greedy
from decoding.hypotheses import Hypotheses, Step, sequence_lengths
from decoding.sampling import SamplingConfig, sample
from utils.errors import UserError

METHODS = {  # and the keys that matter to each
    "greedy": (),
    "beam": ("beam_size", "length_penalty", "coverage_penalty", "early_stopping"),
    "sample": ("temperature", "top_k", "top_p", "seed"),
}
RANGES = {  # what a number may be
    "min_length": (0, math.inf),
    "n_best": (1, math.inf),
    "beam_size": (1, math.inf),
    "length_penalty": (-100, 100),
    "coverage_penalty": (0, 100),
    "temperature": (0, math.inf),
    "top_k": (0, math.inf),
    "top_p": (0, 1),
    "seed": (0, 2**32 - 1),
}


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
    """The keys of `cfg.decode` that choose hypotheses; see `configs/base.py`.

    The seed is none of them: the program is the same for all seeds.
    """

    method: str
    n_best: int
    min_length: int
    beam_size: int
    length_penalty: float
    coverage_penalty: float
    early_stopping: bool
    temperature: float
    top_k: int
    top_p: float

    @classmethod
    def from_config(cls, options: ConfigDict) -> "DecodingConfig":
        """From `cfg.decode`; keys that do not matter are as if they were empty.

        Raises UserError for what `check_decode` refuses.
        """
        check_decode(options)
        asked = cls(
            method=options.method,
            n_best=options.n_best,
            min_length=options.min_length,
            beam_size=options.beam_size,
            length_penalty=float(options.length_penalty),
            coverage_penalty=float(options.coverage_penalty),
            early_stopping=options.early_stopping,
            temperature=float(options.temperature),
            top_k=options.top_k,
            top_p=float(options.top_p),
        )
        keys = active_keys(options)
        empty = {  # 0, 0.0 or False
            field.name: type(getattr(asked, field.name))()
            for field in dataclasses.fields(cls)
            if field.name not in keys
        }
        return dataclasses.replace(asked, **empty)

    @property
    def single_best(self) -> "DecodingConfig":
        """One that finds the best, or a sample, alone."""
        return dataclasses.replace(self, n_best=1)

    @property
    def with_scores(self) -> "DecodingConfig":
        """One that finds the same with scores: greedy is a beam of one."""
        if self.method != "greedy":
            return self
        return dataclasses.replace(
            self, method="beam", beam_size=1, early_stopping=True
        )

    def __call__(
        self,
        step: Step,
        context: PyTree,
        state: PyTree,
        first: Int[Array, "B"],
        rules: DecodingConstraints,
        *,
        keys: Key[Array, "B"],
        source_mask: Bool[Array, "B S"] | None = None,
    ) -> Hypotheses:
        """`n_best` hypotheses a row; greedy ones have scores of NaN, see `with_scores`.

        Args:
          keys: each row's, for samples.
          source_mask: what a coverage penalty looks at.
        """
        start = (step, context, state, first, rules)
        if self.method == "sample":
            distribution = SamplingConfig(self.temperature, self.top_k, self.top_p)
            return sample(
                *start, keys=keys, count=self.n_best, distribution=distribution
            )
        if self.method == "beam":
            return beam_search(
                *start,
                beam_size=self.beam_size,
                n_best=self.n_best,
                scoring=Scoring(self.length_penalty, self.coverage_penalty),
                early_stopping=self.early_stopping,
                source_mask=source_mask,
            )
        tokens = greedy(*start)[:, None]
        scores = jnp.full(tokens.shape[:2], jnp.nan)
        return Hypotheses(tokens, scores, sequence_lengths(tokens, rules.end))


def active_keys(options: ConfigDict) -> dict:
    """The keys of `cfg.decode` that matter to its method, with their values."""
    others = {key for keys in METHODS.values() for key in keys}
    others -= set(METHODS[options.method])
    return {key: value for key, value in options.items() if key not in others}


def protocol(options: ConfigDict) -> dict:
    """What a score card says of how hypotheses were found."""
    given = active_keys(options)
    given.pop("n_best")  # the best alone is scored
    told = [
        key if given[key] is True else f"{key} {given[key]}"
        for key in METHODS[options.method]
        if given[key] is not False
    ]
    name = ", ".join([options.method, *told]).replace("_", " ")
    return {"search": name, "decode": given}


def check_decode(options: ConfigDict, vocab_size: int | None = None) -> None:
    """Raises UserError for keys of `cfg.decode` that cannot be.

    Args:
      vocab_size: of the target, where it is known.
    """
    if options.method not in METHODS:
        raise UserError(
            f"decode.method={options.method!r}: there are {', '.join(METHODS)}"
        )
    for key, (low, high) in RANGES.items():
        if not low <= options[key] <= high:
            least = f"it must be {low} or more"
            bounds = least if high == math.inf else f"it must be in {low} to {high}"
            raise UserError(f"decode.{key}={options[key]}: {bounds}")
    if not options.top_p:
        raise UserError("decode.top_p=0.0 leaves no token: 1 leaves all of them")
    if options.min_length >= options.max_length:
        raise UserError(
            f"decode.min_length={options.min_length} is not below "
            f"decode.max_length={options.max_length}"
        )
    most = {"greedy": 1, "beam": options.beam_size}.get(options.method, math.inf)
    if options.n_best > most:
        raise UserError(
            f"decode.n_best={options.n_best}: decode.method={options.method!r} finds "
            f"{most} at most"
            + (", decode.beam_size many" if options.method == "beam" else "")
        )
    if vocab_size and options.method == "beam" and options.beam_size > vocab_size:
        raise UserError(
            f"decode.beam_size={options.beam_size} is larger than the "
            f"vocabulary, which has {vocab_size} tokens"
        )


def example_keys(
    seed: Int[Array, ""] | int, ids: Int[Array | np.ndarray, "B"]
) -> Key[Array, "B"]:
    """A key a row that depends on its example's number alone."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), ids)


def make_step_fn(
    model: nn.Module, variables: PyTree, *, attention: bool = False
) -> Step:
    """A model's step as a search calls it, with attention to the source if asked."""
    step = functools.partial(model.apply, variables, method="step")
    if not attention:
        return step

    def watched(context, state, token):
        found, sown = step(context, state, token, mutable=["intermediates"])
        return *found, model.alignment(sown["intermediates"])

    return watched
