"""Words a model does not know, taken from the source it looks at.

After Jean et al. (2015, "On Using Very Large Target Vocabulary for Neural Machine
Translation", section 4.1.3) and Luong et al. (2015): a name or a number that is in
no vocabulary is mostly the same in both languages.
"""

from collections.abc import Sequence


def replace_unknown(
    tokenizer, ids: Sequence[int], looked_at: Sequence[int], words: Sequence[str | None]
) -> str:
    """The text of a translation, its unknown words replaced.

    An unknown word stays where the model looks at the end or the tag of the source.

    Args:
      tokenizer: the target's.
      ids: the translation without its end.
      looked_at: place in the source of what each token looked at most.
      words: the source's, each that of a token, None for a tag; without its end.
    """
    tags = tokenizer.tags.values()
    pairs = [pair for pair in zip(ids, looked_at, strict=True) if pair[0] not in tags]
    text = tokenizer.detokenize([token for token, _ in pairs])
    parts = text.split(tokenizer.unknown)
    places = [place for token, place in pairs if token == tokenizer.unk]
    if len(parts) != len(places) + 1:  # the sign stands for something else too
        return tokenizer.decode(ids)
    text = parts[0]
    for place, part in zip(places, parts[1:], strict=True):
        word = words[place] if place < len(words) else None
        text += (word or tokenizer.unknown) + part
    return tokenizer.normalizer.undo(text)
