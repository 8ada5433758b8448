from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.models import attention
from tsugiki.models.attention import DocumentLayout
from tsugiki.models.config import RopeScaling, preset
from tsugiki.models.decoder import Decoder, initialise

NANO = preset("llama-nano")
VARIANTS = {
    "grouped": NANO,
    "tied": replace(NANO, tied_embeddings=True),
    "multi-head": replace(NANO, kv_heads=4),
    "multi-query": replace(NANO, kv_heads=1),
    "wide-heads": replace(NANO, head_dim=32),
    "llama3-rope": replace(NANO, rope_theta=5e5, rope_scaling=RopeScaling(8.0, 1.0, 4.0, 64)),
}


def build(config, seed=0):
    decoder = Decoder(config)
    initialise(decoder, seed)
    return decoder


def ids_BT(batch, time, seed=0):
    return torch.randint(
        0, NANO.vocabulary_size, (batch, time), generator=torch.Generator().manual_seed(seed)
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_decoder_logits_equal_those_of_transformers(name):
    from transformers import LlamaConfig, LlamaForCausalLM

    decoder = build(VARIANTS[name])
    peer = LlamaForCausalLM(LlamaConfig(**VARIANTS[name].to_hf()))
    missing = peer.load_state_dict(decoder.state_dict(), strict=False)
    assert missing.unexpected_keys == []
    assert missing.missing_keys == (["lm_head.weight"] if decoder.config.tied_embeddings else [])
    tokens = ids_BT(2, 100)
    with torch.no_grad():
        torch.testing.assert_close(decoder(tokens), peer(tokens).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["grouped", "tied"])
def test_decoder_gradients_equal_those_of_transformers(name):
    from transformers import LlamaConfig, LlamaForCausalLM

    decoder, tokens = build(VARIANTS[name]), ids_BT(2, 33)
    peer = LlamaForCausalLM(LlamaConfig(**VARIANTS[name].to_hf()))
    peer.load_state_dict(decoder.state_dict(), strict=False)
    decoder(tokens).square().mean().backward()
    peer(tokens).logits.square().mean().backward()
    gradients = {key: parameter.grad for key, parameter in peer.named_parameters()}
    for key, parameter in decoder.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[key], atol=1e-6, rtol=1e-4)


def test_decoder_bfloat16_is_close_to_transformers():
    from transformers import LlamaConfig, LlamaForCausalLM

    decoder, tokens = build(NANO).bfloat16(), ids_BT(2, 64)
    peer = LlamaForCausalLM(LlamaConfig(**NANO.to_hf())).bfloat16()
    peer.load_state_dict(decoder.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(decoder(tokens), peer(tokens).logits, atol=5e-3, rtol=0)


def test_decoder_forward_is_head_of_hidden_and_causal():
    decoder, tokens = build(NANO), ids_BT(1, 40)
    changed = tokens.clone()
    changed[0, 30] += 1
    with torch.no_grad():
        logits_BTV = decoder(tokens)
        assert torch.equal(logits_BTV, decoder.head(decoder.hidden(tokens)))
        assert torch.equal(logits_BTV[:, :30], decoder(changed)[:, :30])
        assert not torch.equal(logits_BTV[:, 30:], decoder(changed)[:, 30:])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 5))
def test_documents_packed_give_the_logits_of_documents_apart(lengths, seed):
    decoder = build(NANO)
    tokens = ids_BT(1, sum(lengths), seed)
    documents = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None]
    with torch.no_grad():
        packed = decoder(tokens, document_ids_BT=documents)
        apart = torch.cat([decoder(part) for part in tokens.split(lengths, dim=1)], dim=1)
    torch.testing.assert_close(packed, apart, atol=1e-5, rtol=0)


@pytest.mark.parametrize("path", ["loop", "mask"])
def test_documents_changing_one_leaves_the_others_bit_for_bit(path, monkeypatch):
    if path == "mask":
        monkeypatch.setattr(
            attention,
            "_attend_documents",
            lambda q, k, v, layout: attention._sdpa(q, k, v, mask=layout.mask_B1TT),
        )
    decoder, tokens = build(NANO), ids_BT(2, 60)
    documents = torch.zeros(2, 60, dtype=torch.int64)
    documents[0, 25:], documents[0, 45:], documents[1, 10:] = 7, 3, 1
    changed = tokens.clone()
    changed[0, 25:45] = (changed[0, 25:45] + 11) % NANO.vocabulary_size
    with torch.no_grad():
        before = decoder(tokens, document_ids_BT=documents)
        after = decoder(changed, document_ids_BT=documents)
    untouched = torch.ones(2, 60, dtype=torch.bool)
    untouched[0, 25:45] = False
    assert torch.equal(before[untouched], after[untouched])
    assert not torch.equal(before[~untouched], after[~untouched])


def test_documents_loop_and_mask_give_the_same_logits_and_gradients(monkeypatch):
    tokens, documents = ids_BT(3, 50), (torch.arange(50)[None] + torch.tensor([[0], [5], [9]])) // 13
    results = []
    for use_mask in (False, True):
        if use_mask:
            monkeypatch.setattr(
                attention,
                "_attend_documents",
                lambda q, k, v, layout: attention._sdpa(q, k, v, mask=layout.mask_B1TT),
            )
        decoder = build(NANO)
        logits = decoder(tokens, document_ids_BT=documents)
        logits.square().mean().backward()
        results.append((logits.detach(), decoder.model.layers[0].self_attn.k_proj.weight.grad))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-5, rtol=0)
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-6, rtol=1e-4)


def test_document_layout_positions_restart_at_runs_and_rows():
    layout = DocumentLayout.from_ids(torch.tensor([[5, 5, 5, 2, 2, 5], [5, 5, 1, 1, 1, 1]]))
    assert layout.positions_BT.tolist() == [[0, 1, 2, 0, 1, 0], [0, 1, 0, 1, 2, 3]]
    assert layout.lengths == [3, 2, 1, 2, 4]


def test_documents_one_a_row_equals_no_documents():
    decoder, tokens = build(NANO), ids_BT(2, 30)
    with torch.no_grad():
        documents = torch.zeros_like(tokens)
        assert torch.equal(decoder(tokens, document_ids_BT=documents), decoder(tokens))


def test_new_decoder_holds_nan_and_leaves_the_random_state_alone():
    state = torch.random.get_rng_state()
    decoder = Decoder(NANO)
    assert decoder.lm_head.weight.isnan().all()
    initialise(decoder, 3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(parameter.isnan().any() for parameter in decoder.parameters())


def test_initialise_is_decided_by_the_seed_alone():
    torch.manual_seed(1)
    one = build(NANO, seed=4).state_dict()
    torch.manual_seed(2)
    same, other = build(NANO, seed=4).state_dict(), build(NANO, seed=5).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["lm_head.weight"], other["lm_head.weight"])
    assert not torch.equal(one["lm_head.weight"], one["model.embed_tokens.weight"])


def test_initialise_scales_the_matrices_that_write_into_the_residual_stream():
    weights = build(replace(NANO, layers=8, hidden_size=128)).state_dict()
    plain = weights["model.layers.3.mlp.up_proj.weight"].std().item()
    residual = weights["model.layers.3.mlp.down_proj.weight"].std().item()
    assert plain == pytest.approx(0.02, rel=0.05)
    assert residual == pytest.approx(0.02 / 4, rel=0.05)  # sqrt(2 · 8) = 4
    assert (weights["model.layers.3.input_layernorm.weight"] == 1).all()


def test_casting_to_bfloat16_keeps_the_rotary_angles_in_float32():
    from tsugiki.models.decoder import rotary

    cos, _ = rotary(NANO, torch.arange(512)[None], torch.float32)
    assert "inv_freq" not in "".join(build(NANO).state_dict())
    expected = torch.cos(torch.tensor(511.0) * (10000.0 ** torch.tensor(-2 / 16)))
    assert cos[0, 0, 511, 1].item() == pytest.approx(expected.item(), abs=1e-4)
