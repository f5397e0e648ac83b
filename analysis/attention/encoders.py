"""Attention weights of encoders with heads, for lines and what they predict."""

from collections.abc import Iterator, Sequence

import numpy as np

from analysis.attention.extract import (
    MAX_TOKENS,
    AttentionMap,
    SampleMap,
    TextAttention,
    capture_intermediates,
    round_weights,
    sharpest_layer,
    token_labels,
)
from experiment.restore import TrainedRun

CLS, SEP = "[CLS]", "[SEP]"  # labels of the tokens around texts


def encoder_attention(run: TrainedRun, lines: Sequence[str]) -> Iterator[TextAttention]:
    """Extracts self-attention and pooling weights of lines, titled with predictions.

    Of a longer line, the first MAX_TOKENS tokens are shown. A memory is empty.
    """
    task = run.experiment.task
    outputs = task.predict_n_best(*run.inputs(lines))
    for number, (line, found) in enumerate(zip(lines, outputs, strict=True)):
        text, score = found[0]
        title = f"{line} → {text} ({score:.2f})".replace("\t", " | ")
        text = text.rpartition("\t")[2]  # of tags and an intent, the intent
        tokens, layers = line_weights(run, number, line)
        maps = [
            _layer_map(name, weights, tokens[:MAX_TOKENS], text)
            for name, weights in layers.items()
        ]
        yield TextAttention(title, maps)


def encoder_sample_map(run: TrainedRun, sample: dict) -> SampleMap | None:
    """Extracts finite self-attention of a sample, of the layer of lowest entropy.

    If a pooling has weights, they are the first row, labelled with the prediction. Of a
    longer text, the first MAX_TOKENS tokens are shown.
    """
    tokens, weights = line_weights(run, 0, sample["source"])
    tokens = tokens[:MAX_TOKENS]
    output = "→ " + sample.get("hypothesis_intent", sample["hypothesis"])
    maps = [_layer_map(name, *(w, tokens, output)) for name, w in weights.items()]
    if not maps or not all(np.isfinite(one.weights).all() for one in maps):
        return None
    poolings = [one for one in maps if one.kind == "pooling"]
    # Of a model without self-attention, the pooling alone.
    layers = {one.layer: one for one in maps if one.kind == "self"}
    layers = layers or {one.layer: one for one in poolings}
    layer, mean = sharpest_layer({name: one.weights for name, one in layers.items()})
    chosen = layers[layer]
    labels = chosen.rows
    if poolings and chosen.kind == "self":
        labels = [*poolings[0].rows, *labels]
        mean = np.concatenate([poolings[0].weights[0], mean])
    sizes = len(layers), len(chosen.weights)
    return SampleMap(tokens, labels, round_weights(mean), layer, *sizes, kind="self")


def line_weights(
    run: TrainedRun, number: int, line: str
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Returns the labels of a line's tokens, and weights by layer without their batch.

    Args:
      number: the line's number, for errors.
    """
    task, cfg = run.experiment.task, run.experiment.cfg
    ids, first = task.encode_line(number, line)
    # A head's other inputs, such as positions, do not change attention.
    batch = {
        name: np.zeros((1, *shape.shape[1:]), shape.dtype)
        for name, shape in task.example_batch(cfg).items()
    }
    batch["tokens"] = np.asarray([ids], np.int32)
    batch["mask"] = np.ones((1, len(ids)), bool)
    batch["segment_ids"] = (np.arange(len(ids)) >= first).astype(np.int32)[None]
    # One segment, whatever the length of those of training.
    model = run.experiment.evaluation_model.clone(segment_length=len(ids))
    carry = model.initial_carry(1, train=False, memory_length=0)
    inputs = (*task.model_inputs(batch), carry)
    _, layers = capture_intermediates(model, run.variables, *inputs)
    special = {task.tokenizer.bos: CLS, task.tokenizer.eos: SEP}
    labels = zip(ids, token_labels(task.tokenizer, ids), strict=True)
    return [special.get(i, label) for i, label in labels], {
        name: weights[0] for name, weights in layers.items()
    }


def _layer_map(
    name: str, weights: np.ndarray, tokens: list[str], output: str
) -> AttentionMap:
    """Returns the map of a layer: weights [H, T, T], [T, T] or, of a pooling, [T]."""
    shown = len(tokens)
    if weights.ndim == 1:
        return AttentionMap(
            name, "pooling", [output], tokens, weights[None, None, :shown]
        )
    weights = weights.reshape(-1, *weights.shape[-2:])[:, :shown, :shown]
    return AttentionMap(name, "self", tokens, tokens, weights)
