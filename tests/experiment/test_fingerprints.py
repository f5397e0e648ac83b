"""Files that are no fingerprints; those of a run are tested in test_observe.py."""

import pytest

from training.observe.fingerprint import read_fingerprints
from utils.errors import UserError


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "fingerprints.jsonl"
    for text in ("", "text\n", '{"step": 1, "split": "train"}\n'):
        path.write_text(text)
        with pytest.raises(UserError, match="has no fingerprints"):
            read_fingerprints(path)
