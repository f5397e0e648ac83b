"""The resolved config as `train.py --print_config` shows it."""

import pytest

from analysis.config_keys import format_config
from configs import base
from helpers.entry_points import run


@pytest.mark.parametrize("model", base.MODELS)
def test_every_key_has_its_value_and_meaning(model):
    cfg = base.get_config(model)
    lines = format_config(cfg).splitlines()
    assert not [line for line in lines if line[0] != " " or line.endswith("# ")]
    assert "  model.dropout = 0.1 " in "\n".join(lines)
    assert len(lines) == len({line.split()[0] for line in lines}) > 100


def test_what_differs_from_the_defaults_is_marked():
    flags = ("--config=configs/cldr.py:rnn", "--print_config", "--config.seed=7")
    done = run("train.py", *flags)
    assert done.returncode == 0, done.stderr.decode()
    (line,) = [x for x in done.stdout.decode().splitlines() if " seed = " in x]
    assert line.startswith("* seed = 7 ")
    assert line.endswith("# [0] seed of parameter initialisation and dropout")
