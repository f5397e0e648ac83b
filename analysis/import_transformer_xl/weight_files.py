"""Files of weights, read without ever unpickling what they hold."""

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np

from utils.errors import UserError

Weights = dict[str, np.ndarray]

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def read_weights(path: Path) -> Weights:
    """Arrays by name, float32.

    Raises UserError for a file that is of no known kind or not what its name says.
    """
    if path.suffix not in READERS:
        known = ", ".join(READERS)
        raise UserError(f"--from={path}: its name must end in one of {known}")
    return READERS[path.suffix](path)


def read_safetensors(path: Path) -> Weights:
    """The format of https://github.com/huggingface/safetensors.

    The header's length in 8 bytes, the header in JSON, then the numbers.
    """
    content = memoryview(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    try:
        header = json.loads(str(content[8:start], "utf8"))
        header.pop("__metadata__", None)
        rest = content[start:]
        return {name: safetensor(rest, entry) for name, entry in header.items()}
    except KeyError as error:
        raise UserError(f"{path}: no reader for its type {error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a whole safetensors file: {error}") from error


def safetensor(content: memoryview, entry: dict) -> np.ndarray:
    """One array of the part after the header."""
    first, end = entry["data_offsets"]
    numbers = np.frombuffer(content[first:end], DTYPES[entry["dtype"]])
    if entry["dtype"] == "BF16":  # the upper half of a float32
        numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers.reshape(entry["shape"]).astype(np.float32)


def read_npz(path: Path) -> Weights:
    """NumPy's, without pickled objects."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name].astype(np.float32) for name in file.files}
    except (ValueError, TypeError, EOFError, AttributeError) as error:
        message = f"{path} must hold arrays of numbers, nothing pickled: {error}"
        raise UserError(message) from error
    except zipfile.BadZipFile as error:
        raise UserError(f"{path} is not a whole npz file: {error}") from error


def read_torch(path: Path) -> Weights:
    """A state dict that `torch.save` wrote."""
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"--from={path}: PyTorch is needed to read it and not installed; "
            "`pip install torch`, or save it as .npz or .safetensors elsewhere"
        ) from error
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        return {name: tensor.float().numpy() for name, tensor in found.items()}
    except (pickle.UnpicklingError, RuntimeError, AttributeError, EOFError) as error:
        raise UserError(
            f"{path} is not a state dict of tensors alone: "
            "`torch.save(model.state_dict(), path)` writes one"
        ) from error


READERS = {
    ".safetensors": read_safetensors,
    ".npz": read_npz,
    ".pt": read_torch,
    ".pth": read_torch,
    ".bin": read_torch,
}
