"""Published figures, from the shape alone (Drop-Upcycling's configurations, LLM-jp's model cards)."""

from __future__ import annotations

import pytest

from tsugiki.models.config import preset
from tsugiki.upcycling.config import Config
from tsugiki.upcycling.counts import parameter_counts, published_flops_per_token
from tsugiki.upcycling.shapes import upcycled_shape


def sparse(name):
    return upcycled_shape(preset(name), Config(model="dense"))


@pytest.mark.parametrize(
    ("name", "dense", "total", "active"),
    [
        ("llm-jp-152m", 152_318_464, 416_608_768, 190_116_352),
        ("llm-jp-1.5b", 1_558_284_288, 8_957_429_760, 2_615_642_112),
        ("llm-jp-3.7b", 3_782_913_024, 18_581_105_664, 5_897_530_368),
    ],
)
def test_parameters_of_drop_upcycling_are_the_published_ones(name, dense, total, active):
    assert parameter_counts(preset(name)).total == parameter_counts(preset(name)).active == dense
    counts = parameter_counts(sparse(name))
    assert (counts.total, counts.active) == (total, active)


def test_parameters_of_llm_jp_8x1_8b_are_those_of_its_card():
    counts = parameter_counts(sparse("llm-jp-3-1.8b"))
    assert counts.total == 9_266_362_368
    assert counts.non_embedding == 8_858_863_616
    assert counts.embedding == 407_498_752
    assert counts.active_on_cards == 2_924_279_808
    assert counts.active - counts.active_on_cards == 294_912


def test_active_parameters_of_llm_jp_8x13b_differ_from_the_card_by_the_routers_rows():
    shape = sparse("llm-jp-13b")
    counts = parameter_counts(shape)
    assert counts.active - counts.active_on_cards == 1_228_800


@pytest.mark.parametrize(
    ("name", "dense", "mixture"),
    [
        ("llm-jp-152m", 9.10e8, 1.136e9),
        ("llm-jp-1.5b", 1.117e10, 1.751e10),
        ("llm-jp-3.7b", 2.509e10, 3.777e10),
    ],
)
def test_operations_a_token_are_the_papers(name, dense, mixture):
    assert published_flops_per_token(preset(name), 4096) == pytest.approx(dense, rel=5e-4)
    assert published_flops_per_token(sparse(name), 4096) == pytest.approx(mixture, rel=5e-4)


def test_operations_of_the_13b_that_the_paper_compares_with():
    assert published_flops_per_token(preset("llm-jp-13b"), 4096) == pytest.approx(8.925e10, rel=5e-4)


def test_chosen_layers_count_as_what_they_are():
    dense = preset("qwen3-nano")
    one = upcycled_shape(dense, Config(model="m", layers=(1,), experts_per_token=1))
    counts = parameter_counts(one)
    router, feed_forward = 8 * 64, 3 * 64 * 160
    assert counts.total - dense.parameters == router + 7 * feed_forward
    assert counts.active - dense.parameters == router
    assert published_flops_per_token(one, 128) == published_flops_per_token(dense, 128)
