"""Values of config keys on the command line."""

import pytest
from absl import flags
from ml_collections import config_flags

import utils.cli  # noqa: F401 (registers the parsers)
from configs import base
from helpers.entry_points import assert_refused, run
from training.run_dir import flatten_config

VALUES = flatten_config(base.get_config().to_dict())
UNSET = [key for key, value in VALUES.items() if value is None]
SAMPLES = {int: ("7", 7), float: ("0.5", 0.5), bool: ("True", True), str: ("a", "a")}


def parsed(*arguments):
    """Returns the config and the overrides of a command line, as the entry points."""
    values, argv = flags.FlagValues(), ["program", *arguments]
    options = {"flag_values": values, "sys_argv": argv}
    config_flags.DEFINE_config_dict("config", base.get_config(), **options)
    values(argv)
    return values.config, config_flags.get_override_values(values["config"])


@pytest.mark.parametrize("key", UNSET)
def test_a_key_that_may_be_none_takes_none_and_values_of_its_type(key):
    section, _, name = key.rpartition(".")
    cfg = base.get_config()
    text, value = SAMPLES[(cfg[section] if section else cfg).get_type(name)]
    _, overrides = parsed(f"--config.{key}={text}")
    assert overrides == {key: value}
    cfg, overrides = parsed(f"--config.{key}={text}", f"--config.{key}=None")
    assert overrides == {key: None}
    assert flatten_config(cfg.to_dict()) == VALUES


def test_other_values_are_read_as_before():
    cfg, _ = parsed(
        "--config.steps=3",
        "--config.optim.lr=1e-3",
        "--config.data.reverse",
        "--config.model.cutoffs=(2, 5)",
        "--config.data.dir=none",
    )
    assert (cfg.steps, cfg.optim.lr, cfg.data.reverse) == (3, 1e-3, True)
    assert (cfg.model.cutoffs, cfg.data.dir) == ((2, 5), "none")
    with pytest.raises(flags.IllegalFlagValueError, match=r"config\.steps=none"):
        parsed("--config.steps=none")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train.py --workdir=W --config.steps=None", ["steps=None"]),
        ("train.py --plan --config.parallel.data=None", ["parallel.data=None"]),
        ("train.py --workdir=W --config.optim.lr=nan", ["optim.lr=nan"]),
        ("train.py --workdir=W --config.data.seed=-1", ["data.seed=-1"]),
        ("train.py --workdir=W --config.epochs=inf", ["epochs=inf"]),
        ("sweep.py --workdir=W --config.data.seed=-1", ["data.seed=-1"]),
        ("sweep.py --dry_run --config.every.eval=None", ["every.eval=None"]),
        ("sweep.py --workdir=W --workers=99999999", ["--workers=99999999"]),
        ("predict.py --workdir=W --decode.beam_size=None", ["beam_size=None"]),
    ],
)
def test_an_impossible_value_is_refused_before_anything_is_written(
    command, words, tmp_path
):
    script, *options = command.replace("=W", f"={tmp_path}/run").split()
    if script != "predict.py":
        options.insert(0, "--config=configs/cldr.py:rnn")
    if script == "sweep.py":
        options.append("--space=configs/sweeps/seeds.py")
    assert_refused(run(script, *options), *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = (", "fails: SyntaxError: '(' was never closed (config.py"),
        ("import no_such_module", "fails: ModuleNotFoundError: No module named"),
        (
            "from configs import base\n"
            "def get_config():\n"
            "    return base.get_config().update(steps='many')\n",
            "fails: TypeError: Could not override field 'steps'",
        ),
        ("", "has no attribute 'get_config'"),
    ],
)
def test_a_config_file_that_fails_is_told_in_one_line(source, message, tmp_path):
    file = tmp_path / "config.py"
    file.write_text(source)
    assert_refused(run("train.py", f"--config={file}", "--workdir=W"), message)
