"""WMT14 translation from English to French and German (Bojar et al. 2014).

    python train.py --config=configs/wmt14.py:rnnsearch50 --workdir=runs/rnnsearch50
    python train.py --config=configs/wmt14.py:base --workdir=runs/base

`:rnnsearch50` is RNNsearch-50 of Bahdanau et al. (2015, sections 3 and 4, appendices A
and B), English to French: a bidirectional GRU of 1000 units per direction, embeddings
of 620, an alignment network of 1000, maxout of 500 over the previous state, 30,000
words per language, Adadelta, no dropout. Published with beam search: BLEU 26.75 on
newstest2014, 34.16 without unknown words. Deviations:

- A batch has as many tokens as 80 pairs of 50 words, of similar length, not 80 pairs.
- The loss, whose gradient is clipped at norm 1, is a mean over words, not sentences.
- The decoder's gates and the output layers have a bias, as in the authors' code.

`:base` and `:big` are the Transformers of Vaswani et al. (2017, table 3), English to
German, published at BLEU 27.3 and 28.4 (beam 4, length penalty 0.6, average of the last
5 or 20 checkpoints). Deviation: a batch has 25,000 tokens of the longer side, padding
included.
"""

from ml_collections import ConfigDict

from configs import base

BASE = {"layers": 6, "width": 512, "heads": 8, "feed_forward": 2048}
BIG = {"layers": 6, "width": 1024, "heads": 16, "feed_forward": 4096, "dropout": 0.3}
TRANSFORMERS = {"base": (BASE, 100_000), "big": (BIG, 300_000)}  # sizes, steps
RNNSEARCH = {  # Bahdanau et al. (2015), appendices A.2 and B
    "cell": "gru_reset_before",
    "layers": 1,
    "width": 1000,
    "embedding_width": 620,
    "score": "additive",
    "attention_width": 1000,
    "readout": "maxout",
    "maxout_width": 500,
    "initialization": "published",
    "tie_embeddings": False,
    "dropout": 0.0,
}
VARIANTS = ("rnnsearch50", *TRANSFORMERS)  # further names of models


def rnnsearch50() -> ConfigDict:
    """Returns RNNsearch-50 as it was published."""
    cfg = base.get_config("rnn")
    cfg.model.update(RNNSEARCH)
    cfg.steps = 288_000  # table 2
    cfg.data.tokenizer = "word"
    cfg.data.vocab_size = 30_004  # 30,000 words and the four special tokens
    cfg.data.joint_vocab = False
    cfg.data.max_length = 51  # 50 words and <eos>
    cfg.data.tokens_per_batch = 80 * 51  # as 80 pairs of the largest length
    cfg.decode.max_source_length = 256  # table 1 has test sentences of any length
    cfg.optim.update({"name": "adadelta", "lr": 1.0, "schedule": "constant"})
    cfg.optim.update({"rho": 0.95, "eps": 1e-6, "clip_norm": 1.0})
    return cfg


def transformer(sizes: dict, steps: int) -> ConfigDict:
    """Returns a Transformer of table 3, trained as in section 5."""
    cfg = base.get_config("transformer")
    cfg.model.update(sizes)
    cfg.steps = steps
    cfg.label_smoothing = 0.1
    cfg.data.name = "wmt14/en-de"
    cfg.data.vocab_size = 37_000
    cfg.data.tokens_per_batch = 25_000
    cfg.optim.name = "adam"
    cfg.optim.lr = (cfg.model.width * 4000) ** -0.5  # maximum of eq. 3
    cfg.optim.schedule = "rsqrt"
    cfg.optim.warmup = 4000
    cfg.optim.clip_norm = 0.0
    return cfg


def get_config(model: str = "rnnsearch50") -> ConfigDict:
    """Returns the experiment for one of the VARIANTS, or for an architecture."""
    if model == "rnnsearch50":
        cfg = rnnsearch50()
    elif model in TRANSFORMERS:
        cfg = transformer(*TRANSFORMERS[model])
    else:
        cfg = base.get_config(model)
    cfg.task = "translation"
    if cfg.data.name is None:
        cfg.data.name = "wmt14/en-fr"
    cfg.every.eval = 5000
    cfg.every.checkpoint = 5000
    return cfg
