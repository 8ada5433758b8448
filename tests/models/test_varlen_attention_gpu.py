"""The kernel for packed documents on a GPU: numbers, gradients, waiting, speed and memory."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

import pytest
import torch

from tsugiki.models.attention import DocumentLayout, attend
from tsugiki.models.config import MixtureOfExperts, preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.varlen_attention import attend_by_kernel, fault_of, torchs_kernel

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda")
NANO = replace(preset("llama-nano"), vocabulary_size=96, head_dim=16, heads=4, kv_heads=2)
WINDOWED = replace(NANO, family="mistral", sliding_window=9)
SPARSE = replace(WINDOWED, family="qwen3_moe", moe=MixtureOfExperts(4, 2, 32))
DOCUMENTS_BT = torch.tensor([[0] * 5 + [1] * 30 + [2] + [3] * 28, [0] * 64, [7] * 20 + [3] * 44])


@pytest.mark.parametrize("width", [16, 64, 80, 128, 256])
@pytest.mark.parametrize("groups", [1, 4])
def test_torchs_kernel_on_a_gpu_has_no_fault(width, groups):
    shape = replace(WINDOWED, head_dim=width, heads=4, kv_heads=4 // groups)
    for dtype in (torch.bfloat16, torch.float16):
        assert fault_of(torchs_kernel(), shape, CUDA, dtype) == ""


@pytest.mark.parametrize("shape", [NANO, WINDOWED, SPARSE], ids=lambda shape: shape.family)
def test_decoder_on_a_gpu_agrees_with_itself_under_a_mask(shape):
    gradients = []
    for by_kernel in (False, True):
        decoder = Decoder(shape)
        initialise(decoder, 1)
        decoder.cuda()
        if by_kernel:
            attend_by_kernel([decoder], torchs_kernel())
        with torch.autocast("cuda", dtype=torch.bfloat16):
            hidden = decoder.hidden((torch.arange(192).view(3, 64) % 96).cuda(), document_ids_BT=DOCUMENTS_BT)
        hidden.float().square().mean().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in decoder.parameters()]))
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.995
    assert not torch.equal(*gradients)


def test_a_step_on_a_gpu_never_waits_for_it():
    decoder = Decoder(NANO)
    initialise(decoder, 1)
    decoder.cuda()
    attend_by_kernel([decoder], torchs_kernel())
    ids_BT = (torch.arange(192).view(3, 64) % 96).cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            hidden = decoder.hidden(ids_BT, document_ids_BT=DOCUMENTS_BT)
        hidden.float().square().mean().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_torchs_kernel_on_a_gpu_is_faster_and_smaller_than_a_mask():
    time_, kernel = 8192, torchs_kernel()
    layout = DocumentLayout.from_ids((torch.arange(time_) // 512)[None], CUDA)
    q, k, v = (
        torch.randn(1, heads, time_, 128, device=CUDA, dtype=torch.bfloat16, requires_grad=True)
        for heads in (16, 4, 4)
    )
    gradient = torch.randn_like(q)
    seconds, peaks = [], []
    for way in (None, kernel):
        taken = []
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        for _ in range(7):
            torch.cuda.synchronize()
            begun = time.perf_counter()
            attend(q, k, v, layout, kernel=way).backward(gradient)
            torch.cuda.synchronize()
            taken.append(time.perf_counter() - begun)
        seconds.append(statistics.median(taken[2:]))
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert seconds[1] < seconds[0] / 2
    assert peaks[1] < peaks[0] / 2
