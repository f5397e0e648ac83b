"""Weight files, read without unpickling, and strict access to their arrays."""

import itertools
import pickle
import zipfile
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.safetensors import read_safetensors

Weights = dict[str, np.ndarray]


def read_weights(path: Path) -> Weights:
    """Reads float32 arrays by name. Raises UserError for another or a damaged file."""
    if path.suffix not in READERS:
        known = ", ".join(READERS)
        raise UserError(f"--from={path}: its name must end in one of {known}")
    return READERS[path.suffix](path)


def read_npz(path: Path) -> Weights:
    """Reads a NumPy archive without pickled objects."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name].astype(np.float32) for name in file.files}
    except (ValueError, TypeError, EOFError, AttributeError) as error:
        raise UserError(
            f"{path} must hold arrays of numbers, nothing pickled: {error}"
        ) from error
    except zipfile.BadZipFile as error:
        raise UserError(f"{path} is not a whole npz file: {error}") from error


def read_torch(path: Path) -> Weights:
    """Reads a state dict that `torch.save` wrote."""
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"--from={path} needs PyTorch, which is not installed; run "
            "`pip install torch`, or convert the file to .npz or .safetensors"
        ) from error
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        return {name: tensor.float().numpy() for name, tensor in tensors.items()}
    except (pickle.UnpicklingError, RuntimeError, AttributeError, EOFError) as error:
        raise UserError(
            f"{path} is not a state dict of tensors alone; write one with "
            "`torch.save(model.state_dict(), path)`"
        ) from error


READERS = {".safetensors": read_safetensors, ".npz": read_npz}
READERS |= dict.fromkeys((".pt", ".pth", ".bin"), read_torch)


class StrictWeights:
    """Weights by name, of which each must be used once and have an expected shape.

    Args:
      prefix: beginning of names that Hugging Face adds to the authors', removed.
      buffers: names of constants that are stored with the parameters, ignored.
    """

    def __init__(self, weights: Weights, prefix: str, buffers: tuple[str, ...] = ()):
        named = {name.removeprefix(prefix): x for name, x in weights.items()}
        self.arrays = {name: x for name, x in named.items() if name not in buffers}
        self.used = set()

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def shape(self, name: str, num_axes: int) -> tuple[int, ...]:
        """Returns a shape. Raises UserError if it is missing or has other axes."""
        if name not in self.arrays:
            few = ", ".join([*itertools.islice(self.arrays, 3), "..."])
            raise UserError(
                f"no parameter {name} among the {len(self.arrays)} of the file: {few}"
            )
        shape = self.arrays[name].shape
        if len(shape) != num_axes:
            raise UserError(f"{name} has shape {shape}; expected {num_axes} axes")
        return shape

    def take(self, name: str, *shape: int) -> np.ndarray:
        """Returns an array. Raises UserError if it is missing or has another shape."""
        actual = self.shape(name, len(shape))
        if actual != shape:
            raise UserError(f"{name} has shape {actual}; expected {shape}")
        self.used.add(name)
        return self.arrays[name]

    def take_or(self, name: str, default: np.ndarray) -> np.ndarray:
        """Returns an array, or the one it is tied to if the file leaves it out."""
        return self.take(name, *default.shape) if name in self.arrays else default

    def check_all_used(self) -> None:
        """Raises UserError for names that no part of the model has."""
        if left := sorted(self.arrays.keys() - self.used):
            more = f" and {len(left) - 5} more" if len(left) > 5 else ""
            raise UserError(f"unknown parameters: {', '.join(left[:5])}{more}")
