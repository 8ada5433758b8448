"""What tokens a second mean: utilisation by both counts, time left."""

from dataclasses import replace

import pytest
import torch

from tsugiki.models.config import preset
from tsugiki.training.meter import Meter, meter_of

LLAMA_8B = preset("llama-3-8b")


def test_flops_of_llama_3_8b_are_those_of_the_published_count():
    """Reference, parallelism-and-memory.md, section 11.1: 4.216e14 a sample of 8192 tokens, causal."""
    per_sample = LLAMA_8B.training_flops_per_token(8192) * 8192
    assert per_sample == pytest.approx(4.216e14, rel=2e-3)


def test_full_attention_counts_twice_the_causal_attention():
    causal, full = (LLAMA_8B.training_flops_per_token(8192, full_attention=whole) for whole in (False, True))
    attention = 12 * 32 * 4096 * 8192 / 2
    assert full - causal == pytest.approx(attention)
    assert full / causal == pytest.approx(1.125, abs=0.005)  # section 15 of the same


def test_utilisation_is_of_one_device():
    meter = Meter(processes=4, flops=5e10, full_flops=6e10, peak=1e15, device=torch.device("cpu"))
    figures = meter.figures(40_000)
    assert figures["tokens_per_second_per_device"] == 10_000
    assert figures["mfu"] == pytest.approx(0.5)
    assert figures["mfu_full_attention"] == pytest.approx(0.6)
    assert figures["memory_bytes"] > 1e6
    assert meter.note(2.3131, 40_000, 40_000 * 11_100) == "loss 2.313, 40,000 tokens/s, MFU 50 %, 3.1 h left"


def test_a_cpu_has_no_utilisation():
    meter = meter_of(
        replace(LLAMA_8B, layers=2), 512, torch.device("cpu"), processes=1, precision="float32", hardware=None
    )
    assert "mfu" not in meter.figures(100)
    assert meter.note(1.0, 100, 0) == "loss 1.000, 100 tokens/s"
