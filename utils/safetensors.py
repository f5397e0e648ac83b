"""The format of https://github.com/huggingface/safetensors, of arrays by name.

It is the header's length in 8 bytes, the header in JSON, then the data.
"""

import json
from pathlib import Path

import numpy as np
from etils import epath

from utils.errors import UserError

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8"}


def read_safetensors(path: Path | epath.Path) -> dict[str, np.ndarray]:
    """Reads arrays as float32. Raises UserError for a damaged file."""
    content = memoryview(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    try:
        header = json.loads(str(content[8:start], "utf8"))
        header.pop("__metadata__", None)
        data = content[start:]
        return {name: _read_tensor(data, entry) for name, entry in header.items()}
    except KeyError as error:
        raise UserError(f"{path}: unsupported type {error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a whole safetensors file: {error}") from error


def _read_tensor(data, entry):
    first, end = entry["data_offsets"]
    array = np.frombuffer(data[first:end], DTYPES[entry["dtype"]])
    if entry["dtype"] == "BF16":  # the upper half of a float32
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.reshape(entry["shape"]).astype(np.float32)


def dump_safetensors(arrays: dict[str, np.ndarray]) -> bytes:
    """Returns the content of a file of float32 arrays."""
    header, offset = {}, 0
    for name, array in arrays.items():
        end = offset + 4 * array.size
        shape, offsets = list(array.shape), [offset, end]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # aligns the data
    data = (np.ascontiguousarray(array, "<f4").tobytes() for array in arrays.values())
    return b"".join([len(text).to_bytes(8, "little"), text, *data])
