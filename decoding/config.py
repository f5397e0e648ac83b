"""Configuration of decoding (`cfg.decode`), and the search that it describes."""

import dataclasses
import functools
import math
import pkgutil

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array, Bool, Int, Key, PyTree
from ml_collections import ConfigDict

from decoding.hypotheses import DecodingConstraints, Hypotheses
from utils.errors import UserError
from utils.ranges import check_range

METHODS = {  # method: keys that it reads beside those of all methods
    "greedy": (),
    "beam": (
        *("beam_size", "length_penalty", "coverage_penalty", "early_stopping"),
        *("beam_groups", "diversity_penalty"),
    ),
    "sample": ("temperature", "top_k", "top_p", "seed"),
    "mbr": ("mbr_samples", "mbr_utility", "temperature", "top_k", "top_p", "seed"),
}
# Functions of searches and options, imported when a config asks for them.
SEARCHES = {
    "greedy": "decoding.sampling:greedy_search",
    "beam": "decoding.beam:beam_search",
    "diverse beam": "decoding.diverse_beam:diverse_beam_search",
    "sample": "decoding.sampling:sample",
    "mbr": "decoding.sampling:sample",
}
CHOICES = {"mbr": "decoding.minimum_bayes_risk:choose_by_utility"}  # after the search
REPETITION_RULES = "decoding.repetition:add_repetition_rules"
UTILITIES = ("chrf", "bleu")  # of decode.mbr_utility
OFF = {"no_repeat_ngram_size": 0, "repetition_penalty": 1.0}  # these rules are left out
RANGES = {  # allowed values of numeric keys
    "min_length": (0, math.inf),
    "n_best": (1, math.inf),
    "beam_size": (1, math.inf),
    "length_penalty": (-100, 100),
    "coverage_penalty": (0, 100),
    "beam_groups": (1, math.inf),
    "diversity_penalty": (0, 100),
    "no_repeat_ngram_size": (0, math.inf),
    "repetition_penalty": (0.01, 100),
    "mbr_samples": (1, math.inf),
    "temperature": (0, math.inf),
    "top_k": (0, math.inf),
    "top_p": (0, 1),
    "seed": (0, 2**32 - 1),
}
# Over larger ones, float32 loses the order of logits.
MAX_TEMPERATURE = 1e6
# Larger ratios of the length penalties of two lengths leave float32 no room for scores.
MAX_LENGTH_PENALTY = 1e30


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
    """Keys of `cfg.decode` on which a compiled search depends.

    The seed and the utility are none of them: a search is compiled once for all.
    """

    method: str = "greedy"
    n_best: int = 1
    min_length: int = 0
    no_repeat_ngram_size: int = 0
    repetition_penalty: float = 1.0
    beam_size: int = 1
    length_penalty: float = 0.0
    coverage_penalty: float = 0.0
    early_stopping: bool = False
    beam_groups: int = 1
    diversity_penalty: float = 0.0
    mbr_samples: int = 1
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    @classmethod
    def from_config(cls, options: ConfigDict) -> "DecodingConfig":
        """Reads `cfg.decode`; keys that the method ignores become zero.

        Raises:
          UserError: see `check_decode`.
        """
        check_decode(options)
        keys = active_keys(options)
        fields = dataclasses.fields(cls)
        return cls(*(field.type(keys.get(field.name, 0)) for field in fields))

    @property
    def single_best(self) -> "DecodingConfig":
        """Copy of this config that returns a single hypothesis."""
        return dataclasses.replace(self, n_best=1)

    @property
    def limits_repetition(self) -> bool:
        """True with a rule against repeated tokens."""
        return any(getattr(self, key) != value for key, value in OFF.items())

    @property
    def chooses_by_text(self) -> bool:
        """True if `choose_hypotheses` chooses among those of the search."""
        return self.method in CHOICES

    @property
    def with_scores(self) -> "DecodingConfig":
        """Copy of this config that returns scores: greedy becomes a beam of size 1."""
        if self.method != "greedy":
            return self
        return dataclasses.replace(
            self, method="beam", beam_size=1, early_stopping=True
        )


def active_keys(options: ConfigDict) -> dict:
    """Returns the keys of `cfg.decode` that its method reads, with their values."""
    ignored = {key for keys in METHODS.values() for key in keys}
    ignored -= set(METHODS[options.method])
    if options.beam_groups == 1:
        ignored |= {"beam_groups", "diversity_penalty"}
    return {key: value for key, value in options.items() if key not in ignored}


def decoding_protocol(options: ConfigDict) -> dict:
    """Returns the entries of a score card's protocol that describe the decoding."""
    values = active_keys(options)
    values.pop("n_best")  # a score card has the best hypothesis only
    values = {key: x for key, x in values.items() if key not in OFF or x != OFF[key]}
    words = [
        key if values[key] is True else f"{key} {values[key]}"
        for key in (*METHODS[options.method], *OFF)
        if values.get(key, False) is not False
    ]
    name = ", ".join([options.method, *words]).replace("_", " ")
    return {"search": name, "decode": values}


def check_decode(options: ConfigDict, vocab_size: int | None = None) -> None:
    """Checks the values of `cfg.decode`.

    Args:
      vocab_size: size of the target vocabulary, where it is known.

    Raises:
      UserError: a value is not allowed.
    """
    for key, choices in (("method", METHODS), ("mbr_utility", UTILITIES)):
        if options[key] not in choices:
            raise UserError(
                f"Unknown decode.{key} {options[key]!r}; choose one of "
                f"{', '.join(choices)}"
            )
    for key, (low, high) in RANGES.items():
        check_range(f"decode.{key}", options[key], low, high)
    if not options.top_p:
        raise UserError("decode.top_p=0.0 must be above 0; 1 keeps all tokens")
    if options.temperature > MAX_TEMPERATURE:
        raise UserError(
            f"decode.temperature={options.temperature} must be at most "
            f"{MAX_TEMPERATURE:.0f}, which is about a uniform distribution"
        )
    if options.min_length >= options.max_length:
        raise UserError(
            f"decode.min_length={options.min_length} must be below "
            f"decode.max_length={options.max_length}"
        )
    largest = math.log(MAX_LENGTH_PENALTY) / math.log((6 + options.max_length) / 6)
    if abs(options.length_penalty) > largest:
        rounded = math.floor(10 * largest) / 10
        raise UserError(
            f"decode.length_penalty={options.length_penalty} must be in "
            f"{-rounded} to {rounded} for decode.max_length={options.max_length}"
        )
    _check_method(options, vocab_size)


def _check_method(options: ConfigDict, vocab_size: int | None) -> None:
    """Checks what the keys of a method require of each other."""
    method, n_best, beam_size = options.method, options.n_best, options.beam_size
    most = {
        "beam": ("beam_size", beam_size),
        "mbr": ("mbr_samples", options.mbr_samples),
    }
    if method == "greedy" and n_best > 1:
        raise UserError(f"decode.n_best={n_best} must be 1 for decode.method='greedy'")
    if method in most and n_best > most[method][1]:
        key, count = most[method]
        raise UserError(f"decode.n_best={n_best} must be at most decode.{key}={count}")
    if method == "mbr" and not options.temperature:
        raise UserError(
            "decode.temperature=0.0 must be above 0 for decode.method='mbr', whose "
            "samples would all be the same"
        )
    if method == "beam" and beam_size % options.beam_groups:
        raise UserError(
            f"decode.beam_groups={options.beam_groups} must divide "
            f"decode.beam_size={beam_size}"
        )
    if method == "beam" and options.beam_groups > 1 and not options.diversity_penalty:
        raise UserError(
            "decode.diversity_penalty=0.0 must be above 0 for "
            f"decode.beam_groups={options.beam_groups}, which would all be the same"
        )
    if method == "beam" and vocab_size and beam_size > vocab_size:
        raise UserError(
            f"decode.beam_size={beam_size} must be at most the {vocab_size} tokens of "
            "the vocabulary"
        )


def max_source_length(cfg: ConfigDict) -> int:
    """Returns the number of tokens to which sources are cut, the end symbol included.

    It is the same in evaluations and for lines of input.
    """
    return cfg.decode.max_source_length or cfg.data.max_length


def example_keys(
    seed: Int[Array, ""] | int, ids: Int[Array | np.ndarray, "B"]
) -> Key[Array, "B"]:
    """Returns a random key for each example, which depends on its id alone."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), ids)


def search(
    decoding: DecodingConfig,
    model: nn.Module,
    variables: PyTree,
    inputs: tuple,
    first_token: Int[Array, "B"],
    constraints: DecodingConstraints,
    *,
    keys: Key[Array, "B"],
    source_mask: Bool[Array, "B S"] | None = None,
) -> Hypotheses:
    """Returns `n_best` hypotheses an example; greedy ones have scores of NaN.

    For a method of CHOICES these are `mbr_samples`, for `choose_hypotheses`.

    Args:
      inputs: arguments of the model's method `start`.
      keys: random key of each example, for sampling.
      source_mask: source tokens to cover, for a coverage penalty.
    """
    context, state = model.apply(
        variables, *inputs, max_steps=constraints.max_steps, method="start"
    )
    step = functools.partial(model.apply, variables, method="step")

    def step_with_attention(context, state, token):
        outputs, sown = step(context, state, token, mutable=["intermediates"])
        return *outputs, model.alignment(sown["intermediates"])

    step_fn = step_with_attention if decoding.coverage_penalty else step
    if decoding.limits_repetition:
        add_rules = pkgutil.resolve_name(REPETITION_RULES)
        constraints = add_rules(constraints, first_token, decoding)
    if decoding.chooses_by_text:
        decoding = dataclasses.replace(decoding, n_best=decoding.mbr_samples)
    name, options = decoding.method, {"keys": keys}
    if name == "beam":
        name = "diverse beam" if decoding.beam_groups > 1 else name
        options = {"source_mask": source_mask}
    find = pkgutil.resolve_name(SEARCHES[name])
    return find(step_fn, context, state, first_token, constraints, decoding, **options)


def choose_hypotheses(decoding: DecodingConfig, *inputs, **options) -> Hypotheses:
    """Chooses among the hypotheses of a search by the function that CHOICES names."""
    return pkgutil.resolve_name(CHOICES[decoding.method])(*inputs, **options)
