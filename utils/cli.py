"""Command-line code of all entry points: flags, errors and exit codes."""

import itertools
import os
import re
import select
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags
from ml_collections.config_flags.config_path import get_type

from utils.allocator import tune_allocator
from utils.compilation_cache import enable_compilation_cache
from utils.errors import UserError

USER_ERROR = 2  # exit code


class OptionalParser(flags.ArgumentParser):
    """Parser of a config key, which reads `None` where the key may be None."""

    def __init__(self, parser: flags.ArgumentParser):
        self.parser = parser

    def parse(self, argument):
        return None if argument == "None" else self.parser.parse(argument)

    def flag_type(self):
        return self.parser.flag_type()


for kind, parser in {
    bool: flags.BooleanParser(),
    int: flags.IntegerParser(),
    float: flags.FloatParser(),
    str: flags.ArgumentParser(),
}.items():
    config_flags.register_flag_parser_for_type(kind, OptionalParser(parser))


def run_main(main: Callable[[], int | None]) -> None:
    """Parses the flags and exits with the result of `main`, as `exit_with` does.

    On CPUs the program restarts itself once (utils/allocator.py). Compiled programs
    are cached (utils/compilation_cache.py).
    """
    if "jax" not in sys.modules:  # otherwise another program called this one
        tune_allocator()
        enable_compilation_cache()
    exit_with(lambda: app.run(lambda argv: _run(main, argv), flags_parser=_parse))


def _run(main, argv) -> int | None:
    sys.stdout.reconfigure(encoding="utf8")  # whatever the locale says
    if len(argv) > 1:
        fail(f"Unexpected argument {argv[1]!r}: options are written --name=value")
    return main()


def exit_with(main: Callable[[], int | None]) -> None:
    """Exits with the result of `main`.

    Errors that the user can fix (a flag, a key, UserError, a full disk, no device or
    memory) are printed in one line, with exit code 2; any other exception keeps its
    traceback. If the reader of standard output ends first, SIGPIPE ends this program
    silently. Warnings of libraries are hidden unless python -W or PYTHONWARNINGS asks
    for them.
    """
    _open_closed_streams()
    logging.set_verbosity(logging.FATAL)  # libraries raise what they log, too
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        os.environ["PYTHONWARNINGS"] = "ignore"  # of processes that this one starts
    try:
        try:
            sys.exit(main())
        finally:
            _flush_output()
    except UserError as error:
        has_config = "config" in flags.FLAGS
        fail(str(error) if has_config else str(error).replace("--config.", "--"))
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _has_lost_reader():
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            signal.raise_signal(signal.SIGPIPE)
        if error.errno is None:
            raise
        fail(str(error))
    except (RuntimeError, AssertionError, MemoryError) as error:
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            fail(
                f"out of memory ({str(error)[:200]}): lower the sizes of model and "
                "batch; train.py --plan estimates what they need"
            )
        _check_devices()
        raise
    except ValueError as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        if frame.f_globals["__name__"] == "jax._src.config":  # of a variable JAX_...
            fail(str(error))
        raise


def _open_closed_streams() -> None:
    """Opens the null device in place of closed standard streams.

    Otherwise the next file would get the number of such a stream, and its output.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, "w" if number else "r")  # noqa: SIM115
            setattr(sys, name, stream)


def _flush_output() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError:
        # Python flushes again at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _has_lost_reader() -> bool:
    """Returns whether standard output is a pipe that nobody reads."""
    output = select.poll()
    output.register(1, 0)
    return any(event & select.POLLERR for _, event in output.poll(0))


def _check_devices() -> None:
    """Fails if JAX, which has raised an error, cannot start any device."""
    try:
        "jax" in sys.modules and sys.modules["jax"].devices()
    except (RuntimeError, AssertionError) as error:
        names = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME", "CUDA_VISIBLE_DEVICES")
        values = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
        chosen = ", ".join(values) or "JAX_PLATFORMS not set"
        reason = str(error) or "none of that kind is visible"
        fail(f"JAX has no device with {chosen}: {reason}")


def _parse(argv: list[str]) -> list[str]:
    _check_config_file(argv)
    try:
        return flags.FLAGS(argv)
    except (KeyError, AttributeError) as error:  # an unknown key or model
        fail(describe_key_error(error))
    except (flags.Error, TypeError, ValueError) as error:
        message = re.sub(r"=None: Flag --\w+", " is missing: it", str(error))
        if "Traceback" in message:  # of a config file
            message = f"the config file fails: {message.strip().splitlines()[-1]}"
        fail(message)
    except (SyntaxError, ImportError, NameError) as error:
        fail(f"the config file fails: {type(error).__name__}: {error}")


def describe_key_error(error: KeyError | AttributeError) -> str:
    """Describes the error of ml_collections for an unknown key or model."""
    message = error.args[0]
    while isinstance(message, Exception):
        message = message.args[0]
    key, _, hint = str(message).replace('"', "'").partition("\n")
    if " " in key:
        return key
    key = key.strip("'")
    hint = hint or "there is no such key or name here; configs/base.py has all keys"
    return f"{key}: {hint}"


def _check_config_file(argv: list[str]) -> None:
    """Fails if --config names a file that does not exist."""
    for argument, following in itertools.pairwise([*argv, ""]):
        name, equals, value = argument.partition("=")
        if name in ("--config", "-config"):
            path = Path((value if equals else following).partition(":")[0])
            if not path.is_file():
                files = sorted(Path("configs").glob("[!_]*.py"))
                known = ", ".join(str(file) for file in files if file.stem != "base")
                fail(f"config file {path} does not exist; there are {known}")


def overrides(holder) -> dict:
    """Returns the keys of a config flag that the command line sets.

    Raises:
      UserError: a key is None that must have a value.
    """
    values = config_flags.get_override_values(flags.FLAGS[holder.name])
    for key, value in values.items():
        if value is None and get_type(key, holder.value) is type(None):
            raise UserError(f"--{holder.name}.{key}=None: the key must have a value")
    return values


def fail(message: str) -> None:
    """Prints one line on standard error and exits with code 2."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(USER_ERROR)
