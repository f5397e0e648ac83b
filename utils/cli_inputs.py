"""Inputs of command-line programs: sections of a config, places and lines of text."""

import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from absl import flags
from ml_collections import ConfigDict, config_flags

from utils.cli import describe_key_error, fail
from utils.text_files import decode_lines


def config_section(name: str, section: ConfigDict, keys: Iterable[str] = ()):
    """Defines a flag --NAME.KEY=VALUE for `keys` of a section of the config, or all."""
    if keys:
        section = ConfigDict({key: section.get_ref(key) for key in keys})
    try:
        return config_flags.DEFINE_config_dict(name, section)
    except (KeyError, AttributeError) as error:  # it reads the command line at once
        fail(f"--{name}: {describe_key_error(error)}")


def split_places(text: str, separators: str = ",") -> Iterator[tuple[str, str]]:
    """Yields the places in a list, each after its separator, the first after "".

    The longest part that exists is one place, whatever separators it contains; so is a
    file of a folder that exists. Other parts are cut at each separator and stripped.
    """
    parts = ["", *re.split(f"([{re.escape(separators)}])", text)]
    while parts:
        for end in range(len(parts), 1, -2):
            place = "".join(parts[1:end])
            if end == 2 or _exists(place, separators):
                break
        place = place if _exists(place, separators) else place.strip()
        if place:
            yield parts[0], place
        parts = parts[end:]


def _exists(place: str, separators: str) -> bool:
    path = os.path.expanduser(place)
    folder, name = os.path.split(path)
    is_in_folder = os.path.isdir(folder) and not set(separators) & set(name)
    return os.path.exists(path) or is_in_folder


class PlacesParser(flags.ListParser):
    """Parser of a flag that lists places with commas, see `split_places`."""

    def parse(self, argument: str | list[str]) -> list[str]:
        if isinstance(argument, str):
            return [place for _, place in split_places(argument)]
        return super().parse(argument)


def read_lines(stream: BinaryIO) -> Iterator[str]:
    """Yields the lines of standard input (`decode_lines`); a terminal has a prompt."""
    lines = _prompted_lines(stream) if stream.isatty() else stream
    return decode_lines("the input", lines)


def _prompted_lines(terminal: BinaryIO) -> Iterator[bytes]:
    """Yields lines that a user types, until the end of input or Ctrl-C."""
    try:
        while True:
            print("> ", end="", file=sys.stderr, flush=True)
            if not (line := terminal.readline()):
                break
            yield line
    except KeyboardInterrupt:
        pass
    print(file=sys.stderr)
