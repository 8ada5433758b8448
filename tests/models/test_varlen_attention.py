"""Attention by the kernel for packed documents.

Here torch's own code runs down to FlashAttention, whose two operators are given a CPU by their definition
(`flash_on_cpu`); `test_varlen_attention_gpu` runs the kernel itself.
"""

from __future__ import annotations

import math
import sys
import types
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from tsugiki.models import attention, varlen_attention
from tsugiki.models.attention import DocumentLayout, attend
from tsugiki.models.config import MixtureOfExperts, preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.varlen_attention import (
    Segments,
    attend_by_kernel,
    attend_segments,
    fault_of,
    in_one_row,
    mask_of,
    torchs_kernel,
    whole_rows,
)

CPU = torch.device("cpu")
NANO = replace(preset("llama-nano"), vocabulary_size=96, head_dim=16, heads=4, kv_heads=2)
WINDOWED = replace(NANO, family="mistral", sliding_window=9)
SPARSE = replace(WINDOWED, family="qwen3_moe", moe=MixtureOfExperts(4, 2, 32))
DOCUMENTS_BT = torch.tensor([[0] * 5 + [1] * 30 + [2] + [3] * 28, [0] * 64, [7] * 20 + [3] * 44])


def seen(cum_q, cum_k, is_causal, left, right):
    """What FlashAttention says that a query sees: both ends of a window count from the ends of a segment."""
    queries, keys = cum_q.diff().tolist(), cum_k.diff().tolist()
    mask = torch.zeros(sum(queries), sum(keys), dtype=torch.bool)
    q, k = 0, 0
    for own, others in zip(queries, keys, strict=True):
        places, back = torch.arange(own)[:, None] + others - own, torch.arange(others)
        within = torch.ones(own, others, dtype=torch.bool)
        if is_causal or right >= 0:
            within &= back <= places + (0 if is_causal else right)
        if left >= 0:
            within &= back >= places - left
        mask[q : q + own, k : k + others] = within
        q, k = q + own, k + others
    return mask


def by_head(x, heads):
    return x.float().transpose(0, 1).repeat_interleave(heads // x.shape[1], dim=0)


def flash_forward(q, k, v, cum_q, cum_k, max_q, max_k, dropout, is_causal, return_debug_mask, **options):
    assert (max_q, max_k, dropout) == (int(cum_q.diff().max()), int(cum_k.diff().max()), 0.0)
    assert cum_q.dtype == cum_k.dtype == torch.int32
    assert (int(cum_q[-1]), int(cum_k[-1])) == (len(q), len(k))  # else its gradients are NaN
    mask = seen(cum_q, cum_k, is_causal, options["window_size_left"], options["window_size_right"])
    scores = by_head(q, q.shape[1]) @ by_head(k, q.shape[1]).mT / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(~mask, -math.inf)
    out = scores.softmax(dim=-1) @ by_head(v, q.shape[1])
    nothing = torch.empty(0)
    return out.transpose(0, 1).to(q.dtype), scores.logsumexp(dim=-1), nothing, nothing, nothing


def flash_backward(
    grad, q, k, v, out, lse, cum_q, cum_k, max_q, max_k, dropout, is_causal, state, unused, **options
):
    heads, scale = q.shape[1], 1 / math.sqrt(q.shape[-1])
    mask = seen(cum_q, cum_k, is_causal, options["window_size_left"], options["window_size_right"])
    whole_q, whole_k, whole_v, grad, out = (by_head(x, heads) for x in (q, k, v, grad, out))
    weights = ((whole_q @ whole_k.mT * scale) - lse[..., None]).exp() * mask
    grad_scores = weights * (grad @ whole_v.mT - (grad * out).sum(dim=-1, keepdim=True)) * scale
    of_keys = [
        x.unflatten(0, (k.shape[1], -1)).sum(dim=1) for x in (grad_scores.mT @ whole_q, weights.mT @ grad)
    ]
    return tuple(x.transpose(0, 1).to(q.dtype).contiguous() for x in (grad_scores @ whole_k, *of_keys))


@pytest.fixture(scope="module")
def flash_on_cpu():
    with torch.library._scoped_library("aten", "IMPL") as library:
        library.impl("_flash_attention_forward", flash_forward, "CPU")
        library.impl("_flash_attention_backward", flash_backward, "CPU")
        yield torchs_kernel()


@pytest.fixture
def kernel(flash_on_cpu, monkeypatch):
    """Torch's function for such attention, taken here on a CPU and in float32 too."""
    monkeypatch.setattr(attention, "is_for_kernel", lambda _x: True)
    return flash_on_cpu


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def passed(way, *given):
    leaves = [x.clone().requires_grad_() for x in given]
    out = way(*leaves)
    out.backward(draw(*out.shape, seed=9).to(out.dtype))
    return [out.detach(), *(leaf.grad for leaf in leaves)]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 25), min_size=2, max_size=6), st.sampled_from([None, 1, 4, 60]), st.integers(1, 3)
)
def test_attend_by_the_kernel_equals_attention_under_a_mask(flash_on_cpu, lengths, window, groups):
    time = sum(lengths)
    numbers = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    layout = DocumentLayout.from_ids(torch.stack((numbers, numbers.flip(0))))
    given = (draw(2, 2 * groups, time, 8), draw(2, 2, time, 8, seed=1), draw(2, 2, time, 8, seed=2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "is_for_kernel", lambda _x: True)
        ours = passed(lambda q, k, v: attend(q, k, v, layout, window, kernel=flash_on_cpu), *given)
    theirs = passed(lambda q, k, v: attention._attend_masked(q, k, v, layout, window), *given)
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 12)), min_size=1, max_size=5),
    st.sampled_from([None, 1, 5]),
)
def test_attend_segments_of_last_queries_equals_attention_under_the_mask(flash_on_cpu, segments, window):
    queries, keys = [own for own, _ in segments], [own + earlier for own, earlier in segments]
    q, k, v = draw(1, 4, sum(queries), 8), draw(1, 2, sum(keys), 8, seed=1), draw(1, 2, sum(keys), 8, seed=2)
    parts = Segments.of(queries, keys, CPU)
    out = attend_segments(q, in_one_row(k), in_one_row(v), parts, kernel=flash_on_cpu, window=window)
    expected = attention._sdpa(q, k, v, mask=mask_of(queries, keys, window))
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", [NANO, WINDOWED, SPARSE], ids=lambda shape: shape.family)
@pytest.mark.parametrize("documents_BT", [DOCUMENTS_BT, None], ids=["documents", "rows"])
def test_decoder_by_the_kernel_has_the_same_logits_and_gradients(kernel, shape, documents_BT):
    decoder = Decoder(shape)
    initialise(decoder, 1)
    ids_BT = torch.randint(0, 96, (3, 64), generator=torch.Generator().manual_seed(2))
    calls = []

    def counted(*given):
        calls.append(given)
        return kernel(*given)

    found = []
    for by_kernel in (False, True):
        if by_kernel:
            attend_by_kernel([decoder], counted)
        decoder.zero_grad()
        logits_BTV = decoder(ids_BT, document_ids_BT=documents_BT)
        logits_BTV.square().mean().backward()
        found.append([logits_BTV.detach(), *(parameter.grad for parameter in decoder.parameters())])
    # rows without windows are left to torch's causal attention
    expected = shape.layers if documents_BT is not None or shape.sliding_window else 0
    assert len(calls) == expected
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_segments_are_made_once_for_all_layers(kernel):
    decoder, seen = Decoder(NANO), []
    initialise(decoder, 1)
    attend_by_kernel([decoder], lambda *given: seen.append(given[3]) or kernel(*given))
    decoder(torch.zeros(3, 64, dtype=torch.int64), document_ids_BT=DOCUMENTS_BT)
    assert len(seen) == NANO.layers > 1
    assert len({id(segments) for segments in seen}) == 1
    assert seen[0].query_ends.tolist() == [0, 5, 35, 36, 64, 128, 148, 192]
    assert (seen[0].longest_query, seen[0].longest_key) == (64, 64)


def test_whole_rows_made_under_inference_mode_serve_a_backward_pass_too(kernel):
    whole_rows.cache_clear()
    q = draw(2, 2, 30, 8).requires_grad_()
    with torch.inference_mode():
        attend(q, q, q, window=4, kernel=kernel)
    attend(q, q, q, window=4, kernel=kernel).sum().backward()
    assert whole_rows.cache_info().hits >= 1
    assert q.grad.isfinite().all()


def test_lengths_are_read_from_the_host_and_never_from_the_device():
    layout = DocumentLayout.from_ids(DOCUMENTS_BT, torch.device("meta"))  # which holds no numbers to read
    assert layout.positions_BT.device.type == layout.starts_BT.device.type == "meta"
    assert layout.lengths == [5, 30, 1, 28, 64, 20, 44]
    assert layout.segments.query_ends.device.type == "meta"
    assert layout.segments.longest_query == 64
    with pytest.raises(RuntimeError):
        DocumentLayout.from_ids(DOCUMENTS_BT.to("meta")).lengths  # noqa: B018


def test_no_tensor_of_the_length_squared_is_made(kernel):
    from torch._subclasses.fake_tensor import FakeTensorMode

    sizes, operations = [], []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            leaves = torch.utils._pytree.tree_leaves(out)
            sizes.extend(x.numel() for x in leaves if isinstance(x, torch.Tensor))
            operations.append(str(func))
            return out

    time = 8192
    numbers_BT = (torch.arange(time) // 3000)[None]
    layout = DocumentLayout.from_ids(numbers_BT)
    assert layout.segments.longest_key == 3000
    with FakeTensorMode(allow_non_fake_inputs=True), Watch():
        q = torch.empty(1, 8, time, 64, dtype=torch.bfloat16, requires_grad=True)
        k = torch.empty(1, 2, time, 64, dtype=torch.bfloat16, requires_grad=True)
        out = attend(q, k, k, layout, 1000, kernel=kernel)
        assert out.shape == q.shape
        assert out.dtype == q.dtype
        assert [x.shape for x in torch.autograd.grad(out, (q, k), torch.empty_like(out))] == [
            q.shape,
            k.shape,
        ]
    assert max(sizes) == q.numel() < time**2
    assert operations.count("torch_attn._varlen_attn.default") == 1
    assert operations.count("torch_attn._varlen_attn_backward.default") == 1


@pytest.mark.parametrize(("how", "calls"), [("selective", 1), ("full", 2)])
def test_recomputation_keeps_or_repeats_the_kernel(kernel, how, calls):
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    from tsugiki.training.parallel.recompute import CONTEXTS

    gradients, operations = [], []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            operations.append(str(func))
            return func(*args, **(kwargs or {}))

    for wrapped in (False, True):
        decoder = Decoder(replace(NANO, layers=1))
        initialise(decoder, 1)
        if wrapped:
            block = checkpoint_wrapper(decoder.model.layers["0"], context_fn=CONTEXTS[how])
            decoder.model.layers["0"] = block
        attend_by_kernel([decoder], kernel)
        operations.clear()
        with Watch():
            hidden = decoder.hidden(torch.arange(192).view(3, 64) % 96, document_ids_BT=DOCUMENTS_BT)
            hidden.square().sum().backward()
        gradients.append([parameter.grad for parameter in decoder.parameters()])
    assert operations.count("torch_attn._varlen_attn.default") == calls
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)


def test_autocast_hands_its_type_to_the_kernel(kernel):
    q, types_ = draw(1, 4, 64, 8), []
    layout = DocumentLayout.from_ids(DOCUMENTS_BT[:1])

    def watch(q, k, v, segments, window):
        types_.append({q.dtype, k.dtype, v.dtype})
        return kernel(q, k, v, segments, window)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = attend(q, q, q.bfloat16(), layout, kernel=watch)
    assert types_ == [{torch.bfloat16}]
    assert out.dtype == torch.bfloat16


def test_queries_on_a_cpu_are_not_for_the_kernel():
    for dtype in (torch.float32, torch.bfloat16):
        assert not varlen_attention.is_for_kernel(torch.zeros(1, 2, 4, 64, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [NANO, WINDOWED, replace(NANO, kv_heads=4)])
def test_fault_of_a_right_kernel_is_none(flash_on_cpu, shape, dtype):
    state = torch.random.get_rng_state()
    assert fault_of(flash_on_cpu, shape, CPU, dtype) == ""
    assert torch.equal(state, torch.random.get_rng_state())


def across_documents(kernel):
    def wrong(q, k, v, segments, window):
        whole = Segments.of([len(q)], [len(k)], q.device)
        return kernel(q, k, v, whole, window)

    return wrong


def forward_only(kernel):
    def wrong(q, k, v, segments, window):
        return kernel(q, k.detach(), v, segments, window) + 0 * k.sum()

    return wrong


def failing(kernel):
    def wrong(q, k, v, segments, window):
        raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.\nmore lines")

    return wrong


WRONG = {
    "across documents": (across_documents, "its outputs differ by"),
    "window too long": (lambda kernel: lambda q, k, v, s, w: kernel(q, k, v, s, w and w + 1), "window 5"),
    "no window": (lambda kernel: lambda q, k, v, s, _w: kernel(q, k, v, s, None), "window 5"),
    "not a number": (lambda kernel: lambda *given: kernel(*given) * math.nan, "outputs differ by nan"),
    "a sign": (lambda kernel: lambda q, k, v, s, w: kernel(q, -k, v, s, w), "outputs differ"),
    "no gradient": (forward_only, "gradients of keys differ"),
    "failing": (failing, "RuntimeError: FlashAttention only supports Ampere GPUs or newer. (documents)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_fault_of_a_wrong_kernel_says_what_is_wrong(flash_on_cpu, name):
    wrong, said = WRONG[name]
    fault = fault_of(wrong(flash_on_cpu), WINDOWED, CPU, torch.bfloat16)
    assert said in fault
    assert "\n" not in fault


def test_fault_of_a_kernel_that_aligns_windows_to_the_first_query_is_found(flash_on_cpu):
    def wrong(q, k, v, segments, window):
        if segments.query_ends is segments.key_ends:
            return flash_on_cpu(q, k, v, segments, window)
        parts = zip(segments.query_ends.diff().tolist(), segments.key_ends.diff().tolist(), strict=True)
        first, kept = 0, []
        for queries, keys in parts:
            kept.append(torch.arange(first, first + queries))
            first += keys
        index = torch.cat(kept)
        own = Segments(
            segments.query_ends, segments.query_ends, segments.longest_query, segments.longest_query
        )
        return flash_on_cpu(q, k[index], v[index], own, window)

    assert "outputs differ" in fault_of(wrong, NANO, CPU, torch.bfloat16)


def test_fault_of_what_the_kernel_has_not_is_said_without_a_try(monkeypatch):
    def never(*_given):
        raise AssertionError

    assert "torch" in fault_of(None, NANO, CPU, torch.bfloat16)
    assert "not in float32" in fault_of(never, NANO, CPU, torch.float32)
    for width in (4, 260, 320):
        assert f"not {width}" in fault_of(never, replace(NANO, head_dim=width), CPU, torch.bfloat16)


def test_torchs_kernel_knows_the_signatures_of_its_releases(monkeypatch):
    def of_2_10(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False):
        raise AssertionError

    def of_2_11(
        query,
        key,
        value,
        cu_seq_q,
        cu_seq_k,
        max_q,
        max_k,
        *,
        return_aux=None,
        scale=None,
        window_size=(-1, -1),
    ):
        return window_size

    def of_2_12(
        query,
        key,
        value,
        cu_seq_q,
        cu_seq_k,
        max_q,
        max_k,
        *,
        window_size=(-1, -1),
        enable_gqa=False,
        **_more,
    ):
        return window_size, enable_gqa

    segments = Segments.of([3, 7], [3, 7], CPU)
    for function, expected in ((of_2_11, (3, 0)), (of_2_12, ((3, 0), True))):
        module = types.ModuleType("varlen")
        module.varlen_attn = function
        monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", module)
        q = torch.zeros(10, 2, 8)
        assert torchs_kernel()(q, q, q, segments, 4) == expected
        assert (-1, 0) in (torchs_kernel()(q, q, q, segments, 7), torchs_kernel()(q, q, q, segments, 7)[0])
    module.varlen_attn = of_2_10
    assert torchs_kernel() is None
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)
    assert torchs_kernel() is None
