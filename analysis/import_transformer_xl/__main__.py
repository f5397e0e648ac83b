"""Creates a run directory from published Transformer-XL weights.

python -m analysis.import_transformer_xl --from=model.safetensors --vocab=vocab.txt \\
    --memory_length=640 --clamp_length=400 --same_length --workdir=runs/published

predict.py then continues texts with it; eval.py scores it on the corpus --data.name,
which is tokenized with its vocabulary.
"""

from pathlib import Path

from absl import flags

from configs import base
from utils import cli, cli_inputs
from utils.errors import UserError
from utils.paths import DATA_PLACES

DEFAULTS = base.get_config("transformer_xl")
FROM = flags.DEFINE_string(
    "from", None, "Weights: .safetensors, .npz, or a torch state dict.", required=True
)
VOCAB = flags.DEFINE_string(
    "vocab",
    None,
    "Vocabulary: one word a line, in the order of token ids.",
    required=True,
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Run directory to create.", required=True
)
END = flags.DEFINE_string("end", "<eos>", "The word that ends a line.")
UNKNOWN = flags.DEFINE_string("unknown", "<unk>", "The word for unknown words.")
TOKENIZER = flags.DEFINE_enum("tokenizer", "word", ("word", "char"), "Unit of --vocab.")
CUTOFFS = flags.DEFINE_list(
    "cutoffs", [], "First words of the tail clusters; only where div_val is 1."
)
TAIL_COLUMNS = flags.DEFINE_enum(
    "tail_columns",
    "tensorflow",
    ("tensorflow", "pytorch"),
    "Code that trained weights with two or more tail clusters: tensorflow for the "
    "published ones and Hugging Face's, pytorch for others.",
)
MODEL = (
    flags.DEFINE_enum("norm", "post", ("post", "pre"), "Where layers normalise."),
    flags.DEFINE_integer(
        "memory_length", DEFAULTS.model.memory_length, "Memory length in tokens."
    ),
    flags.DEFINE_integer(
        "clamp_length", 0, "Maximum relative position; 0: no maximum."
    ),
    flags.DEFINE_bool("same_length", False, "All queries attend to as many keys."),
    flags.DEFINE_bool(
        "attend_empty_memory",
        False,
        "Attend to the empty memory, as Hugging Face does.",
    ),
)
DATA = cli_inputs.config_section("data", DEFAULTS.data, ("name", *DATA_PLACES))


def main() -> None:
    """Converts the weights and prints the model's size and the run directory."""
    from analysis.import_transformer_xl.convert import convert
    from analysis.import_transformer_xl.vocabulary import read_words, special_first
    from analysis.imported_run import check_is_new, write_run
    from analysis.weight_files import read_weights
    from data.tokenizers.build import tokenizer_class

    check_is_new(WORKDIR.value)
    options = {flag.name: flag.value for flag in MODEL}
    options["tail_columns"] = TAIL_COLUMNS.value
    try:
        options["cutoffs"] = tuple(map(int, CUTOFFS.value))
    except ValueError as error:
        cutoffs = ",".join(CUTOFFS.value)
        raise UserError(f"--cutoffs={cutoffs} must be integers") from error
    words = read_words(Path(VOCAB.value))
    model, params = convert(read_weights(Path(FROM.value)), **options)
    model, params, words = special_first(
        model, params, words, end=END.value, unknown=UNKNOWN.value
    )
    cfg = base.get_config("transformer_xl")
    cfg.task = "language_modeling"
    cfg.model.update(model)
    cfg.data.update(cli.overrides(DATA))
    cfg.data.update(tokenizer=TOKENIZER.value, vocab_size=len(words))
    origin = {"from": FROM.value, **options}
    tokenizer = tokenizer_class(TOKENIZER.value)(words)
    about = write_run(WORKDIR.value, cfg, params, tokenizer, origin)
    print(f"{about['parameters']:,} parameters, {len(words):,} words")
    print(WORKDIR.value)


if __name__ == "__main__":
    cli.run_main(main)
