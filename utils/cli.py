"""What all entry points share: flags, and errors as one line and an exit code."""

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from utils.allocator import tune_allocator
from utils.errors import UserError

USER_ERROR = 2


def run_main(main: Callable[[], int | None]) -> None:
    """Parses the flags and runs `main`, whose result is the exit code.

    What the user can mend (a flag, a key, UserError, a full disk) is told in one
    line with exit code 2; anything else keeps its traceback.
    """
    if "jax" not in sys.modules:  # else this process is a part of another program
        tune_allocator()
    app.run(lambda argv: _run(main, argv), flags_parser=_parse)


def _run(main, argv) -> None:
    logging.set_verbosity(logging.FATAL)  # what libraries log is raised as well
    sys.stdout.reconfigure(encoding="utf8")  # whatever the locale's is
    if len(argv) > 1:
        fail(f"unexpected argument {argv[1]!r}: options are written --name=value")
    try:
        sys.exit(main())
    except UserError as error:
        fail(str(error))
    except OSError as error:
        if error.errno is None:
            raise
        fail(str(error))


def _parse(argv: list[str]) -> list[str]:
    """The flags; config files are read and overridden here."""
    _check_config_file(argv)
    try:
        return flags.FLAGS(argv)
    except (KeyError, AttributeError) as error:  # a key or model that is not there
        fail(_key_error(error))
    except (flags.Error, TypeError, ValueError) as error:
        fail(str(error).replace("=None: Flag --workdir", " is missing: it"))


def _key_error(error: KeyError | AttributeError) -> str:
    told = error.args[0]
    while isinstance(told, Exception):
        told = told.args[0]
    key, _, hint = str(told).replace('"', "'").partition("\n")
    if " " in key:
        return key
    key = key.strip("'")
    if hint:
        return f"{key}: {hint}"
    return f"{key}: there is no such key or name here; configs/base.py has all keys"


def config_section(name: str, section: ConfigDict):
    """A flag --NAME.KEY=VALUE for every key of a section of the config."""
    try:
        return config_flags.DEFINE_config_dict(name, section)
    except (KeyError, AttributeError) as error:  # it reads the command line at once
        fail(f"--{name}: {_key_error(error)}")


def _check_config_file(argv: list[str]) -> None:
    """Ends the program if --config names a file that does not exist."""
    for argument, following in itertools.pairwise([*argv, ""]):
        name, equals, value = argument.partition("=")
        if name in ("--config", "-config"):
            path = Path((value if equals else following).partition(":")[0])
            if not path.is_file():
                files = sorted(Path("configs").glob("[!_]*.py"))
                known = [str(file) for file in files if file.stem != "base"]
                fail(f"config file {path} does not exist; there are {', '.join(known)}")


def overrides(holder) -> dict:
    """The keys of a config flag that the command line sets."""
    name = holder.name
    return config_flags.get_override_values(flags.FLAGS[name])


def lines_of(stream: BinaryIO) -> Iterator[str]:
    r"""Lines of UTF-8 text, ended by "\n" or "\r\n", as they come; without a BOM.

    A terminal is prompted.

    Raises UserError for a line that is not UTF-8.
    """
    read = _asked_for(stream) if stream.isatty() else stream
    for number, line in enumerate(read, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf8")
        except UnicodeDecodeError as error:
            raise UserError(f"line {number} of the input is not UTF-8") from error
        yield text.removesuffix("\n").removesuffix("\r")


def _asked_for(terminal: BinaryIO) -> Iterator[bytes]:
    """Lines that a person types, until the end of input or Ctrl-C."""
    try:
        while True:
            print("> ", end="", file=sys.stderr, flush=True)
            if not (line := terminal.readline()):
                break
            yield line
    except KeyboardInterrupt:
        pass
    print(file=sys.stderr)


def fail(message: str) -> None:
    """One line on standard error, exit code 2."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(USER_ERROR)
