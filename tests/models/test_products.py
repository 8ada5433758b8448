"""bfloat16 products by way of float32: the same numbers as torch's own, whatever the processor has."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from tsugiki.models import products
from tsugiki.models.attention import attend
from tsugiki.models.products import is_slow, linear


@pytest.fixture
def slow(monkeypatch):
    """A CPU without instructions for bfloat16."""
    monkeypatch.setattr(products, "multiplies_bfloat16", lambda: False)


def draw(*shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator).to(dtype).requires_grad_()


def close(a, b):
    """Within one rounding of bfloat16 (8 bits) of the largest value."""
    assert a.dtype == b.dtype
    a, b = a.detach().float(), b.detach().float()
    assert float((a - b).abs().max()) <= 2**-7 * float(b.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("biased", [False, True])
def test_slow_linear_under_autocast_is_torchs_own(slow, dtype, biased):
    x, weight, bias = draw(3, 5, 16, dtype=dtype), draw(7, 16, dtype=dtype), draw(7, dtype=dtype)
    arguments = (x, weight, bias if biased else None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = linear(*arguments), F.linear(*arguments)
    close(ours, theirs)
    given = [tensor for tensor in arguments if tensor is not None]
    grad = torch.ones_like(theirs) / 3
    for a, b in zip(
        torch.autograd.grad(ours, given, grad), torch.autograd.grad(theirs, given, grad), strict=True
    ):
        close(a, b)


def test_float32_product_outside_of_autocast_is_left_alone(slow):
    x, weight = draw(5, 16), draw(7, 16)
    assert not is_slow(x)
    assert torch.equal(linear(x, weight), F.linear(x, weight))


def test_bfloat16_product_on_a_cpu_with_instructions_is_torchs(monkeypatch):
    monkeypatch.setattr(products, "multiplies_bfloat16", lambda: True)
    x, weight = draw(5, 16, dtype=torch.bfloat16), draw(7, 16, dtype=torch.bfloat16)
    assert not is_slow(x)
    assert torch.equal(linear(x, weight), F.linear(x, weight))


def test_slow_product_without_gradients_of_the_weight_computes_none(slow):
    x, weight = draw(5, 16, dtype=torch.bfloat16), draw(7, 16, dtype=torch.bfloat16).detach()
    linear(x, weight).sum().backward()
    assert x.grad is not None
    assert weight.grad is None


def test_slow_attention_is_near_float32_and_stays_bfloat16(slow):
    q, k, v = (draw(1, 4, 12, 8) for _ in range(3))
    exact = attend(q, k, v)
    rough = attend(q.bfloat16(), k.bfloat16(), v.bfloat16())
    assert rough.dtype == torch.bfloat16
    difference = (rough.float() - exact).detach()
    assert float(difference.abs().max()) < 0.03


def test_slow_attention_under_autocast_multiplies_in_float32(slow, monkeypatch):
    """Rotary positions leave queries and keys in float32, which autocast would round to slow bfloat16."""
    types = set()
    original = F.scaled_dot_product_attention

    def watch(q, k, v, **options):
        types.update((x.dtype, torch.is_autocast_enabled("cpu")) for x in (q, k, v))
        return original(q, k, v, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watch)
    q, k, v = (draw(1, 4, 12, 8) for _ in range(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = attend(q, k, v.bfloat16())
    assert rough.dtype == torch.bfloat16
    assert types == {(torch.float32, False)}
    torch.testing.assert_close(rough.float(), attend(q, k, v), atol=0.03, rtol=0)
