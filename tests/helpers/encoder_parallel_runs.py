"""Steps of encoders' tasks on other devices: a program of 8 virtual ones.

    python tests/helpers/encoder_parallel_runs.py fast|all

It prints one JSON object: for each task and layout, the largest differences from one
device. Batches are those of training, whose rows the devices do not divide.
"""

import dataclasses
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[0] = str(ROOT)
sys.path.append(str(ROOT / "tests"))

import numpy as np  # noqa: E402

from configs import base  # noqa: E402
from data.tokenizers.symbols import WordTokenizer  # noqa: E402
from data.understanding.batches import LabeledBatches  # noqa: E402
from data.understanding.documents import Documents  # noqa: E402
from data.understanding.labels import Labels  # noqa: E402
from data.understanding.markers import MARKERS  # noqa: E402
from data.understanding.masking import MaskedBatches, MaskingOptions  # noqa: E402
from data.understanding.tagged import TaggedBatches, TaggedTexts  # noqa: E402
from experiment import build  # noqa: E402
from helpers import (  # noqa: E402
    parallel_runs,  # sets float64 and 8 virtual devices, before the first is used
)
from helpers.labeled_runs import FILLERS  # noqa: E402
from helpers.tagged_runs import CITIES, PEOPLE, tagged_sentences  # noqa: E402
from training.optim.optimizers import make_optimizer  # noqa: E402
from training.parallel.partitioner import make_partitioner  # noqa: E402

ROWS, STEPS, MICROBATCHES = 10, 3, 3
ONE, MESH, PMAP = "one device", "data=2 x fsdp=2 x tensor=2", "pmap=8"
ACCUMULATED = f"{MICROBATCHES} microbatches"
WORDS = ("<pad>", "<eos>", "<unk>", "<bos>", *FILLERS, "new", *CITIES, *PEOPLE)
TOKENIZER = WordTokenizer(WORDS).with_tags(MARKERS)


class EncoderCase(parallel_runs.Case):
    """An experiment of an encoder on any layout of devices."""

    def __init__(self, model, task, tokenizers, batches, **changes):
        cfg = self.cfg = base.get_config(model)
        sizes = parallel_runs.SIZES | {"dtype": "float64"}
        cfg.model.update({k: v for k, v in sizes.items() if k in cfg.model})
        cfg.task, cfg.data.max_length, cfg.data.segment_length = task, 16, 16
        cfg.data.update(text_column="text", label_column="label", tag_column="tags")
        cfg.optim.update(name="sgd", lr=0.1)
        cfg.update_from_flattened_dict(changes)
        tokenizers = {"text": TOKENIZER, **tokenizers}
        self.experiment = build.build_experiment(cfg, tokenizers)
        self.batches, self.optimizer = batches, make_optimizer(cfg.optim, 40)
        self.steps, self.places = {}, {}
        self.state = self.random_state(self.training(ONE))

    def training(self, layout):
        if layout != ACCUMULATED:
            return super().training(layout)
        training, cfg = super().training(ONE), self.cfg.copy_and_resolve_references()
        cfg.grad_accum_steps = MICROBATCHES
        devices = list(training.partitioner.mesh.devices.flat)
        return dataclasses.replace(
            training,
            experiment=dataclasses.replace(self.experiment, cfg=cfg),
            partitioner=make_partitioner(
                cfg.parallel, num_microbatches=MICROBATCHES, devices=devices
            ),
        )

    def compared(self, *layouts):
        """Returns the differences of each layout from one device, by quantity."""
        one = self.run(ONE, STEPS)
        assert len(set(one["loss"])) == STEPS
        return {
            layout: parallel_runs.differences(self.run(layout, STEPS), one)
            for layout in layouts
        }


def tagging():
    """Tags by a conditional random field, with intents, one of them unknown."""
    sentences = tagged_sentences(25, 0)
    tags = Labels(["B-CITY", "B-PERSON", "I-CITY", "O"], [1, 1, 1, 1])
    labels = [tags.numbers(names) for _, names in sentences]
    intents = np.arange(len(sentences), dtype=np.int32) % 3 - 1
    texts = TaggedTexts(sentences, TOKENIZER, 16)
    batches = TaggedBatches(texts, labels, intents, ROWS, 1, 0)
    tokenizers = {"tag": tags, "label": Labels("fg", [1, 1])}
    changes = {"head.crf": True}
    return EncoderCase("transformer", "tagging", tokenizers, batches, **changes)


def classification():
    """Classes of unequal weights, 1/2 and 2, whose sums are exact in float32."""
    sentences = tagged_sentences(25, 1)
    labels = Labels("xyz", [16, 4, 4])
    numbers = np.arange(len(sentences), dtype=np.int32) % 4 - 1
    texts = TaggedTexts(sentences, TOKENIZER, 16)
    batches = LabeledBatches(texts, numbers, ROWS, 1, 0)
    changes = {"head.pooling": "attention", "head.class_weights": "balanced"}
    names = {"label": labels}
    return EncoderCase("rnn", "classification", names, batches, **changes)


def masked_documents():
    """Masked tokens of documents in order, with a memory."""
    random = np.random.default_rng(2)
    lengths = random.integers(2, 9, 80)
    sentences = np.concatenate([[0], np.cumsum(lengths)])
    documents = np.arange(0, 81, 4)
    tokens = random.integers(4, len(WORDS), sentences[-1]).astype(np.uint16)
    batches = MaskedBatches(
        Documents(tokens, sentences, documents),
        TOKENIZER,
        MaskingOptions(probability=0.3),
        batch_size=ROWS,
        max_length=16,
        document_order=True,
        seed=0,
    )
    changes = {"data.document_order": True, "mlm.probability": 0.3}
    task = "masked_language_modeling"
    return EncoderCase("transformer_xl", task, {}, batches, **changes)


FAST = {
    tagging: (MESH,),
    classification: (PMAP,),
    masked_documents: (ACCUMULATED,),
}
ALL = {
    tagging: (MESH, ACCUMULATED),
    classification: (PMAP,),
    masked_documents: (PMAP, ACCUMULATED),
}


def main(which):
    cases = {"fast": FAST, "all": ALL}[which]
    found = {make.__name__: make().compared(*few) for make, few in cases.items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
