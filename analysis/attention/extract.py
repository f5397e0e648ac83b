"""Attention weights of a trained model, of every layer and head, for given texts."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np
from jaxtyping import Float, PyTree

from experiment.inference import predict
from experiment.restore import TrainedRun
from utils.errors import UserError

START, END = "<bos>", "<eos>"  # labels, whatever a tokenizer calls the tokens
SPACE = "\N{OPEN BOX}"
MAX_TOKENS = 64  # of a text: a picture of more is not legible
MODERATE = range(6, 15)  # target tokens of a sample: enough for a pattern, legible
NUM_DIGITS = 4  # of a weight in the file of a sample


@dataclasses.dataclass(frozen=True)
class AttentionMap:
    """The attention weights of one layer for one text.

    Attributes:
      layer: path of its module.
      kind: "cross" attention to a source, or "self" attention to the text and memory.
      rows: T labels of the tokens being predicted or, in an encoder, encoded.
      columns: S labels of the tokens attended to.
      weights: [H, T, S].
      offset: distance from column 0 to the last row's token; None where distances have
        no meaning.
    """

    layer: str
    kind: str
    rows: list[str]
    columns: list[str]
    weights: np.ndarray
    offset: int | None = None

    @property
    def entropies(self) -> np.ndarray:
        """The entropy of each head in nats, averaged over rows."""
        return entropy(self.weights)

    @property
    def weights_by_distance(self) -> np.ndarray:
        """Each head's mean weight at distance d before a row's token, [H, offset].

        Only rows with a token at that distance count. Empty where `offset` is None.
        """
        heads, num_rows, num_columns = self.weights.shape
        if self.offset is None:
            return np.zeros((heads, 0))
        row_shift = np.arange(num_rows)[:, None] - (num_rows - 1)
        distance = self.offset + row_shift - np.arange(num_columns)  # [T, S]
        means = np.zeros((heads, self.offset))
        for d in range(1, self.offset + 1):
            is_at = distance == d
            if is_at.any():
                means[:, d - 1] = self.weights[:, is_at].mean(axis=-1)
        return means


@dataclasses.dataclass(frozen=True)
class TextAttention:
    """The attention maps of one text, of all layers.

    Attributes:
      num_past: number of tokens read before the text, which may be in the memory.
    """

    title: str
    maps: list[AttentionMap]
    num_past: int = 0


@dataclasses.dataclass(frozen=True)
class SampleMap:
    """Cross-attention for one sample of an evaluation, averaged over heads.

    Attributes:
      weights: a row for each target token, a column for each source token.
      layer: path of its module; the layer of lowest entropy among all.
      layers: number of layers with cross-attention.
      heads: number of heads that were averaged.
    """

    source: list[str]
    target: list[str]
    weights: list[list[float]]
    layer: str
    layers: int
    heads: int


def extract_attention(run: TrainedRun, lines: Sequence[str]) -> list[TextAttention]:
    """Extracts attention for each line of text.

    A line of translation may have its target after a tab.

    Raises UserError for a model without attention.
    """
    if run.experiment.task.model_class == "Seq2Seq":
        texts = _translation_attention(run, lines)
    else:
        texts = list(_text_attention(run, lines))
    if not any(text.maps for text in texts):
        name = run.experiment.cfg.model.name
        raise UserError(f"{run.directory.path}: this {name} has no attention")
    return texts


def _translation_attention(run, lines) -> list[TextAttention]:
    """Extracts attention of given or, without a tab, predicted translations."""
    task, model = run.experiment.task, run.experiment.evaluation_model
    pairs = [line.partition("\t") for line in lines]
    untranslated = [source for source, tab, _ in pairs if not tab]
    predictions = iter(list(predict(run, untranslated)) if untranslated else [])
    texts = [
        (source, target if tab else next(predictions)) for source, tab, target in pairs
    ]
    sources = [_encode(task.source, source) for source, _ in texts]
    targets = [_encode(task.target, target) for _, target in texts]
    target_in = [[task.target.bos, *target[:-1]] for target in targets]
    # Without a memory, whose positions a single sentence would not fill.
    carry = model.initial_carry(len(texts), train=False, memory_length=0)
    inputs = (*_pad(sources), *_pad(target_in), carry)
    _, layers = capture_intermediates(model, run.variables, *inputs)
    result = []
    for row, (source_text, target_text) in enumerate(texts):
        source = token_labels(task.source, sources[row])
        target = token_labels(task.target, targets[row])
        maps = [
            _translation_map(name, weights[row], source, target)
            for name, weights in layers.items()
        ]
        result.append(TextAttention(f"{source_text} → {target_text}", maps))
    return result


def _translation_map(name, weights, source, target) -> AttentionMap:
    """Removes padding; the name of a layer says what it attends to."""
    rows, columns, kind = target, source, "cross"
    if name.startswith("encoder"):
        rows, kind = source, "self"
    elif name.endswith("self_attention"):
        columns, kind = [START, *target[:-1]], "self"
    heads = weights.reshape(-1, *weights.shape[-2:])
    return AttentionMap(
        name, kind, rows, columns, heads[:, : len(rows), : len(columns)]
    )


def _text_attention(run, lines: Iterable[str]) -> Iterator[TextAttention]:
    """Extracts attention of the lines of one text, with the memory of previous ones."""
    task, model = run.experiment.task, run.experiment.evaluation_model
    tokenizer = task.tokenizer
    history = [tokenizer.eos]  # all tokens read, and the next input
    carry = model.initial_carry(1, train=False)
    for line in lines:
        ids = [*tokenizer.encode(line), tokenizer.eos]
        for first in range(0, len(ids), MAX_TOKENS):
            labels = ids[first : first + MAX_TOKENS]
            inputs = np.asarray([[history[-1], *labels[:-1]]], np.int32)
            carry, layers = capture_intermediates(model, run.variables, inputs, carry)
            read = [*history, *labels[:-1]]
            maps = [
                _text_map(tokenizer, name, weights[0], read, labels)
                for name, weights in layers.items()
            ]
            title = tokenizer.decode(labels) or END
            yield TextAttention(title, maps, len(history) - 1)
            history += labels


def _text_map(tokenizer, name, weights, read, labels) -> AttentionMap:
    """Removes the columns of a memory that is not full yet.

    Args:
      weights: [H, T, S], or [T, N] of a recurrent model's last N outputs.
      read: ids of all tokens read so far.
      labels: ids of the tokens being predicted.
    """
    newest = 1  # distance from a row's token to the newest column
    if weights.ndim == 2:
        weights = to_banded(weights)[None]
        newest = 2  # a recurrent model's newest output is the query
    end = len(read) - newest + 1
    num_columns = min(weights.shape[-1], end)
    columns = token_labels(tokenizer, read[end - num_columns : end])
    return AttentionMap(
        name,
        "self",
        token_labels(tokenizer, labels),
        columns,
        weights[..., weights.shape[-1] - num_columns :],
        num_columns + newest - 1,
    )


def to_banded(weights: Float[np.ndarray, "T N"]) -> Float[np.ndarray, "T T+N-1"]:
    """Aligns weights over the N outputs before each row in a band matrix."""
    size, window = weights.shape
    banded = np.zeros((size, size + window - 1), weights.dtype)
    for row in range(size):
        banded[row, row : row + window] = weights[row]
    return banded


def sample_map(run: TrainedRun, sample: dict) -> SampleMap | None:
    """Extracts cross-attention of a source and the model's own hypothesis.

    Returns None for a model without cross-attention.
    """
    task = run.experiment.task
    source = [*task.source.encode(sample["source"]), task.source.eos]
    target = [*task.target.encode(sample["hypothesis"]), task.target.eos]
    layers = cross_attention(run, source, target)
    if not layers:
        return None
    means = {name: weights.mean(axis=0) for name, weights in layers.items()}
    layer = min(means, key=lambda name: entropy(means[name]))
    return SampleMap(
        source=token_labels(task.source, source),
        target=token_labels(task.target, target),
        weights=means[layer].astype(float).round(NUM_DIGITS).tolist(),
        layer=layer,
        layers=len(layers),
        heads=len(layers[layer]),
    )


def cross_attention(
    run: TrainedRun, source: list[int], target: list[int]
) -> dict[str, np.ndarray]:
    """Returns weights [H, T, S] by layer; row t belongs to target[t]."""
    task, model = run.experiment.task, run.experiment.model
    carry = task.initial_carry(model, 1, train=False)
    inputs = (*_pad([source]), *_pad([[task.target.bos, *target[:-1]]]), carry)
    _, layers = capture_intermediates(model, run.variables, *inputs)
    return {
        name: weights.reshape(-1, *weights.shape[-2:])
        for name, weights in layers.items()
        if not (name.startswith("encoder") or name.endswith("self_attention"))
    }


def choose_sample(run: TrainedRun, samples: list[dict]) -> dict:
    """Returns the first sample of moderate reference length, or else the nearest to it.

    References, not hypotheses, so that all models show the same sentence.
    """
    encode = run.experiment.task.target.encode

    def excess(sample: dict) -> int:
        length = len(encode(sample["reference"])) + 1
        return max(MODERATE[0] - length, length - MODERATE[-1], 0)

    return min(samples, key=excess)


def capture_intermediates(
    model, variables: PyTree, *inputs: PyTree
) -> tuple[PyTree, dict[str, np.ndarray]]:
    """Applies a model; returns its next carry and each layer's attention weights.

    The weights are [B, H, T, S] or [B, T, S]. They are computed by a program of their
    own, so that training does not pay for them.
    """
    carry, intermediates = _apply(model, variables, *inputs)
    layers = {}
    for path, weights in jax.tree_util.tree_leaves_with_path(intermediates):
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        if names[-1] == "attention":
            layers["/".join(names[:-1])] = np.asarray(weights, np.float32)
    return carry, layers


@functools.partial(jax.jit, static_argnums=0)
def _apply(model, variables, *inputs):
    (_, carry), state = model.apply(
        variables, *inputs, train=False, mutable=["intermediates"]
    )
    return carry, state.get("intermediates", {})


def entropy(weights: Float[np.ndarray, "... T S"]) -> Float[np.ndarray, "..."]:
    """Computes -sum p log p in nats, averaged over T; low for sharp attention."""
    logarithms = np.log(np.where(weights > 0, weights, 1.0))
    return -(weights * logarithms).sum(axis=-1).mean(axis=-1)


def token_labels(tokenizer, ids: list[int]) -> list[str]:
    """Returns tokens as text with visible white space and uniform special tokens."""
    special = {tokenizer.eos: END, tokenizer.bos: START}
    pieces = zip(ids, tokenizer.pieces(ids), strict=True)
    return [special.get(i, piece if piece.strip() else SPACE) for i, piece in pieces]


def _encode(tokenizer, text: str) -> list[int]:
    return [*tokenizer.encode(text)[: MAX_TOKENS - 1], tokenizer.eos]


def _pad(sentences: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Returns token ids with a row for each sentence, and their mask."""
    lengths = np.asarray([len(ids) for ids in sentences])
    mask = np.arange(lengths.max()) < lengths[:, None]
    tokens = np.zeros(mask.shape, np.int32)
    tokens[mask] = np.concatenate(sentences)
    return tokens, mask
