"""Exports a trained run as one file: tokenizers, weights, search, scores, model card.

python -m analysis.export --workdir=runs/rnn --output=model.zip
python model.zip --verify
python model.zip translate < source.txt > output.txt

The file needs jax, flatbuffers, numpy and the tokenizer's package, and nothing of this
project; docs/sharing.md describes it. Its examples are lines of --inputs, or sources of
the run's samples, or texts of the validation split.

With --format=safetensors it writes a folder of weights, config and vocabularies alone,
which `init_from` and the other programs of this project read.
"""

from pathlib import Path

from absl import flags

from utils import cli

WORKDIR = flags.DEFINE_string("workdir", None, "Run directory.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "File to write.", required=True)
CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "best", "best, last, a step, or average:N."
)
FORMAT = flags.DEFINE_enum(
    "format", "bundle", ("bundle", "safetensors"), "One file, or a folder of weights."
)
INPUTS = flags.DEFINE_string("inputs", None, "File with a line for each example.")
LICENSE = flags.DEFINE_string("license", "", "Licence of the weights.")
INTENDED_USE = flags.DEFINE_string("intended_use", "", "A sentence of the model card.")
DATA = flags.DEFINE_string("data", "", "A sentence on the data, for the model card.")


def main() -> None:
    """Writes the file and prints its parts with their sizes."""
    path = Path(OUTPUT.value).expanduser()
    if path.exists():
        cli.fail(f"--output={path} exists; choose another file")
    if not path.parent.is_dir():
        cli.fail(f"--output={path}: there is no folder {path.parent}")
    from analysis import export
    from analysis.export.examples import add_outputs, example_inputs
    from experiment.restore import open_run

    if FORMAT.value == "safetensors":
        from analysis.export.weights import export_weights

        size = export_weights(open_run(WORKDIR.value, CHECKPOINT.value), path)
        print(f"{size:>12,} {path}")
        return
    export.check_requirements()
    run = open_run(WORKDIR.value, CHECKPOINT.value)
    facts = {
        "license": LICENSE.value,
        "intended_use": INTENDED_USE.value,
        "data": DATA.value,
    }
    inputs = example_inputs(run, INPUTS.value, export.NUM_EXAMPLES)
    files = export.export_run(run, inputs, facts)
    content = add_outputs(files)
    draft = path.with_name(path.name + ".draft")
    draft.write_bytes(content)
    draft.replace(path)
    for name, part in sorted(files.items()):
        print(f"{len(part):>12,} {name}")
    print(f"{len(content):>12,} {path}")


if __name__ == "__main__":
    cli.run_main(main)
