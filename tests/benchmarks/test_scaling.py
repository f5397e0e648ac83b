"""The scaling benchmark: tiny, what it reads off programs, and its arithmetic."""

import json
import re
import sys

import pytest

from benchmarks import scaling
from benchmarks.collectives import collectives
from benchmarks.harness.cli import TINY
from benchmarks.scaling import parse
from benchmarks.tpu_roofline import ADAM, CHIPS, predictions, step_on

V5E = CHIPS[0]

PROGRAM = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  ROOT %sum = f32[] add(%a, %b)
}

%body.1 (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %g = f32[16]{0} all-gather(%x), replica_groups=[2,4]<=[8], dimensions={0}
  %r = bf16[8]{0} reduce-scatter(%g), replica_groups={{0,1},{2,3}}, to_apply=%add
}

%condition.1 (p: (s32[], f32[8])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

%body.2 (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %c = f32[8]{0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}
}

ENTRY %main.5 (a: f32[8]) -> f32[8] {
  %all = (f32[3,5]{1,0}, f32[]) all-reduce(%a, %b), replica_groups={}, to_apply=%add
  %start = (f32[4]{0}, f32[16]{0}) all-gather-start(%a), replica_groups={{0,1,2,3}}
  %done = f32[16]{0} all-gather-done(%start)
  %flags = pred[24]{0} all-to-all(%a), replica_groups={}
  %known = (s32[], f32[8]) while(%t), condition=%condition.1, body=%body.1, \
backend_config={"known_trip_count":{"n":"6"}}
  %unknown = (s32[], f32[8]) while(%t), condition=%condition.1, body=%body.2
  ROOT %result = f32[8]{0} fusion(%known), kind=kLoop, calls=%add
}
"""


def test_collectives_are_counted_in_loops_as_often_as_these_turn():
    found = collectives(PROGRAM, 8)
    assert found.operations == {
        "all-reduce": 1,
        "all-gather": 1 + 6,
        "reduce-scatter": 6,
        "all-to-all": 1,
        "collective-permute": 1,
    }
    assert found.results["all-reduce"] == 4 * (15 + 1)
    assert found.results["all-gather"] == 4 * 16 + 6 * 4 * 16
    assert found.results["all-to-all"] == 24
    assert found.results["reduce-scatter"] == 6 * 2 * 8
    assert found.unknown_loops == 1


def test_a_ring_sends_what_the_formulas_say():
    sent = collectives(PROGRAM, 8).sent
    assert sent["all-reduce"] == pytest.approx(2 * 7 / 8 * 64)  # of all 8
    assert sent["all-gather"] == pytest.approx(3 / 4 * (64 + 6 * 64))  # groups of 4
    assert sent["reduce-scatter"] == pytest.approx(6 * 16)  # groups of 2
    assert sent["collective-permute"] == 32


WORK = {"flops": 197e12, "rows": 64, "tokens": 1000, "parameters": 10**9}


def test_a_step_on_chips_is_the_sum_or_the_longer_of_its_parts():
    found = step_on(V5E, 8, "data", WORK)
    seconds = found["seconds"]
    assert seconds["compute"] == pytest.approx(1 / 8)
    assert seconds["update"] == pytest.approx(ADAM * 4e9 / 819e9)
    assert seconds["collectives"] == pytest.approx(2 * 7 / 8 * 4e9 / 200e9)
    parts = [seconds[name] for name in ("compute", "update", "collectives")]
    assert seconds["nothing overlapped"] == pytest.approx(sum(parts))
    longer = max(parts[0] + parts[1], parts[2])
    assert seconds["all overlapped"] == pytest.approx(longer)
    rate = found["tokens_per_second"]["all overlapped"]
    assert rate == pytest.approx(1000 / longer)


def test_one_chip_sends_nothing_and_is_the_measure_of_efficiency():
    found = step_on(V5E, 1, "data", WORK)
    assert found["bytes_sent_per_chip"] == 0
    assert found["efficiency"]["nothing overlapped"] == pytest.approx(1)
    many = [step_on(V5E, n, "data", WORK)["efficiency"] for n in (8, 64)]
    shares = [one["nothing overlapped"] for one in many]
    assert 1 > shares[0] > shares[1] > 0


def test_rows_that_chips_do_not_divide_cost_the_fullest_chip():
    even, uneven = (step_on(V5E, n, "data", WORK) for n in (32, 33))
    assert even["rows_per_chip"] == uneven["rows_per_chip"] == 2
    assert even["seconds"]["compute"] == uneven["seconds"]["compute"]
    assert step_on(V5E, 128, "data", WORK)["rows_per_chip"] == 1


def test_spread_parameters_are_updated_in_parts_and_sent_once_more():
    whole, parts = (step_on(V5E, 8, mode, WORK) for mode in ("data", "fsdp"))
    assert parts["seconds"]["update"] == pytest.approx(whole["seconds"]["update"] / 8)
    sent = parts["bytes_sent_per_chip"] / whole["bytes_sent_per_chip"]
    assert sent == pytest.approx(1.5)


def test_there_is_a_prediction_for_every_chip_number_and_mode():
    lines = predictions("wmt14:big", WORK, (8, 256))
    kinds = {(line["chip"]["name"], line["chips"], line["mode"]) for line in lines}
    assert len(lines) == len(kinds) == 2 * 2 * 2


@pytest.mark.slow
def test_a_tiny_run_measures_and_predicts(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["scaling", "--tiny"])
    assert scaling.main() == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    measured, *predicted = lines
    assert (measured["mode"], measured["devices"]) == ("data", 2)
    seconds = measured["seconds_per_step"]
    assert 0 < seconds["low"] <= seconds["median"] <= seconds["high"]
    assert measured["versions"]["jax"]
    # Gradients are all that is added up over devices: each parameter's, once for each
    # of its uses where it has two: a tied table's, and those of keys and values, of a
    # memory and of the text. Metrics and weights are a few numbers more.
    weights = measured["parameter_bytes"]
    again = (50 + 2 * TINY["width"]) * TINY["width"] * 4
    sent = measured["collectives"]["result_bytes"]
    assert sent.keys() == {"all-reduce"}
    assert weights < sent["all-reduce"] <= weights + again + 64
    assert measured["collectives"]["loops_of_unknown_length"] == 0
    assert [line["chips"] for line in predicted] == [8] * 4
    for line in predicted:
        assert line["work"]["flops"] > line["work"]["parameters"]
        assert line["work"]["rows"] == 16


@pytest.mark.parametrize(
    "flag", ["--devices=0", "--devices=a", "--modes=x", "--rounds=1", "--chips=-8"]
)
def test_a_wrong_flag_is_refused(flag, capsys):
    with pytest.raises(SystemExit) as refused:
        parse([flag])
    assert refused.value.code == 2
    assert flag.split("=")[0] in capsys.readouterr().err


def test_a_config_that_is_not_there_is_told_in_one_line(monkeypatch, capsys):
    argv = ["scaling", "--predict=nowhere:big", "--devices=1", "--modes=data"]
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(scaling, "measured_apart", lambda *_: {})
    assert scaling.main() == 2
    assert re.fullmatch(r"error: --predict=nowhere:big.*\n", capsys.readouterr().err)
