"""Rungs of `benchmarks.reproduce`: the runs of a corpus and how they are scored.

docs/results.md has the measured scores beside published ones.
"""

import dataclasses

ARCHITECTURES = ("rnn", "transformer", "transformer_xl")


@dataclasses.dataclass(frozen=True)
class Rung:
    """Runs of one corpus under one protocol.

    Attributes:
      takes: device and time of a run.
      config: name of the config file.
      models: models of the config, by the name of the run.
      folder: folder of the corpus below --corpora; empty if it needs no files.
      training: flags of train.py of all runs.
      scoring: flags of eval.py.
    """

    takes: str
    config: str
    models: dict[str, str] = dataclasses.field(
        default_factory=lambda: dict(zip(ARCHITECTURES, ARCHITECTURES, strict=True))
    )
    folder: str = ""
    training: tuple[str, ...] = ()
    scoring: tuple[str, ...] = ()


# Preprocessing of the published Multi30k figures.
AS_PUBLISHED = ("--config.data.moses_tokenize", "--config.data.lowercase")
BEAM = ("--decode.method=beam",)
MULTI30K = {"folder": "multi30k", "scoring": (*BEAM, "--decode.beam_size=5")}
FRENCH = "--config.data.name=multi30k/en-fr"
CPU_OR_GPU = "GPU, minutes; 2 CPU cores, hours"

RUNGS = {
    "cldr": Rung("CPU, minutes", "cldr"),
    "python_stdlib": Rung("CPU, an hour", "python_stdlib"),
    "multi30k": Rung(CPU_OR_GPU, "multi30k", training=AS_PUBLISHED, **MULTI30K),
    "multi30k_fr": Rung(
        CPU_OR_GPU, "multi30k", training=(*AS_PUBLISHED, FRENCH), **MULTI30K
    ),
    "ptb": Rung(
        "GPU, an hour",
        "ptb",
        {
            "awd_lstm": "awd_lstm",
            "awd_lstm_attention": "awd_lstm_attention",
            "transformer": "transformer",
            "transformer_xl": "transformer_xl_24m",
        },
        folder="ptb",
    ),
    "ptb_small": Rung("2 CPU cores, hours", "ptb", folder="ptb"),
    "ptb_char": Rung("GPU, an hour", "ptb_char", folder="ptb"),
    "wikitext2": Rung(
        "GPU, an hour",
        "wikitext2",
        {name: name for name in ("awd_lstm", "transformer", "transformer_xl")},
        folder="wikitext2",
    ),
    "novels": Rung("GPU, hours", "novels", folder="novels"),
    "novels_41m": Rung(
        "GPU, hours",
        "novels",
        {name: f"{name}_41m" for name in ARCHITECTURES},
        folder="novels",
    ),
    "pydocs": Rung(
        "GPU, an hour",
        "pydocs",
        {name: name for name in (*ARCHITECTURES, "transformer_xl_documents")},
        folder="pydocs_fr",
        scoring=BEAM,
    ),
}
