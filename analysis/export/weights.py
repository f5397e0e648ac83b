"""Export of the weights of a run alone, as a folder that `init_from` reads.

    model.safetensors    parameters in float32
    config.json          the run's config
    about.json           the run's data, with the digest of the parameters
    tokenizer/           vocabularies

It is a run directory without checkpoints, so predict.py and eval.py read it too.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict

from analysis.export.programs import SEPARATOR
from experiment.restore import WEIGHTS, TrainedRun
from training.run_dir import RunDirectory
from utils.safetensors import dump_safetensors


def export_weights(run: TrainedRun, folder: Path) -> int:
    """Writes a new folder; returns the size of the parameters in bytes."""
    directory = RunDirectory(folder)
    directory.path.mkdir(parents=True)
    params = flatten_dict(run.variables["params"], sep=SEPARATOR)
    content = dump_safetensors({k: np.asarray(leaf) for k, leaf in params.items()})
    (directory.path / WEIGHTS).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    about = run.directory.read_json("about.json")
    about["exported"] = {"sha256": digest, "steps": list(run.steps)}
    directory.write_tokenizers(run.directory.read_tokenizers())
    directory.write_places(run.experiment.cfg.data)
    directory.write_json("about.json", about)
    # Written last, because it marks the directory as a run.
    config = json.loads(run.experiment.cfg.to_json_best_effort())
    directory.write_json("config.json", config)
    return len(content)
