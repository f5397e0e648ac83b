"""Tables with columns: written as files, prepared through TFDS, and read back."""

import gzip
from pathlib import Path

import pytest
from etils import epath

from data import registry
from data.prepare import prepare
from utils.errors import UserError


def write(path, content):
    """Writes lines or bytes, packed by the name's suffix."""
    if not isinstance(content, bytes):
        content = "".join(f"{line}\n" for line in content).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def prepare_table(name, data_dir, source=None):
    """Returns the TFDS builder of a prepared corpus of this project."""
    own, _, config = name.partition("/")
    cls = registry.builder_class(own)
    if hasattr(cls, "find_config"):
        config = cls.find_config(config, epath.Path(data_dir), source)
    options = {"data_dir": data_dir, "file_format": "array_record"}
    builder = cls(**options, config=config or None)
    if not builder.is_prepared():
        prepare(builder, source)
    return builder


def decode(value):
    return value.decode() if isinstance(value, bytes) else [v.decode() for v in value]


def rows(builder, split):
    """Returns the examples of a split, with texts as str and sequences as lists."""
    examples = builder.as_data_source(split)
    return [{name: decode(example[name]) for name in example} for example in examples]


def refusal(name, data_dir, source=None):
    """Returns the one-line message of the error that preparing a corpus raises."""
    with pytest.raises(UserError) as caught:
        prepare_table(name, data_dir, source)
    message = str(caught.value)
    assert "\n" not in message
    assert not list(Path(data_dir).rglob("dataset_info.json"))
    return message
