"""Log probabilities, ranks and alternatives of each token of a text under a run."""

import dataclasses
import functools
import math
import types
from collections.abc import Iterable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from analysis.token_scores.tokens import END, Piece, token_pieces
from data.batching.stream import LMEvalBatches, SlidingWindows
from data.tokenizers.base import BOS, EOS
from data.understanding.markers import MASK
from experiment.restore import TrainedRun
from tasks.base import check_windows
from tasks.understanding.base import is_learned_by_position, pad_rows, tell_cut
from utils.errors import UserError
from utils.memory import bounded_jit

MAX_TOKENS = 50_000  # of a page, which has 150 bytes for a token of two runs
MASKED_ROWS = 32  # copies of a text, each with another token masked, of a batch
TASKS = ("language_modeling", "translation", "text_to_text", "masked_language_modeling")


@dataclasses.dataclass(frozen=True)
class Scores:
    """Predictions of a model for each token of a text.

    Attributes:
      log_probs: log probability of the token, in nats.
      ranks: 1 for the most probable token.
      top_ids: the most probable tokens, best first.
      top_log_probs: their log probabilities.
    """

    log_probs: Float[np.ndarray, "T"]
    ranks: Int[np.ndarray, "T"]
    top_ids: Int[np.ndarray, "T K"]
    top_log_probs: Float[np.ndarray, "T K"]

    def __getitem__(self, index) -> "Scores":
        fields = dataclasses.fields(self)
        return Scores(*(getattr(self, field.name)[index] for field in fields))


@dataclasses.dataclass(frozen=True)
class ScoredLine:
    """A line of the input under a run.

    Attributes:
      source: what the text is predicted from, besides itself.
      text: the text that is scored.
      ids: its tokens, with the end symbol where it is predicted.
      pieces: the text of each token.
    """

    source: str
    text: str
    ids: list[int]
    pieces: list[Piece]
    scores: Scores

    @property
    def has_end(self) -> bool:
        """Whether the end symbol is predicted."""
        return self.ids[-1] == EOS

    @property
    def num_characters(self) -> int:
        """Number of characters; an end symbol counts as one."""
        return len(self.text) + self.has_end


@dataclasses.dataclass(frozen=True)
class ScoredRun:
    """A run and its scores of all lines.

    Attributes:
      context: sentence on what each token is predicted from.
    """

    name: str
    run: TrainedRun
    lines: list[ScoredLine]
    context: str

    @property
    def totals(self) -> dict[str, float]:
        """Sums over all tokens, as an evaluation reports them."""
        log_prob = sum(
            float(one.scores.log_probs.sum(dtype=float)) for one in self.lines
        )
        num_tokens = sum(len(one.ids) for one in self.lines)
        num_characters = sum(one.num_characters for one in self.lines)
        loss = -log_prob / num_tokens
        return {
            "tokens": num_tokens,
            "log_prob": log_prob,
            "loss": loss,
            "perplexity": math.exp(min(loss, 700.0)),
            "bits_per_character": -log_prob / math.log(2) / num_characters,
        }

    @property
    def tokenizer(self):
        """The tokenizer of the text that is scored."""
        task = self.run.experiment.task
        return getattr(task, task.output_tokenizer)


def score_run(
    run: TrainedRun,
    name: str,
    lines: Sequence[str],
    *,
    top: int,
    document_order: bool = False,
) -> ScoredRun:
    """Scores lines as the run's task reads them.

    Lines of a language model are one text with an end symbol after each. A line of
    translation is a source, a tab and a target. Each token of a masked language model
    is masked in turn.

    Args:
      top: number of alternatives.
      document_order: whether the memory of translation passes from line to line.

    Raises:
      UserError: the task has no likelihoods of tokens, or the text is too long.
    """
    task = run.experiment.cfg.task
    if task not in TASKS:
        raise UserError(
            f"{run.directory.path} has task={task!r}, which predicts no tokens; choose "
            f"a run of {', '.join(TASKS)}"
        )
    scorers = {"LanguageModel": score_text, "Encoder": score_masked}
    scorer = scorers.get(run.experiment.task.model_class)
    if scorer is None:
        scorer = functools.partial(score_pairs, document_order=document_order)
    scored, context = scorer(run, lines, top)
    if not scored:
        raise UserError("The input has no text: provide at least one line")
    if not all(np.isfinite(one.scores.log_probs).all() for one in scored):
        raise UserError(f"{run.directory.path}: log probabilities are not finite")
    return ScoredRun(name, run, scored, context)


def score_text(
    run: TrainedRun, lines: Sequence[str], top: int
) -> tuple[list[ScoredLine], str]:
    """Scores lines of a language model as an evaluation reads a text."""
    task, model, cfg = (getattr(run.experiment, k) for k in _PARTS)
    rows = [[*task.tokenizer.encode(line), EOS] for line in lines]
    check_size(sum(map(len, rows)))
    text = types.SimpleNamespace(tokens=np.concatenate(rows))
    length = cfg.eval.segment_length or cfg.data.segment_length
    batches = LMEvalBatches(text, batch_size=1, length=length)
    if length := cfg.eval.window:
        stride = cfg.eval.stride or length
        batches = SlidingWindows(text, batch_size=1, length=length, stride=stride)
    check_windows(model, batches)
    carry = model.initial_eval_carry(1, batches.length)
    has_memory = bool(jax.tree.leaves(carry))
    variables = run.variables | task._precompute(model, run.variables, carry)
    parts = []
    for k in range(len(batches)):
        batch = batches[k]
        inputs = batch["tokens"], carry
        scores, carry = _score(model, top, variables, inputs, batch["labels"])
        parts.append(scores[0, batch["weights"][0] > 0])
    scores = _join(parts)
    bounds = np.cumsum([0, *map(len, rows)])
    scored = [
        _scored_line(task.tokenizer, "", line, ids, scores[start:end])
        for line, ids, start, end in zip(
            lines, rows, bounds[:-1], bounds[1:], strict=True
        )
    ]
    context = _describe_segments(batches, model.config, has_memory)
    return scored, context + _describe_positions(cfg, batches.length)


_PARTS = ("task", "evaluation_model", "cfg")


def _describe_segments(batches, config, has_memory: bool) -> str:
    """Describes the context of the tokens of a language model."""
    if stride := getattr(batches, "stride", None):
        return f"sliding windows of {batches.length} tokens, {stride} apart"
    context = f"segments of {batches.length} tokens"
    if length := getattr(config, "memory_length", 0):
        return f"{context} with a memory of {length}"
    if has_memory:
        return f"{context} with a recurrent state"
    return f"{context}, each without those before it"


def _describe_positions(cfg, longest: int) -> str:
    """Describes positions beyond those that a model has embeddings of, if any."""
    if is_learned_by_position(cfg.model) and longest > cfg.model.max_positions:
        return f"; positions from {cfg.model.max_positions} on share one embedding"
    return ""


def score_pairs(
    run: TrainedRun, lines: Iterable[str], top: int, *, document_order: bool = False
) -> tuple[list[ScoredLine], str]:
    """Scores the targets of lines of a source, a tab and a target."""
    task, model, cfg = (getattr(run.experiment, k) for k in _PARTS)
    lines = list(lines)
    targets = [line.partition("\t")[2] for line in lines]
    check_size(sum(len(task.target.encode(target)) + 1 for target in targets))

    def score(carry, batch, texts):
        carry = task.reset(model, carry, batch["reset"], train=False)
        batch |= {"target_mask": batch["labels_mask"]}
        inputs = *task.model_inputs(batch), carry
        scores, carry = _score(model, top, run.variables, inputs, batch["labels"])
        rows = zip(batch["labels"], batch["labels_mask"], strict=True)
        return [
            (labels[mask].tolist(), scores[row, mask])
            for row, (labels, mask) in enumerate(rows)
        ], carry

    found = task._map_lines(
        score, model, lines, cfg, "target", None, document_order=document_order
    )
    scored = [
        _scored_line(task.target, line.partition("\t")[0], target, *result)
        for line, target, result in zip(lines, targets, found, strict=True)
        if result is not None
    ]
    memory = " and the memory of the lines before" if document_order else ""
    longest = max((len(one.ids) for one in scored), default=0)
    return scored, f"its source{memory}{_describe_positions(cfg, longest)}"


def score_masked(
    run: TrainedRun, lines: Iterable[str], top: int
) -> tuple[list[ScoredLine], str]:
    """Computes pseudo-log-likelihoods (Salazar et al. 2020), a masked token a row."""
    task, model, _ = (getattr(run.experiment, k) for k in _PARTS)
    mask_id, scored = task.tokenizer.tags[MASK], []
    for number, line in enumerate(lines):
        ids = task.tokenizer.encode(line)
        if not ids:
            continue
        tell_cut(number, len(ids) + 2, task.max_length)
        ids = ids[: task.max_length - 2]
        parts = []
        for start in range(0, len(ids), MASKED_ROWS):
            labels = ids[start : start + MASKED_ROWS]
            rows = [([BOS, *ids, EOS], len(ids) + 2)] * len(labels)
            batch = pad_rows(rows, MASKED_ROWS)
            positions, numbers = np.zeros((2, MASKED_ROWS, 1), np.int32)
            positions[: len(rows), 0] = 1 + start + np.arange(len(rows))
            numbers[: len(rows), 0] = labels
            batch["tokens"][np.arange(len(rows)), positions[: len(rows), 0]] = mask_id
            carry = model.initial_carry(MASKED_ROWS, train=False)
            inputs = *task.model_inputs(batch | {"positions": positions}), carry
            scores, _ = _score(model, top, run.variables, inputs, numbers)
            parts.append(scores[: len(rows), 0])
        scored.append(_scored_line(task.tokenizer, "", line, ids, _join(parts)))
    check_size(sum(len(one.ids) for one in scored))
    return scored, "all other tokens of its line, each token masked in turn"


def check_size(num_tokens: int) -> None:
    """Raises UserError for more tokens than a page shows."""
    if num_tokens > MAX_TOKENS:
        raise UserError(
            f"The input has {num_tokens:,} tokens, and a page shows {MAX_TOKENS:,} at "
            "most: provide a part of it"
        )


def _scored_line(tokenizer, source, text, ids, scores: Scores) -> ScoredLine:
    """Returns a line with its pieces, those that were cut off left out."""
    pieces = token_pieces(tokenizer, text)[: len(ids)]
    if len(pieces) < len(ids):  # the end symbol is predicted
        pieces.append(Piece(END, False, END))
    return ScoredLine(source, text, list(map(int, ids)), pieces, scores)


def _join(parts: list[Scores]) -> Scores:
    names = [field.name for field in dataclasses.fields(Scores)]
    return Scores(*(np.concatenate([getattr(p, k) for p in parts]) for k in names))


def _score(
    model, top: int, variables: PyTree, inputs: tuple, labels: Int[np.ndarray, "B T"]
) -> tuple[Scores, PyTree]:
    """Returns scores of labels, whose arrays are [B, T, ...], and the next carry."""
    arrays, carry = _predict(model, top, variables, inputs, labels)
    return Scores(*map(np.asarray, arrays)), carry


@functools.partial(bounded_jit, static_argnums=(0, 1))
def _predict(model, top: int, variables: PyTree, inputs: tuple, labels: Array):
    def predict(model):
        hidden, carry = model(*inputs, train=False)
        if isinstance(hidden, tuple):  # with the output for pairs of sentences
            hidden, _ = hidden
        return model.log_prob(hidden, labels), model.logits(hidden), carry

    log_probs, logits, carry = nn.apply(predict, model)(variables)
    own = jnp.take_along_axis(logits, labels[..., None], axis=-1)
    ranks = 1 + (logits > own).sum(axis=-1)
    top = min(top, logits.shape[-1])
    top_log_probs, top_ids = jax.lax.top_k(jax.nn.log_softmax(logits), top)
    return (log_probs, ranks, top_ids, top_log_probs), carry
