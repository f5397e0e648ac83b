r"""Python's documentation in English and French, 21,419 paragraphs in document order.

    python train.py --config=configs/pydocs.py:transformer_xl --workdir=runs/pydocs \
        --config.data.source_dir=DIR

`:transformer_xl_documents` reads documents in order, with a memory of the previous
paragraphs. DIR has {train,valid,test}.{en,fr,doc,pos}, plain or .gz. The other
direction is --config.data.name=pydocs/fr-en.
"""

from ml_collections import ConfigDict

from configs import base

STACK = {
    "layers": 4,
    "width": 256,
    "heads": 8,
    "feed_forward": 1024,
    "norm": "pre",
    "dropout": 0.3,
    "attention_dropout": 0.0,
}

MODELS = {
    "rnn": {
        "width": 384,
        "embedding_width": 256,
        "attention_width": 256,
        "dropout": 0.3,
    },
    "transformer": STACK,
    "transformer_xl": {**STACK, "memory_length": 0},  # each paragraph by itself
}
VARIANTS = ("transformer_xl_documents",)  # further names of models


def get_config(model: str = "transformer_xl") -> ConfigDict:
    """Returns the experiment for one of the MODELS or VARIANTS."""
    in_order = model in VARIANTS
    model = model.removesuffix("_documents")
    cfg = base.get_config(model)
    cfg.model.update(MODELS[model])
    if in_order:
        cfg.model.memory_length = 128  # tokens of previous paragraphs
        cfg.data.document_order = True
        cfg.data.batch_size = 32
        cfg.eval.batch_size = 16
    cfg.steps = 20_000
    cfg.label_smoothing = 0.1
    cfg.data.name = "pydocs/en-fr"
    cfg.data.vocab_size = 8000
    cfg.data.tokens_per_batch = 8192
    cfg.data.max_length = 256  # paragraphs are longer than sentences
    cfg.optim.lr = 1e-3 if model == "rnn" else 2e-3
    cfg.optim.schedule = "rsqrt"
    cfg.optim.warmup = 2000
    cfg.decode.max_length = 256
    return cfg
