"""Unknown words of translations, replaced by the source words they attend to.

After Jean et al. (2015, "On Using Very Large Target Vocabulary for Neural Machine
Translation", section 4.1.3) and Luong et al. (2015): out-of-vocabulary names and
numbers are mostly the same in both languages.
"""

import functools
from collections.abc import Sequence

import jax
import numpy as np

from decoding.hypotheses import Hypotheses
from tasks.base import ScoredText, cast_params
from tasks.translation_inference import Translator, decoder_inputs
from utils.memory import bounded_jit


def copy_unknown_words(
    task: Translator, model, variables, carry, batch, hypotheses: Hypotheses, sources
) -> list[list[ScoredText]]:
    """Detokenizes hypotheses with unknown words copied from the texts `sources`."""
    alignments = [
        np.asarray(_align(task, model, variables, carry, batch, tokens))
        for tokens in np.swapaxes(jax.device_get(hypotheses.tokens), 0, 1)
    ]
    outputs = []
    num_words = np.asarray(batch["source_mask"]).sum(axis=1) - 1  # a source may be cut
    for example, beams in enumerate(hypotheses.to_lists()):
        words = [
            None if word in task.source.tags else word
            for word in task.source.words(sources[example])[: num_words[example]]
        ]
        texts = []
        for (ids, score), alignment in zip(beams, alignments, strict=False):
            positions = alignment[example, : len(ids)]
            texts.append((replace_unknown(task.target, ids, positions, words), score))
        outputs.append(texts)
    return outputs


@functools.partial(bounded_jit, static_argnums=(0, 1))
def _align(task: Translator, model, variables, carry, batch, tokens):
    """Returns the source position with most attention for each target token."""
    carry = task.reset(model, carry, batch["reset"], train=False)
    _, sown = model.apply(
        cast_params(model, variables),
        batch["source"],
        batch["source_mask"],
        *decoder_inputs(tokens, task.target),
        carry,
        train=False,
        mutable=["intermediates"],
    )
    return model.alignment(sown["intermediates"]).argmax(axis=-1)


def replace_unknown(
    tokenizer,
    ids: Sequence[int],
    source_positions: Sequence[int],
    words: Sequence[str | None],
) -> str:
    """Detokenizes a translation with unknown words copied from the source.

    An unknown word stays where most attention is on the end symbol or a tag.

    Args:
      tokenizer: tokenizer of the target.
      ids: token ids of the translation without its end symbol.
      source_positions: source position with most attention for each token.
      words: word of each source token without the end symbol; None for a tag.
    """
    tags = tokenizer.tags.values()
    pairs = [
        (token, position)
        for token, position in zip(ids, source_positions, strict=True)
        if token not in tags
    ]
    text = tokenizer.detokenize([token for token, _ in pairs])
    parts = text.split(tokenizer.unknown)
    positions = [position for token, position in pairs if token == tokenizer.unk]
    if len(parts) != len(positions) + 1:  # a word of the text looks like the symbol
        return tokenizer.decode(ids)
    text = parts[0]
    for position, part in zip(positions, parts[1:], strict=True):
        word = words[position] if position < len(words) else None
        text += (word or tokenizer.unknown) + part
    return tokenizer.normalizer.undo(text)
