"""What tokens a second mean: utilisation by both counts, time left."""

import re
from dataclasses import replace

import pytest
import torch

from tsugiki.models.config import preset
from tsugiki.training.meter import PACE_STEPS, Meter, Pace, device_called, meter_of

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
    meter.pace.tick(0.0, 1.0)
    figures = meter.figures(40_000)
    assert figures["tokens_per_second_per_device"] == 10_000
    assert figures["mfu"] == pytest.approx(0.5)
    assert figures["mfu_full_attention"] == pytest.approx(0.6)
    assert figures["memory_bytes"] > 1e6
    said = "loss 2.313, 3.1 h left, 40,000 tokens/s, 10,000 a device, MFU 50 % (full attention 60 %), "
    assert re.fullmatch(re.escape(said) + r"\d+\.\d GiB", meter.note(2.3131, 40_000, 11_100))


def test_a_cpu_has_no_utilisation():
    meter = meter_of(
        replace(LLAMA_8B, layers=2), 512, torch.device("cpu"), processes=1, precision="float32", hardware=None
    )
    assert "mfu" not in meter.figures(100)
    assert re.fullmatch(r"loss 1\.000, 100 tokens/s, \d+\.\d GiB", meter.note(1.0, 100, 0))


def test_active_experts_count_once_and_the_look_up_of_an_embedding_not_at_all():
    """Mixtral 8x7B: 12.9 B parameters a token (arXiv 2401.04088); the embedding multiplies nothing."""
    shape = preset("mixtral-8x7b")
    attention = 2 * 4096 * 4096 + 2 * 4096 * 1024  # query and output; key and value of 8 of 32 heads
    experts = 2 * 3 * 4096 * 14336 + 4096 * 8  # two of eight; the router sees all
    matrices = 32 * (attention + experts) + 32000 * 4096
    assert matrices == pytest.approx(12.9e9 - 32000 * 4096, rel=5e-3)
    core = 12 * 32 * 4096 * 4096 / 2  # 12 x layers x width x half the sequence
    assert shape.training_flops_per_token(4096) == pytest.approx(6 * matrices + core)


def test_time_left_counts_what_lies_between_steps_and_not_the_first_one():
    pace = Pace()
    assert pace.seconds_per_step == 0
    pace.tick(100.0, 160.0)  # sets things up
    assert pace.seconds_per_step == 60
    for step in range(1, 11):  # ten seconds each, of which two for a checkpoint
        pace.tick(160.0 + 10 * step - 8, 160.0 + 10 * step)
    assert pace.seconds_per_step == pytest.approx(10)


def test_time_left_forgets_what_is_long_ago():
    pace = Pace()
    for step in range(3 * PACE_STEPS):
        pace.tick(step, step + 1)
    for step in range(PACE_STEPS + 1):
        pace.tick(0, 3 * PACE_STEPS + 5 * step)
    assert pace.seconds_per_step == pytest.approx(5)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 PCIe", None),  # 756e12: with the larger peak its utilisation would look poor
        ("NVIDIA H100 NVL", None),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_peak_is_that_of_the_device_by_the_name_that_torch_gives(name, peak):
    found = device_called(name)
    assert (found and found.bfloat16_flops) == peak
