import importlib
import json

import pytest

from analysis.export.description import describe_tokenizer
from analysis.export.examples import import_runner
from data.tokenizers.build import train_tokenizer
from data.tokenizers.normalization import Normalizer
from data.understanding.markers import MARKERS
from tasks.understanding import fill_mask

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "Ein Mann mit 12 Hüten, naïve façade!",
    "犬は走る, dogs run; the unaffable words.",
]
SEEN = [*SENTENCES, "The fox\u00a0<unk> ran\ta mile", "  two  spaces ", "\u0301 x", ""]
NORMALIZERS = {
    "plain": Normalizer(),
    "moses": Normalizer(language="en", moses=True, lowercase=True),
    "uncased": Normalizer(lowercase=True, strip_accents=True),
    "tag": Normalizer(tag="<2de>", lowercase=True),
}


def exported(tokenizer, *, has_masks=False):
    content = json.loads(json.dumps(describe_tokenizer(tokenizer, has_masks=has_masks)))
    with import_runner():
        return importlib.import_module(content["module"]).Tokenizer(content)


@pytest.mark.parametrize("kind", ["byte", "char", "word", "sentencepiece", "wordpiece"])
@pytest.mark.parametrize("normal", NORMALIZERS)
def test_tokenizers_encode_and_decode_as_those_of_the_project(kind, normal):
    tokenizer = train_tokenizer(kind, SENTENCES, 120, 1)
    tags = ["<2de>", "<2fr>"] if normal == "tag" else []
    tokenizer = tokenizer.with_tags(tags).with_normalizer(NORMALIZERS[normal])
    other = exported(tokenizer)
    for line in [*SEEN, *([f"<2fr> {SENTENCES[0]}"] if tags else [])]:
        ids = tokenizer.encode(line)
        assert other.encode(line) == ids
        assert other.decode(ids) == tokenizer.decode(ids)
        assert other.decode_after(ids[:3], ids[3:]) == tokenizer.decode_after(
            ids[:3], ids[3:]
        )


@pytest.mark.parametrize("kind", ["byte", "char", "word", "sentencepiece", "wordpiece"])
def test_masks_are_encoded_and_filled_as_by_the_project(kind):
    tokenizer = train_tokenizer(kind, SENTENCES, 120, 1).with_tags(MARKERS)
    other = exported(tokenizer, has_masks=True)
    for line in ("The <mask> fox", "<mask>jumps <mask> dog <mask>", "unaff<mask>"):
        parts = fill_mask.MASKS.split(line)
        for index, part in enumerate(parts):
            places = index > 0, index < len(parts) - 1
            expected = fill_mask.encode_part(tokenizer, part, *places)
            assert other.encode_part(part, *places) == expected
        for number in range(4, min(60, tokenizer.vocab_size - len(MARKERS))):
            chosen = [number] * (len(parts) - 1)
            filled = parts[0]
            for part in parts[1:]:
                filled = other.join(filled, number) + part
            assert filled == fill_mask.fill(tokenizer, parts, chosen)
