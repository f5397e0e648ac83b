"""Published configs have the numbers of parameters that their papers print."""

import importlib

import pytest

from analysis.plan.report import parameter_table
from analysis.plan.step import parameter_shapes
from experiment import setup
from helpers.architectures import parameters_of

# Config, the paper's figure in millions, and how far ours may be, in percent.
PUBLISHED = {
    "enwik8:12l": (41, 1),
    "enwik8:18l": (88, 1),
    "enwik8:24l": (277, 1),
    "wikitext103:standard": (151, 1),
    # The table prints 257M; the authors' script, which is what was released, makes
    # 285M: 246M in 18 layers of 13.6M, 37M in tables, 1.4M in projections.
    "wikitext103:large": (285, 1),
    # Two digits of a billion in the paper, and sizes put together from its ablation
    # (20 layers) and its text: the nearest this comes is 469M.
    "lm1b:base": (460, 2),
    # One digit in the paper (0.8 billion), which the script's 841M rounds to.
    "lm1b:large": (841, 1),
    "ptb:transformer_xl_24m": (24, 1),
    "ptb:awd_lstm": (24, 1),
    "ptb_zaremba:rnn_medium": (20, 2),  # 19.8M; by Kim et al. (2016), table 3
    "wikitext2:awd_lstm": (33, 2),  # 33.5M, printed as 33M
    # Table 3 prints 65M for a vocabulary of "about 37,000" pieces, which make 63M;
    # 65M would take 41,000.
    "wmt14:base": (63, 1),
    "wmt14:big": (213, 1),
}


def config(name):
    file, _, model = name.partition(":")
    return importlib.import_module(f"configs.{file}").get_config(model)


# Of configs that differ in their numbers of layers, one builds in make test.
DEEP = {"enwik8:18l", "enwik8:24l", "wikitext103:large", "lm1b:large", "wmt14:big"}


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=[pytest.mark.slow] * (x in DEEP)) for x in PUBLISHED]
)
def test_a_published_config_has_the_published_number_of_parameters(name):
    millions, percent = PUBLISHED[name]
    params = parameters_of(*name.split(":"))
    found = setup.num_parameters(params) / 1e6
    assert abs(found / millions - 1) <= percent / 100, f"{found:.1f}M"


def test_the_standard_transformer_xl_has_the_authors_number_of_parameters():
    # 151,123,537 in fairseq's port: 9 special tokens more, u and v a layer.
    params = parameters_of("wikitext103", "standard")
    ours = setup.num_parameters(params)
    extra_tokens = (267_735 + 9) - 267_739
    extra_biases = 15 * 2 * 410
    assert ours + extra_tokens * 411 + extra_biases == 151_123_537


SMALL = [
    *(("ptb_zaremba", name) for name in ("transformer", "transformer_xl")),
    *(
        ("characters.ptb", f"{name}_small")
        for name in ("transformer", "transformer_xl")
    ),
]


@pytest.mark.parametrize(("file", "model"), SMALL)
def test_the_small_models_of_a_corpus_have_equal_numbers_of_parameters(file, model):
    other = {"ptb_zaremba": "rnn", "characters.ptb": "rnn_small"}[file]
    sizes = []
    for name in (model, other):
        cfg = config(f"{file}:{name}")
        if file == "characters.ptb":
            cfg.data.vocab_size = 53  # symbols
        sizes.append(setup.num_parameters(parameter_shapes(cfg)))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.03), sizes


def test_a_plan_lists_every_parameter_once_and_their_sum():
    cfg = config("enwik8:12l")
    lines = parameter_table(cfg, parameter_shapes(cfg)).splitlines()
    sums = [int(line.split()[-1].replace(",", "")) for line in lines[:-2]]
    assert sum(sums[:-1]) == sums[-1] == 41_084_164
    assert (
        sum("stack/layers_*/self_attention/query/kernel " in line for line in lines)
        == 1
    )
