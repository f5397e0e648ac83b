"""Creates a run directory from published BERT weights.

python -m analysis.import_bert --from=bert-base-uncased --workdir=runs/bert

The folder is one of Hugging Face, with config.json, model.safetensors and vocab.txt.
predict.py then fills masks with the run, and eval.py scores it on the corpus
--data.name. `train.py --pretrained=runs/bert` fine-tunes it.
"""

import shlex
from pathlib import Path

from absl import flags

from configs import base
from utils import cli, cli_inputs
from utils.paths import DATA_PLACES

DEFAULTS = base.get_config("transformer")
FROM = flags.DEFINE_string("from", None, "Folder of Hugging Face.", required=True)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Run directory to create.", required=True
)
LOWERCASE = flags.DEFINE_bool(
    "lowercase",
    None,
    "Lower-case text and strip accents; by default as tokenizer_config.json says.",
)
DATA = cli_inputs.config_section("data", DEFAULTS.data, ("name", *DATA_PLACES))


def main() -> None:
    """Converts the weights and prints the model's size and the run directory."""
    from analysis.import_bert import vocabulary
    from analysis.import_bert.convert import convert
    from analysis.imported_run import check_is_new, write_run
    from analysis.weight_files import read_weights

    check_is_new(WORKDIR.value)
    folder = Path(FROM.value).expanduser()
    vocabulary.check_folder(folder)
    words = vocabulary.read_words(folder / vocabulary.VOCABULARY)
    lowercase = vocabulary.read_lowercase(folder, LOWERCASE.value)
    weights = read_weights(folder / vocabulary.WEIGHTS)
    model, params = convert(weights, vocabulary.read_json(folder / vocabulary.CONFIG))
    tokenizer = vocabulary.make_tokenizer(words, lowercase=lowercase)
    params = vocabulary.reorder(params, words, tokenizer)
    cfg = make_config(model, tokenizer.vocab_size, lowercase, "next_head" in params)
    cfg.data.update(cli.overrides(DATA))
    origin = {"from": str(folder), "lowercase": lowercase}
    about = write_run(WORKDIR.value, cfg, params, tokenizer, origin)
    print(f"{about['parameters']:,} parameters, {tokenizer.vocab_size:,} pieces")
    print(WORKDIR.value)
    print("\nTo fine-tune it, for example:")
    print(
        "python train.py --config=configs/classification/labeled_text.py:transformer "
        f"--pretrained={shlex.quote(WORKDIR.value)} --workdir=DIR "
        "--config.data.source_dir=FOLDER --config.optim.lr=3e-5"
    )


def make_config(model: dict, vocab_size: int, lowercase: bool, next_sentence: bool):
    """Returns the config of an imported run of masked language modeling."""
    cfg = base.get_config("transformer")
    cfg.task = "masked_language_modeling"
    cfg.model.update(model)
    cfg.mlm.next_sentence = next_sentence
    cfg.data.update(
        tokenizer="wordpiece",
        vocab_size=vocab_size,
        lowercase=lowercase,
        max_length=model["max_positions"],
    )
    return cfg


if __name__ == "__main__":
    cli.run_main(main)
