"""Makes a run directory of published Transformer-XL weights.

python -m analysis.import_transformer_xl --from=model.safetensors --vocab=vocab.txt \\
    --memory_length=640 --clamp_length=400 --same_length --workdir=runs/published

predict.py then continues texts with it; eval.py scores it on --data_name, which is
encoded with its vocabulary at once.
"""

from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from configs import base
from utils import cli
from utils.errors import UserError

DEFAULTS = base.get_config("transformer_xl")
FROM = flags.DEFINE_string(
    "from", None, "Weights: .safetensors, .npz, or a torch state dict.", required=True
)
VOCAB = flags.DEFINE_string(
    "vocab", None, "Words, one a line in the order of their numbers.", required=True
)
WORKDIR = flags.DEFINE_string("workdir", None, "Run directory to make.", required=True)
END = flags.DEFINE_string("end", "<eos>", "The word that ends a line.")
UNKNOWN = flags.DEFINE_string("unknown", "<unk>", "The word for those not known.")
TOKENIZER = flags.DEFINE_enum(
    "tokenizer", "word", ("word", "char"), "What the words of --vocab are."
)
CUTOFFS = flags.DEFINE_list(
    "cutoffs", [], "First words of the tail clusters; only where div_val is 1."
)
TAIL_COLUMNS = flags.DEFINE_enum(
    "tail_columns",
    "tensorflow",
    ("tensorflow", "pytorch"),
    "Whose criterion the weights were trained with, where tail clusters are two or "
    "more: Hugging Face's and the published ones tensorflow, others' pytorch.",
)
MODEL = (
    flags.DEFINE_enum("norm", "post", ("post", "pre"), "Where layers normalise."),
    flags.DEFINE_integer(
        "memory_length", DEFAULTS.model.memory_length, "Remembered tokens a layer."
    ),
    flags.DEFINE_integer("clamp_length", 0, "Farther is as far; 0: never."),
    flags.DEFINE_bool("same_length", False, "Each query sees as many keys."),
    flags.DEFINE_bool(
        "attend_empty_memory", False, "Begin with zeros that are seen, as HF does."
    ),
)
DATA = {
    "name": flags.DEFINE_string("data_name", None, "Corpus that eval.py scores."),
    "dir": flags.DEFINE_string("data_dir", DEFAULTS.data.dir, "Prepared corpora."),
    "source_dir": flags.DEFINE_string("data_source_dir", None, "The corpus's files."),
}


def main() -> None:
    """Prints what the model is, and where."""
    from analysis.import_transformer_xl import (
        imported_run,
        imported_vocabulary,
        weight_files,
    )
    from analysis.import_transformer_xl.transformer_xl_weights import convert

    imported_run.check_new(WORKDIR.value)
    options = {flag.name: flag.value for flag in MODEL}
    options |= {"tail_columns": TAIL_COLUMNS.value, "cutoffs": numbers(CUTOFFS.value)}
    words = imported_vocabulary.read_words(Path(VOCAB.value))
    model, params = convert(weight_files.read_weights(Path(FROM.value)), **options)
    model, params, words = imported_vocabulary.special_first(
        model, params, words, end=END.value, unknown=UNKNOWN.value
    )
    origin = {"from": FROM.value, **options}
    cfg = make_config(model, len(words))
    about = imported_run.write_run(WORKDIR.value, cfg, params, words, origin)
    print(f"{about['parameters']:,} parameters, {len(words):,} words")
    print(WORKDIR.value)


def numbers(texts: list[str]) -> tuple[int, ...]:
    """Of --cutoffs. Raises UserError for what is none."""
    try:
        return tuple(map(int, texts))
    except ValueError as error:
        raise UserError(f"--cutoffs={','.join(texts)}: numbers are needed") from error


def make_config(model: dict, vocab_size: int) -> ConfigDict:
    """An experiment that could have trained such weights."""
    cfg = base.get_config("transformer_xl")
    cfg.task = "language_modeling"
    cfg.model.update(model)
    for key, flag in DATA.items():
        cfg.data[key] = flag.value
    cfg.data.tokenizer = TOKENIZER.value
    cfg.data.vocab_size = vocab_size
    return cfg


if __name__ == "__main__":
    cli.run_main(main)
