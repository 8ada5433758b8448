import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.training.loss import head_loss
from tsugiki.training.memory import LOGIT_ELEMENTS


def random_problem(tokens=37, width=8, vocabulary=29, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, width, generator=generator)
    weight = torch.randn(vocabulary, width, generator=generator)
    targets = torch.randint(vocabulary, (tokens,), generator=generator)
    targets[::5] = -100
    return hidden.requires_grad_(), weight.requires_grad_(), targets


def plain_loss(hidden, weight, targets, z_loss, scale):
    """The same by torch's own functions and automatic differentiation."""
    logits = (hidden @ weight.T).float()
    cross_entropy = F.cross_entropy(logits, targets, ignore_index=-100, reduction="sum")
    z_term = (logits.logsumexp(1).square() * (targets != -100)).sum() * z_loss
    return (cross_entropy + z_term) * scale, cross_entropy


@settings(max_examples=30, deadline=None)
@given(
    tokens=st.integers(1, 50),
    vocabulary=st.integers(2, 40),
    chunk=st.integers(1, 400),
    z_loss=st.sampled_from([0.0, 1e-4, 0.3]),
    scale=st.sampled_from([1.0, 0.01]),
    seed=st.integers(0, 1000),
)
def test_head_loss_values_and_gradients_are_those_of_automatic_differentiation(
    tokens, vocabulary, chunk, z_loss, scale, seed
):
    hidden, weight, targets = random_problem(tokens, 8, vocabulary, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LOGIT_ELEMENTS, "cpu", chunk)
        sums = head_loss(hidden, weight, targets, z_loss=z_loss, scale=scale)
    got = torch.autograd.grad(sums.objective, (hidden, weight))
    objective, cross_entropy = plain_loss(hidden, weight, targets, z_loss, scale)
    expected = torch.autograd.grad(objective, (hidden, weight))
    torch.testing.assert_close(sums.objective, objective, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sums.cross_entropy, cross_entropy, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_head_loss_passes_on_the_factor_of_what_comes_after():
    hidden, weight, targets = random_problem()
    (once,) = torch.autograd.grad(head_loss(hidden, weight, targets).objective, hidden)
    (thrice,) = torch.autograd.grad(3 * head_loss(hidden, weight, targets).objective, hidden)
    torch.testing.assert_close(thrice, 3 * once)


def test_head_loss_without_counted_targets_is_zero_with_zero_gradients():
    hidden, weight, _ = random_problem()
    sums = head_loss(hidden, weight, torch.full((37,), -100), z_loss=0.1)
    gradients = torch.autograd.grad(sums.objective, (hidden, weight))
    assert sums.objective.item() == 0
    assert all(float(gradient.abs().max()) == 0 for gradient in gradients)


def test_head_loss_without_gradients_gives_the_same_sums():
    hidden, weight, targets = random_problem()
    with torch.no_grad():
        quiet = head_loss(hidden, weight, targets)
    assert not quiet.objective.requires_grad
    assert float(quiet.cross_entropy) == float(head_loss(hidden, weight, targets).cross_entropy)


def test_head_loss_in_bfloat16_is_near_float32_and_keeps_weight_gradients_in_float32():
    hidden, weight, targets = random_problem(200, 64, 100)
    hidden, weight = (x.detach().mul(0.3).requires_grad_() for x in (hidden, weight))
    exact = torch.autograd.grad(head_loss(hidden, weight, targets).objective, weight)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sums = head_loss(hidden, weight, targets)
    (rough,) = torch.autograd.grad(sums.objective, weight)
    assert rough.dtype == torch.float32
    assert float((rough - exact).norm() / exact.norm()) < 0.02


def test_head_loss_of_a_sure_and_right_model_is_zero_and_of_a_wrong_one_finite():
    hidden = torch.tensor([[300.0, 0.0], [300.0, 0.0]])
    weight = torch.eye(2)
    assert float(head_loss(hidden, weight, torch.tensor([0, 0])).cross_entropy) == 0
    assert float(head_loss(hidden, weight, torch.tensor([1, 1])).cross_entropy) == 600
