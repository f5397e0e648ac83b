"""What every layer and head of a model looks at while it writes given texts."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np
from jaxtyping import PyTree

from analysis.attention.maps import END, SPACE, layer_name
from experiment.inference import predict
from experiment.restore import TrainedRun
from utils.errors import UserError

START = "<bos>"
LONGEST = 64  # tokens of a text: more cannot be read in a picture


@dataclasses.dataclass(frozen=True)
class Look:
    """How the heads of one layer look.

    Attributes:
      layer: the modules on the way to it.
      kind: "cross", at a source; "self", at the own text and what is remembered.
      rows: a word each, T: the one being written or, in an encoder, understood.
      columns: the words looked at, S.
      weights: [H, T, S].
      behind: how far before its row's word a column stands, where that means
        something, as the distance of the last row's word to column 0; or None.
    """

    layer: str
    kind: str
    rows: list[str]
    columns: list[str]
    weights: np.ndarray
    behind: int | None = None

    @property
    def entropies(self) -> np.ndarray:
        """Of each head: mean over rows of -sum p log p, in nats."""
        logarithms = np.log(np.where(self.weights > 0, self.weights, 1.0))
        return -(self.weights * logarithms).sum(axis=-1).mean(axis=-1)

    @property
    def distances(self) -> np.ndarray:
        """Each head's mean weight on the word d before a row's, [H, d - 1].

        A row counts only where there is a word so far before it; rows that begin a
        text know few. Nothing where `behind` is None.
        """
        heads, num_rows, num_columns = self.weights.shape
        if self.behind is None:
            return np.zeros((heads, 0))
        last = np.arange(num_rows)[:, None] - (num_rows - 1)
        distance = self.behind + last - np.arange(num_columns)  # [T, S]
        found = np.zeros((heads, self.behind))
        for d in range(1, self.behind + 1):
            there = distance == d
            if there.any():
                found[:, d - 1] = self.weights[:, there].mean(axis=-1)
        return found


@dataclasses.dataclass(frozen=True)
class View:
    """One text and all looks at it.

    Attributes:
      past: words that were read before the text and may be remembered.
    """

    title: str
    looks: list[Look]
    past: int = 0


def views(run: TrainedRun, lines: Sequence[str]) -> list[View]:
    """Of each line; a line of translation may have its target after a tab.

    Raises UserError for a model that has no attention.
    """
    if run.experiment.task.model_class == "Seq2Seq":
        found = translation_views(run, lines)
    else:
        found = list(text_views(run, lines))
    if not any(view.looks for view in found):
        name = run.experiment.cfg.model.name
        raise UserError(f"{run.directory.path}: this {name} has no attention")
    return found


def translation_views(run: TrainedRun, lines: Sequence[str]) -> list[View]:
    """Of sources and what is after their tabs, or else the model's translations."""
    task, model = run.experiment.task, run.experiment.evaluation_model
    pairs = [line.partition("\t") for line in lines]
    alone = [one for one, tab, _ in pairs if not tab]
    found = iter(list(predict(run, alone)) if alone else [])
    texts = [(one, two if tab else next(found)) for one, tab, two in pairs]
    sources = [sentence(task.source, one) for one, _ in texts]
    targets = [sentence(task.target, two) for _, two in texts]
    target_in = [[task.target.bos, *target[:-1]] for target in targets]
    # Without a memory, whose slots no sentence would fill.
    carry = model.initial_carry(len(texts), train=False, memory_length=0)
    inputs = (*padded(sources), *padded(target_in), carry)
    _, seen = watch(model, run.variables, *inputs)
    result = []
    for row, (one, two) in enumerate(texts):
        source = words(task.source, sources[row])
        target = words(task.target, targets[row])
        read = [START, *target[:-1]]
        looks = [
            cut_look(name, weights[row], source, target, read)
            for name, weights in seen.items()
        ]
        result.append(View(f"{one} → {two}", looks))
    return result


def cut_look(name, weights, source, target, read) -> Look:
    """Without padding; the names of the modules tell who looks at what."""
    in_encoder = name.startswith("encoder")
    is_self = in_encoder or name.endswith("self_attention")
    rows = source if in_encoder else target
    columns = source if in_encoder or not is_self else read
    heads = weights.reshape(-1, *weights.shape[-2:])
    heads = heads[:, : len(rows), : len(columns)]
    return Look(name, "self" if is_self else "cross", rows, columns, heads)


def text_views(run: TrainedRun, lines: Iterable[str]) -> Iterator[View]:
    """Of lines of one text, read one after another, memory handed on."""
    task, model = run.experiment.task, run.experiment.evaluation_model
    tokenizer = task.tokenizer
    history = [tokenizer.eos]  # all read so far and the token to read next
    carry = model.initial_carry(1, train=False)
    for line in lines:
        ids = [*tokenizer.encode(line), tokenizer.eos]
        for first in range(0, len(ids), LONGEST):
            part = ids[first : first + LONGEST]
            inputs = np.asarray([[history[-1], *part[:-1]]], np.int32)
            carry, seen = watch(model, run.variables, inputs, carry)
            read = [*history, *part[:-1]]
            looks = [
                text_look(tokenizer, name, weights[0], read, part)
                for name, weights in seen.items()
            ]
            yield View(tokenizer.decode(part) or END, looks, len(history) - 1)
            history += part


def text_look(tokenizer, name, weights, read: list[int], part: list[int]) -> Look:
    """At what was read, without slots of a memory that hold nothing yet.

    A recurrent model's weights [T, N] are of the N outputs before each row's.
    """
    behind = 1
    if weights.ndim == 2:
        weights = unrolled(weights)[None]
        behind = 2  # the newest output answers, and is not looked at
    num_columns = min(weights.shape[-1], len(read) - behind + 1)
    weights = weights[..., weights.shape[-1] - num_columns :]
    last = len(read) - behind + 1
    columns = read[last - num_columns : last]
    rows, columns = words(tokenizer, part), words(tokenizer, columns)
    return Look(name, "self", rows, columns, weights, num_columns + behind - 1)


def unrolled(weights: np.ndarray) -> np.ndarray:
    """Of the N outputs before each of T, on the T + N - 1 outputs, oldest first."""
    size, window = weights.shape
    found = np.zeros((size, size + window - 1), weights.dtype)
    for row in range(size):
        found[row, row : row + window] = weights[row]
    return found


def watch(
    model, variables: PyTree, *inputs: PyTree
) -> tuple[PyTree, dict[str, np.ndarray]]:
    """The next carry, and what each layer sows: [B, H, T, S] or [B, T, S].

    Only who asks for it pays for it: it is another program than training's.
    """
    carry, seen = _watch(model, variables, *inputs)
    found = {}
    for path, weights in jax.tree_util.tree_leaves_with_path(seen):
        if getattr(path[-2], "key", "") == "attention":
            found[layer_name(path)] = np.asarray(weights, np.float32)
    return carry, found


@functools.partial(jax.jit, static_argnums=0)
def _watch(model, variables, *inputs):
    (_, carry), seen = model.apply(
        variables, *inputs, train=False, mutable=["intermediates"]
    )
    return carry, seen.get("intermediates", {})


def sentence(tokenizer, text: str) -> list[int]:
    """Its first tokens and the end."""
    return [*tokenizer.encode(text)[: LONGEST - 1], tokenizer.eos]


def padded(sentences: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """An array with a row a sentence, and its mask."""
    lengths = np.asarray([len(one) for one in sentences])
    mask = np.arange(lengths.max()) < lengths[:, None]
    tokens = np.zeros(mask.shape, np.int32)
    tokens[mask] = np.concatenate(sentences)
    return tokens, mask


def words(tokenizer, ids: list[int]) -> list[str]:
    """Legible pieces: white space can be seen, ends are named alike."""
    named = {tokenizer.eos: END, tokenizer.bos: START}
    pieces = zip(ids, tokenizer.pieces(ids), strict=True)
    return [named.get(i, piece if piece.strip() else SPACE) for i, piece in pieces]
