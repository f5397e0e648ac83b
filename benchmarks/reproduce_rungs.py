"""Rungs of `benchmarks.reproduce`: runs, how they are scored, and their goals.

A goal is a published figure or a target of ours; docs/results.md has the measured
scores.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Entry:
    """One run of a rung.

    Attributes:
      name: name of its run directory.
      config: FILE:MODEL.
      goal: goal as text; empty if there is none.
    """

    name: str
    config: str
    goal: str = ""


@dataclasses.dataclass(frozen=True)
class Rung:
    """Runs of one corpus under one protocol.

    Attributes:
      takes: device and time of a run.
      entries: runs of the rung.
      folder: folder of the corpus below --corpora; empty if it needs no files.
      training: flags of train.py of all runs.
      scoring: flags of eval.py.
    """

    takes: str
    entries: tuple[Entry, ...]
    folder: str = ""
    training: tuple[str, ...] = ()
    scoring: tuple[str, ...] = ()


def architectures(config: str, **goals: str) -> tuple[Entry, ...]:
    """Returns an entry for each of the three architectures."""
    return tuple(
        Entry(name, f"configs/{config}.py:{name}", goals.get(name, ""))
        for name in ("rnn", "transformer", "transformer_xl")
    )


# Preprocessing of the published Multi30k figures.
AS_PUBLISHED = ("--config.data.moses_tokenize", "--config.data.lowercase")
BEAM_OF_5 = ("--decode.method=beam", "--decode.beam_size=5")

RUNGS = {
    "cldr": Rung("CPU, minutes", architectures("cldr")),
    "python_stdlib": Rung("CPU, an hour", architectures("python_stdlib")),
    "multi30k": Rung(
        "GPU, minutes; 2 CPU cores, hours",
        architectures(
            "multi30k",
            rnn="BLEU, Moses, lower case, 37.33 (nmtpy)",
            transformer="the same, 41.02 (Revisit-MMT)",
        ),
        folder="multi30k",
        training=AS_PUBLISHED,
        scoring=BEAM_OF_5,
    ),
    "multi30k_fr": Rung(
        "GPU, minutes; 2 CPU cores, hours",
        architectures("multi30k"),
        folder="multi30k",
        training=(*AS_PUBLISHED, "--config.data.name=multi30k/en-fr"),
        scoring=BEAM_OF_5,
    ),
    "ptb": Rung(
        "GPU, an hour",
        (
            Entry("awd_lstm", "configs/ptb.py:awd_lstm", "perplexity 58.8"),
            Entry("awd_lstm_attention", "configs/ptb.py:awd_lstm_attention"),
            Entry("transformer", "configs/ptb.py:transformer"),
            Entry("transformer_xl", "configs/ptb.py:transformer_xl_24m", "54.5"),
        ),
        folder="ptb",
    ),
    "ptb_small": Rung("2 CPU cores, hours", architectures("ptb"), folder="ptb"),
    "ptb_char": Rung(
        "GPU, an hour",
        architectures("ptb_char", rnn="bits a character 1.175 (AWD-LSTM)"),
        folder="ptb",
    ),
    "wikitext2": Rung(
        "GPU, an hour",
        (
            Entry("awd_lstm", "configs/wikitext2.py:awd_lstm", "perplexity 65.6"),
            Entry("transformer", "configs/wikitext2.py:transformer"),
            Entry(
                "transformer_xl",
                "configs/wikitext2.py:transformer_xl",
                "below the LSTM's",
            ),
        ),
        folder="wikitext2",
    ),
    "novels": Rung("GPU, hours", architectures("novels"), folder="novels"),
    "novels_41m": Rung(
        "GPU, hours",
        tuple(
            Entry(name, f"configs/novels.py:{name}_41m")
            for name in ("rnn", "transformer", "transformer_xl")
        ),
        folder="novels",
    ),
    "pydocs": Rung(
        "GPU, an hour",
        (
            *architectures("pydocs"),
            Entry(
                "transformer_xl_documents",
                "configs/pydocs.py:transformer_xl_documents",
                "BLEU above that without memory",
            ),
        ),
        folder="pydocs_fr",
        scoring=("--decode.method=beam",),
    ),
}
