"""Export of a trained run as one file that runs without this project.

    README.md            the model card
    run.py               the runner; also __main__.py, and the modules of bundled/ that
                         the model needs
    about.json           kind of model, its programs and limits
    tokenizers.json      vocabularies and normalisation
    weights.safetensors  parameters in float32
    programs/*.bin       searches or predictions, as `jax.export` serialises them
    score_cards.json     the run's score cards
    config.json          the run's config
    examples.json        inputs with their outputs

The file is a zip archive whose comment is the SHA-256 digest of all bytes before it.
"""

import numpy as np
from flax.traverse_util import flatten_dict

from analysis.export.archive import RUNNER
from analysis.export.description import (
    describe_run,
    describe_tokenizers,
    runner_modules,
)
from analysis.export.model_card import make_model_card
from analysis.export.programs import SEPARATOR, export_program, make_programs
from experiment.restore import TrainedRun
from utils import strict_json
from utils.errors import UserError
from utils.safetensors import dump_safetensors

MAIN = "import run\n\nrun.run()\n"  # of `python model.zip`
NUM_EXAMPLES = 32


def check_requirements() -> None:
    """Raises UserError where programs cannot be serialised."""
    try:
        import flatbuffers  # noqa: F401
    except ImportError as error:
        raise UserError(
            "exporting programs needs the package flatbuffers, which is not "
            "installed; run `pip install -r requirements/export.txt`"
        ) from error


def export_run(
    run: TrainedRun, inputs: list[str], facts: dict[str, str]
) -> dict[str, bytes]:
    """Returns the files of an exported run, without examples' outputs.

    Args:
      inputs: lines of the examples.
      facts: licence, intended use and data of the model card, by name.
    """
    params = {
        name: np.asarray(leaf)
        for name, leaf in flatten_dict(run.variables["params"], sep=SEPARATOR).items()
    }
    about, tokenizers, files = describe_run(run), describe_tokenizers(run), {}
    for spec in make_programs(run):
        known = about["programs"].setdefault(
            spec.name, {"input": spec.batch_input, "lengths": []}
        )
        stem = spec.name
        if spec.length is not None:
            known["lengths"].append(spec.length)
            stem = f"{spec.name}-{spec.length}"
        files[f"programs/{stem}.bin"] = export_program(spec, params)
    cards = {
        path.stem: run.directory.read_json(f"eval/{path.name}")
        for path in sorted((run.directory.path / "eval").glob("*.json"))
    }
    texts = {
        "README.md": make_model_card(run, about, cards, facts),
        "about.json": _json(about),
        "tokenizers.json": _json(tokenizers),
        "score_cards.json": _json(cards),
        "config.json": run.experiment.cfg.to_json_best_effort(indent=2),
        "examples.json": _json({"inputs": inputs, "outputs": {}}),
        "__main__.py": MAIN,
    }
    for name in runner_modules(about, tokenizers):
        path = RUNNER / f"{name}.py"
        texts[path.name] = path.read_text(encoding="utf8")
    files |= {name: text.encode() for name, text in texts.items()}
    return {**files, "weights.safetensors": dump_safetensors(params)}


def _json(content: dict) -> str:
    return strict_json.dumps(content, indent=1, ensure_ascii=False) + "\n"
