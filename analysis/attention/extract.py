"""Attention weights of a trained model, of every layer and head, for given texts."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np
from jax.tree_util import DictKey
from jaxtyping import Float, PyTree

from decoding.config import max_source_length
from experiment.restore import TrainedRun
from utils.errors import UserError
from utils.memory import bounded_jit

START, END = "<bos>", "<eos>"  # labels, whatever a tokenizer calls the tokens
SPACE = "\N{OPEN BOX}"
MAX_TOKENS = 64  # of a text: a picture of more is not legible
MODERATE = range(6, 15)  # tokens of a sample: enough for a pattern, and legible
NUM_DIGITS = 4  # of a weight in the file of a sample


@dataclasses.dataclass(frozen=True)
class AttentionMap:
    """The attention weights of one layer for one text."""

    layer: str  # path of its module
    kind: str  # "cross": to a source; "self": to the text and memory; "pooling"
    # T labels of the tokens being predicted or, in an encoder, encoded; of a pooling,
    # the predicted label.
    rows: list[str]
    columns: list[str]  # S labels of the tokens attended to
    weights: np.ndarray  # [H, T, S]
    # Distance from column 0 to the last row's token; None: distances have no meaning.
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
        offset = self.offset or 0
        row_shift = np.arange(num_rows)[:, None] - (num_rows - 1)
        distance = offset + row_shift - np.arange(num_columns)  # [T, S]
        means = np.zeros((heads, offset))
        for d in range(1, offset + 1):
            is_at = distance == d
            if is_at.any():
                means[:, d - 1] = self.weights[:, is_at].mean(axis=-1)
        return means


@dataclasses.dataclass(frozen=True)
class TextAttention:
    """The attention maps of one text, of all layers."""

    title: str
    maps: list[AttentionMap]


@dataclasses.dataclass(frozen=True)
class SampleMap:
    """Attention for one sample of an evaluation, averaged over heads."""

    source: list[str]  # labels of the columns
    target: list[str]  # labels of the rows: of an encoder, the same tokens again
    weights: list[list[float]]  # of target tokens, each of source tokens
    layer: str  # path of its module; the layer of lowest entropy among all
    layers: int  # number of layers with attention of this kind
    heads: int  # number of heads that were averaged
    kind: str = "cross"  # "cross"; "self" of an encoder, below the row of a pooling


def extract_attention(run: TrainedRun, lines: Sequence[str]) -> list[TextAttention]:
    """Extracts attention for each line of input, as the task reads it.

    A line of translation may have a target after a tab.

    Raises UserError for a model without attention, or where it is not finite.
    """
    texts = list(_extractor(run.experiment.task.model_class)(run, lines))
    if not any(text.maps for text in texts):
        name = run.experiment.cfg.model.name
        raise UserError(f"{run.directory.path}: this {name} has no attention")
    if not all(np.isfinite(one.weights).all() for text in texts for one in text.maps):
        raise UserError(f"{run.directory.path}: attention weights are not finite")
    return texts


def _extractor(model_class: str):
    """Returns the function that extracts the attention of a class of models."""
    if model_class == "Encoder":
        from analysis.attention.encoders import encoder_attention

        return encoder_attention
    return _translation_attention if model_class == "Seq2Seq" else _text_attention


def _translation_attention(run, lines) -> list[TextAttention]:
    """Extracts attention of given or, without a tab, predicted translations."""
    task, model = run.experiment.task, run.experiment.evaluation_model
    pairs = [line.partition("\t") for line in lines]
    untranslated = [source for source, tab, _ in pairs if not tab]
    inputs = run.inputs(untranslated)
    predictions = task.predict(*inputs) if untranslated else iter(())
    texts = [
        (source, target if tab else next(predictions)) for source, tab, target in pairs
    ]
    sources = [_encode(task.source, source) for source, _ in texts]
    targets = [_encode(task.target, target) for _, target in texts]
    # Without a memory, whose positions a single sentence would not fill.
    carry = model.initial_carry(len(texts), train=False, memory_length=0)
    layers = translation_weights(run, model, sources, targets, carry)
    result = []
    for row, text in enumerate(texts):
        source = token_labels(task.source, sources[row])
        target = token_labels(task.target, targets[row])
        maps = []
        for name, weights in layers.items():
            kind, rows, columns = "cross", target, source
            if name.startswith("encoder"):
                kind, rows = "self", source
            elif not is_cross_attention(name):
                kind, columns = "self", [START, *target[:-1]]
            weights = weights[row, :, : len(rows), : len(columns)]  # without padding
            maps.append(AttentionMap(name, kind, rows, columns, weights))
        result.append(TextAttention(" → ".join(text), maps))
    return result


def translation_weights(
    run: TrainedRun,
    model,
    sources: list[list[int]],
    targets: list[list[int]],
    carry: PyTree,
) -> dict[str, Float[np.ndarray, "B H T S"]]:
    """Returns weights by layer; row t of sentence b predicts targets[b][t]."""
    bos = run.experiment.task.target.bos
    target_in = [[bos, *target[:-1]] for target in targets]
    inputs = (*_pad(sources), *_pad(target_in), carry)
    _, layers = capture_intermediates(model, run.variables, *inputs)
    return {
        name: weights.reshape(len(sources), -1, *weights.shape[-2:])
        for name, weights in layers.items()
    }


def is_cross_attention(layer: str) -> bool:
    """Whether a layer of a translation model attends to the source."""
    return not (layer.startswith("encoder") or layer.endswith("self_attention"))


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
            yield TextAttention(tokenizer.decode(labels) or END, maps)
            history += labels


def _text_map(tokenizer, name, weights, read, labels) -> AttentionMap:
    """Removes the columns of a memory that is not full yet.

    Weights are [H, T, S], or [T, N] of a recurrent model's last N outputs; `read` are
    ids of all tokens read so far, `labels` those of the tokens being predicted.
    """
    newest = 1  # distance from a row's token to the newest column
    if weights.ndim == 2:
        weights = to_banded(weights)[None]
        newest = 2  # a recurrent model's newest output is the query
    end = len(read) - newest + 1
    num_columns = min(weights.shape[-1], end)
    rows = token_labels(tokenizer, labels)
    columns = token_labels(tokenizer, read[end - num_columns : end])
    weights = weights[..., weights.shape[-1] - num_columns :]
    offset = num_columns + newest - 1
    return AttentionMap(name, "self", rows, columns, weights, offset)


def to_banded(weights: Float[np.ndarray, "T N"]) -> Float[np.ndarray, "T T+N-1"]:
    """Aligns weights over the N outputs before each row in a band matrix."""
    size, window = weights.shape
    banded = np.zeros((size, size + window - 1), weights.dtype)
    for row in range(size):
        banded[row, row : row + window] = weights[row]
    return banded


def sample_map(run: TrainedRun, sample: dict) -> SampleMap | None:
    """Extracts finite attention for a sample and the model's own hypothesis.

    It is cross-attention or, of an encoder, self-attention and pooling weights.
    """
    task = run.experiment.task
    if task.model_class == "Encoder":
        from analysis.attention.encoders import encoder_sample_map

        return encoder_sample_map(run, sample)
    limit = max_source_length(run.experiment.cfg)
    source = [*task.source.encode(sample["source"])[: limit - 1], task.source.eos]
    target = [*task.target.encode(sample["hypothesis"]), task.target.eos]
    layers = cross_attention(run, source, target)
    if not layers or not all(np.isfinite(x).all() for x in layers.values()):
        return None
    layer, weights = sharpest_layer(layers)
    labels = token_labels(task.source, source), token_labels(task.target, target)
    rows = round_weights(weights)
    return SampleMap(*labels, rows, layer, len(layers), len(layers[layer]))


def sharpest_layer(
    layers: dict[str, Float[np.ndarray, "H T S"]],
) -> tuple[str, Float[np.ndarray, "T S"]]:
    """Returns the layer of lowest entropy and its weights, averaged over heads."""
    means = {name: weights.mean(axis=0) for name, weights in layers.items()}
    layer = min(means, key=lambda name: entropy(means[name]))
    return layer, means[layer]


def round_weights(weights: Float[np.ndarray, "T S"]) -> list[list[float]]:
    """Returns weights with NUM_DIGITS digits, for a file."""
    return weights.astype(float).round(NUM_DIGITS).tolist()


def cross_attention(
    run: TrainedRun, source: list[int], target: list[int]
) -> dict[str, np.ndarray]:
    """Returns weights [H, T, S] by layer; row t belongs to target[t]."""
    model = run.experiment.model
    carry = run.experiment.task.initial_carry(model, 1, train=False)
    layers = translation_weights(run, model, [source], [target], carry)
    return {name: x[0] for name, x in layers.items() if is_cross_attention(name)}


def choose_sample(run: TrainedRun, samples: list[dict]) -> dict:
    """Returns the first sample of moderate length, or else the nearest to it."""
    # Not of the hypothesis, so that all models show the same sentence.
    task = run.experiment.task
    is_encoder = task.model_class == "Encoder"
    encode = (task.tokenizer if is_encoder else task.target).encode
    side = "source" if is_encoder else "reference"

    def excess(sample: dict) -> int:
        length = len(encode(sample[side])) + 1
        return max(MODERATE[0] - length, length - MODERATE[-1], 0)

    return min(samples, key=excess)


def capture_intermediates(
    model, variables: PyTree, *inputs: PyTree
) -> tuple[PyTree, dict[str, np.ndarray]]:
    """Applies a model; returns its next carry and each layer's attention weights.

    The weights are [B, H, T, S] or [B, T, S]. Training does not pay for this program.
    """
    carry, intermediates = _apply(model, variables, *inputs)
    layers = {}
    for path, weights in jax.tree_util.tree_leaves_with_path(intermediates):
        *names, last = [key.key for key in path if isinstance(key, DictKey)]
        if last == "attention":
            layers["/".join(names)] = np.asarray(weights, np.float32)
    return carry, layers


@functools.partial(bounded_jit, static_argnums=0)
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
