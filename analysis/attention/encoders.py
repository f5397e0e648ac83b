"""Attention weights of encoders with heads, for lines and what they predict."""

from collections.abc import Iterator, Sequence

import numpy as np

from analysis.attention.extract import (
    MAX_TOKENS,
    AttentionMap,
    TextAttention,
    capture_intermediates,
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
