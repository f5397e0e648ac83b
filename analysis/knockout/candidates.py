"""Named knockouts of a model, and selections of them.

    stack/layers_0/self_attention/head_2     a head, counted from 1
    stack/layers_0                           the residual branches of a layer
    stack/distance_4-7                       a band of distances, in tokens
    decoder/alignment/uniform                weights of an RNN's attention

Paths are those of parameters and of the attention page, which counts heads from 1 too.
A plus sign switches off several at once: `stack/layers_0+stack/layers_2`.
"""

import difflib
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from analysis.knockout.interventions import (
    ALIGNMENTS,
    KINDS,
    NO_BAND,
    NO_LIMIT,
    Knockout,
    Sites,
)
from utils.errors import UserError

MAX_LISTED = 12  # names in an error


class Candidate(NamedTuple):
    """A knockout with its name.

    Attributes:
      kind: one of KINDS; those of a combination are joined by a plus sign.
      site: path of what is switched off, a part of the name.
      part: what is switched off there: a head from 1, a band, or a choice of weights.
    """

    name: str
    kind: str
    knockout: Knockout
    site: str = ""
    part: int | str | tuple[int, int] | None = None


def list_candidates(sites: Sites) -> dict[str, Candidate]:
    """Returns all knockouts of a model by name, in the order of KINDS."""
    identity, found = sites.identity(), []
    for site, heads in sites.heads.items():
        for head in range(heads):
            knockout = _replace(identity, "heads", site, np.arange(heads) != head)
            name = f"{site}/head_{head + 1}"
            found.append(Candidate(name, "heads", knockout, site, head + 1))
    for site in sites.layers:
        knockout = _replace(identity, "layers", site, np.asarray(False))
        found.append(Candidate(site, "layers", knockout, site))
    for site, num_keys in sites.distance.items():
        for low, high in distance_bands(num_keys):
            ends = f"{low}-{high - 1}" if high > low + 1 else f"{low}"
            knockout = mask_distances(sites, site, low, high)
            name = f"{site}/distance_{ends}"
            found.append(Candidate(name, "distance", knockout, site, (low, high)))
    for site in sites.alignment:
        for choice in range(1, len(ALIGNMENTS)):
            value = np.asarray(choice, np.int32)
            knockout = _replace(identity, "alignment", site, value)
            part = ALIGNMENTS[choice]
            name = f"{site}/{part}"
            found.append(Candidate(name, "alignment", knockout, site, part))
    return {candidate.name: candidate for candidate in found}


def mask_distances(
    sites: Sites, stack: str, low: int, high: int = NO_LIMIT
) -> Knockout:
    """Returns the knockout of the keys of a stack at distances in [low, high)."""
    band = np.asarray((low, high), np.int32)
    return _replace(sites.identity(), "distance", stack, band)


def distance_bands(num_keys: int) -> list[tuple[int, int]]:
    """Returns bands [low, high) of all distances: 0, 1, and doubling from there."""
    ends = [0, 1]
    while ends[-1] < num_keys:
        ends.append(2 * ends[-1])
    ends[-1] = num_keys
    return list(itertools.pairwise(ends))


def select_candidates(
    sites: Sites, kinds: Sequence[str], names: Sequence[str], model: str
) -> list[Candidate]:
    """Returns the knockouts of some kinds, or those that are named.

    Args:
      kinds: of KINDS; (): all that the model has.
      names: names, or several joined by plus signs; (): all of these kinds.
      model: name of the architecture, for errors.

    Raises:
      UserError: the model has no such kind, or no such part.
    """
    if not sites.kinds:
        raise UserError(
            f"this {model} has neither attention nor residual branches, so there is "
            "nothing to switch off"
        )
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(f"Unknown kind {kind!r}; choose one of {', '.join(KINDS)}")
        if kind not in sites.kinds:
            raise UserError(
                f"--kinds={kind}: this {model} has no {kind} to switch off; choose one "
                f"of {', '.join(sites.kinds)}"
            )
    known = list_candidates(sites)
    if names:
        return [_combine(known, name, model) for name in dict.fromkeys(names)]
    return [one for one in known.values() if one.kind in (kinds or sites.kinds)]


def _combine(known, name, model):
    parts = [_find(known, part.strip(), model) for part in name.split("+")]
    if len(parts) == 1:
        return parts[0]
    knockouts = [part.knockout for part in parts]
    heads, layers = (
        {
            site: np.logical_and.reduce([getattr(one, kind)[site] for one in knockouts])
            for site in getattr(knockouts[0], kind)
        }
        for kind in ("heads", "layers")
    )
    chosen = [
        {
            site: _only(name, [getattr(one, kind)[site] for one in knockouts], identity)
            for site in getattr(knockouts[0], kind)
        }
        for kind, identity in (("distance", NO_BAND), ("alignment", 0))
    ]
    kinds = "+".join(dict.fromkeys(part.kind for part in parts))
    return Candidate(name, kinds, Knockout(heads, layers, *chosen))


def _only(name, values, identity):
    """Returns the one value that differs from the identity, or the identity."""
    changed = [value for value in values if (value != np.asarray(identity)).any()]
    if len(changed) > 1:
        raise UserError(
            f"--names={name}: two bands of distance of one stack, or two choices of "
            "weights of one attention, cannot be combined"
        )
    return (changed or values)[0]


def _find(known: dict[str, Candidate], name: str, model: str) -> Candidate:
    if name in known:
        return known[name]
    listed = difflib.get_close_matches(name, known, MAX_LISTED, 0.6) or list(known)
    more = ", ..." if len(listed) > MAX_LISTED else ""
    raise UserError(
        f"--names={name}: this {model} has no such part; choose among "
        f"{', '.join(listed[:MAX_LISTED])}{more}"
    )


def _replace(identity: Knockout, kind: str, site: str, value) -> Knockout:
    return identity._replace(**{kind: getattr(identity, kind) | {site: value}})


def stack_knockouts(knockouts: Sequence[Knockout]) -> Knockout:
    """Joins knockouts in one whose arrays have one more axis in front."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *knockouts)
