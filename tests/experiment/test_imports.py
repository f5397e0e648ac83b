"""Training imports heavy libraries where they are used, and not before."""

import os
import subprocess
import sys

from conftest import ROOT

# Each takes from a tenth of a second to several seconds; most runs need none of them
# before their first step.
HEAVY = (
    *("tensorboardX", "grpc", "google.auth", "opentelemetry", "requests", "pooch"),
    *("sacremoses", "sacrebleu", "nltk", "rouge_score", "seqeval", "sklearn", "scipy"),
    *("tensorflow", "tensorflow_datasets", "torch", "matplotlib", "pandas", "optuna"),
)
PROGRAM = """
import pkgutil, sys
import train, experiment.train
from data.dataset import DATASETS
from models.registry import ARCHITECTURES
from tasks.base import TASKS

classes = [name for names in ARCHITECTURES.values() for name in names.values()]
for name in [*DATASETS.values(), *TASKS.values(), *classes]:
    pkgutil.resolve_name(name)
print(*(name for name in sys.argv[1:] if name in sys.modules))
"""


def test_what_training_needs_loads_no_heavy_library():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *HEAVY],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == []
