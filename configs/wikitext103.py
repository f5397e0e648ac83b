"""WikiText-103 by words (Merity et al. 2016): 103 million tokens, 267,735 types.

    python train.py --config=configs/wikitext103.py:standard --workdir=runs/wt103

`:standard` and `:large` are the Transformer-XL models of Dai et al. (2019, table 1),
published at perplexities 24.0 and 18.3, with the settings of the authors' scripts. The
large script gives 285M parameters, not the 257M of the table; see
tests/experiment/test_published_configs.py.

The ablations of table 6 were published for a 128M model whose sizes were not released;
here they use the sizes of `:standard` and segments of 128 tokens:

    :ablation                   Transformer-XL, full loss
    :ablation_half_loss         loss of the second half of each segment only
    :ablation_shaw              relative positions of Shaw et al. (2018)
    :ablation_no_recurrence     no memory
    :ablation_no_recurrence_shaw  no memory, relative positions of Shaw et al. (2018)
    :ablation_vaswani           no memory, half loss, sinusoidal positions
    :ablation_al_rfou           no memory, half loss, learned positions per layer

The relative positions of Shaw et al. are clipped at 128, the segment length.
"""

from ml_collections import ConfigDict

from configs import base
from configs.recipes.transformer_xl import set_published_adam, set_published_eval

CUTOFFS = (20_000, 40_000, 200_000)
STANDARD = {
    "layers": 16,
    "width": 410,
    "heads": 10,
    "feed_forward": 2100,
    "dropout": 0.1,
    "cutoffs": CUTOFFS,
}
LARGE = {
    "layers": 18,
    "width": 1024,
    "heads": 16,
    "feed_forward": 4096,
    "dropout": 0.2,
    "attention_dropout": 0.2,
    "cutoffs": CUTOFFS,
    "div_val": 4,
    "untie_biases": True,
    "memory_length": 384,
}
MODELS = {
    "rnn": {
        "cell": "lstm",
        "layers": 3,
        "width": 1024,
        "embedding_width": 410,
        "readout": "none",
        "attention_window": 0,
        "dropout": 0.1,
    },
    "transformer": {**STANDARD, "attention_dropout": 0.0},
    "transformer_xl": {**STANDARD, "memory_length": 150},
}

WITH_MEMORY, WITHOUT_MEMORY = {"memory_length": 128}, {"memory_length": 0}
SHAW = {"position_encoding": "shaw", "max_distance": 128}
ABLATIONS = {  # differences from the standard model, and the loss fraction
    "ablation": (WITH_MEMORY, 1.0),
    "ablation_half_loss": (WITH_MEMORY, 0.5),
    "ablation_shaw": ({**WITH_MEMORY, **SHAW}, 1.0),
    "ablation_no_recurrence": (WITHOUT_MEMORY, 1.0),
    "ablation_no_recurrence_shaw": ({**WITHOUT_MEMORY, **SHAW}, 1.0),
    "ablation_vaswani": ({**WITHOUT_MEMORY, "position_encoding": "sinusoidal"}, 0.5),
    "ablation_al_rfou": (
        {**WITHOUT_MEMORY, "position_encoding": "learned_per_layer"},
        0.5,
    ),
}
VARIANTS = ("standard", "large", *ABLATIONS)  # further names of models


def large() -> ConfigDict:
    """Returns the authors' wt103_large, with their TPU settings."""
    cfg = base.get_config("transformer_xl")
    cfg.model.update(LARGE)
    cfg.steps = 4_000_000
    cfg.data.batch_size = 128
    cfg.data.segment_length = 384
    set_published_eval(cfg, 128, memory_length=1600, clamp_length=1000)
    return cfg


def standard(model: str) -> ConfigDict:
    """Returns the authors' wt103_base, or another architecture of its size."""
    cfg = base.get_config(model)
    cfg.model.update(MODELS[model])
    cfg.steps = 200_000
    cfg.data.batch_size = 60
    cfg.data.segment_length = 150
    return cfg


def published() -> ConfigDict:
    """Returns the standard model with the published evaluation."""
    cfg = standard("transformer_xl")
    set_published_eval(cfg, 64, memory_length=640, clamp_length=400)
    return cfg


def ablation(name: str) -> ConfigDict:
    """Returns one of the ABLATIONS, a row of table 6."""
    cfg = standard("transformer_xl")
    changes, cfg.loss_fraction = ABLATIONS[name]
    cfg.model.update(changes)
    cfg.data.segment_length = 128
    return cfg


def get_config(model: str = "standard") -> ConfigDict:
    """Returns the experiment for one of the MODELS or VARIANTS."""
    if model in ABLATIONS:
        cfg = ablation(model)
    elif model in VARIANTS:
        cfg = large() if model == "large" else published()
    else:
        cfg = standard(model)
    cfg.task = "language_modeling"
    cfg.data.name = "wikitext103"
    cfg.data.tokenizer = "word"
    cfg.data.vocab_size = 267_739  # 267,735 words and the special tokens
    set_published_adam(cfg, warmup=16_000 if model == "large" else 0)
    cfg.every.eval = 4000
    cfg.every.checkpoint = 4000
    return cfg
