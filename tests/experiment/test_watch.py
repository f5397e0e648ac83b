"""Groups of parameters, and the step of a run that is watched.

What `every.watch` logs is tested in test_observe.py.
"""

import pytest

from experiment import train
from helpers.text_runs import text_config
from training.observe.watch import group_name

OPTIONS = {"model": "transformer_xl", "model.dropout": 0.1, "model.layers": 1}
OPTIONS |= {"optim.name": "sgd"}


def test_what_observes_a_run_is_no_part_of_its_step(tmp_path):
    programs = set()
    for watch, action in ((0, "off"), (2, "skip")):
        changes = {"on_spike": action, "every.watch": watch}
        cfg = text_config(tmp_path, **OPTIONS, **changes)
        setup = train.make_setup(cfg, train.open_dataset(cfg))
        state = setup.partitioner.init(setup.make_state)
        inputs = state, setup.make_carry(), setup.batch(0)
        programs.add(setup.partitioner.lower(setup.step, *inputs).as_text())
    assert len(programs) == 1


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("encoder/stack/layers_12/self_attention/query", "encoder/stack/layers_12"),
        ("decoder/cells_0/input", "decoder/cells_0"),
        ("embedding", "embedding"),
        ("decoder/alignment/query", "decoder/alignment"),
        ("stack", "stack"),
    ],
)
def test_a_group_is_a_layer_or_a_module(path, group):
    assert group_name(path.split("/")) == group
