"""Runs an exported model on lines of text; README.md beside this file describes it.

    python model.zip translate < source.txt > output.txt
    python model.zip --verify

The commands are translate, continue (a text) and label (texts, words, relations,
masks), as the model has them. Needs jax, flatbuffers, numpy and perhaps the package of
the tokenizer. `python run.py model.zip ...` checks the file before its code runs.
"""

import argparse
import functools
import hashlib
import importlib
import io
import json
import sys
import zipfile
from pathlib import Path

ROWS = 32  # lines of a batch


class Bundle:
    """The files of an exported model, and its programs."""

    def __init__(self, content: bytes, path: str):
        if hashlib.sha256(content[:-64]).hexdigest().encode() != content[-64:]:
            raise ValueError(f"{path} is damaged: its SHA-256 digest does not fit")
        self.files = zipfile.ZipFile(io.BytesIO(content))
        self.about = json.loads(self.files.read("about.json"))

    @functools.cached_property
    def params(self) -> dict:
        """Parameters by name, from a file of float32 in the format safetensors."""
        import jax
        import numpy as np

        content, params = self.files.read("weights.safetensors"), {}
        start = 8 + int.from_bytes(content[:8], "little")
        for name, entry in json.loads(content[8:start]).items():
            first, end = entry["data_offsets"]
            array = np.frombuffer(content, "<f4", (end - first) // 4, start + first)
            params[name] = array.reshape(entry["shape"])
        return jax.device_put(params)

    @functools.cache  # noqa: B019
    def tokenizer(self, side: str):
        """Returns the tokenizer of "source", "target" or "text"."""
        content = json.loads(self.files.read("tokenizers.json"))[side]
        return importlib.import_module(content["module"]).Tokenizer(content)

    @functools.cache  # noqa: B019
    def program(self, name: str):
        import jax
        import jax.export

        program = bytearray(self.files.read(f"programs/{name}.bin"))
        return jax.jit(jax.export.deserialize(program).call)

    def call(self, name: str, inputs: dict) -> dict:
        """Returns the outputs of a program as arrays of NumPy."""
        import jax

        known = self.about["programs"][name]
        if known["lengths"]:  # one program for each length
            name = f"{name}-{inputs[known['input']].shape[1]}"
        return jax.device_get(self.program(name)(self.params, inputs))

    def outputs(self, lines: list[str], search: str | None, seed: int | None):
        """Yields lists of (text, score) for each line, the best first."""
        model = importlib.import_module(self.about["kind"]).Model(self, search, seed)
        for start in range(0, len(lines), ROWS):
            chunk = list(enumerate(lines))[start : start + ROWS]
            given = [(number, line) for number, line in chunk if line.strip()]
            outputs = model(given) if given else ()
            found = dict(zip([n for n, _ in given], outputs, strict=True))
            yield from (found.get(number, []) for number, _ in chunk)

    def verify(self) -> tuple[int, int]:
        """Returns how many of the stored examples have equal outputs, and all."""
        examples = json.loads(self.files.read("examples.json"))
        right = 0
        for search, expected in examples["outputs"].items():
            found = self.outputs(examples["inputs"], search, None)
            for outputs, texts in zip(found, expected, strict=True):
                right += [text for text, _ in outputs] == texts
        return right, sum(map(len, examples["outputs"].values()))


def main() -> int:
    """Parses the command line; returns the exit code."""
    own = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    if not own.is_file():
        parser.add_argument("model", help="the exported file")
    commands = ("translate", "continue", "label")
    parser.add_argument("command", nargs="?", choices=commands)
    parser.add_argument("--verify", action="store_true", help="check the examples")
    parser.add_argument("--search", help="greedy, beam or sample; default: the run's")
    parser.add_argument("--seed", type=int, help="of samples; default: the run's")
    scores = "all outputs of a line: score, tab, text"
    parser.add_argument("--scores", action="store_true", help=scores)
    options = parser.parse_args()
    path = str(own) if own.is_file() else options.model
    if not 0 <= (options.seed or 0) < 2**32:
        raise ValueError(f"--seed={options.seed} must be from 0 to {2**32 - 1}")
    bundle = Bundle(Path(path).read_bytes(), path)
    sys.path.append(path)  # of the modules beside this one
    if options.verify:
        right, total = bundle.verify()
        print(f"{right} of {total} outputs equal")
        return 0 if right == total else 1
    about = bundle.about
    if options.command not in (None, about["command"]):
        raise ValueError(f"this model has the command {about['command']!r} only")
    if options.search and options.search not in about["programs"]:
        known = ", ".join(about["programs"])
        raise ValueError(f"unknown --search={options.search}; choose one of {known}")
    lines = io.TextIOWrapper(sys.stdin.buffer, "utf-8-sig", newline="\n")
    lines = [line.removesuffix("\n").removesuffix("\r") for line in lines]
    sys.stdout.reconfigure(encoding="utf8")
    for outputs in bundle.outputs(lines, options.search, options.seed):
        if options.scores:
            print(*(f"{score:.4f}\t{text}" for text, score in outputs), sep="\n")
        else:
            print(outputs[0][0] if outputs else "", flush=True)
    return 0


def run() -> None:
    """Exits with the code of `main`, 2 after an error that is told in one line."""
    try:
        sys.exit(main())
    except (OSError, ValueError, KeyError, ImportError, zipfile.BadZipFile) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    run()
