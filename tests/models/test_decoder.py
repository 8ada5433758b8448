from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.errors import InputError
from tsugiki.models import attention
from tsugiki.models.attention import DocumentLayout
from tsugiki.models.config import RopeScaling, preset, spike_no_more
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
        monkeypatch.setattr(attention, "_attend_documents", attention._attend_masked)
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
            monkeypatch.setattr(attention, "_attend_documents", attention._attend_masked)
        decoder = build(NANO)
        logits = decoder(tokens, document_ids_BT=documents)
        logits.square().mean().backward()
        results.append((logits.detach(), decoder.model.layers["0"].self_attn.k_proj.weight.grad))
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
    from tsugiki.models.rotary import rotary

    cos, _ = rotary(NANO, torch.arange(512)[None], torch.float32)
    assert "inv_freq" not in "".join(build(NANO).state_dict())
    expected = torch.cos(torch.tensor(511.0) * (10000.0 ** torch.tensor(-2 / 16)))
    assert cos[0, 0, 511, 1].item() == pytest.approx(expected.item(), abs=1e-4)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", ["llama-nano", "qwen3-moe-nano"])
def test_decoder_in_two_parts_computes_what_the_whole_does(name, tied):
    config = replace(preset(name), layers=3, tied_embeddings=tied)
    whole = build(config)
    parts = [Decoder(config, layers=[0], last=False), Decoder(config, layers=[1, 2], first=False)]
    for part in parts:
        initialise(part, 0)
    tokens = ids_BT(2, 30)
    documents = torch.arange(30).expand(2, 30) // 11
    with torch.no_grad():
        stream_BTD = parts[0](tokens, document_ids_BT=documents)
        assert stream_BTD.shape == (2, 30, config.hidden_size)
        logits_BTV = parts[1](stream_BTD, document_ids_BT=documents)
        assert torch.equal(logits_BTV, whole(tokens, document_ids_BT=documents))
    names = [set(part.state_dict()) for part in parts]
    assert names[0] | names[1] == set(whole.state_dict()) | {"lm_head.weight"}
    assert not names[0] & names[1]
    with pytest.raises(InputError, match="no output head"):
        _ = parts[0].head_weight_VD


def test_decoder_scaled_embedding_multiplies_the_stream_and_not_a_tied_head():
    config = replace(NANO, tied_embeddings=True)
    plain, scaled = build(config), build(replace(config, embedding_scale=8.0))
    tokens = ids_BT(1, 10)
    assert torch.equal(scaled.embed(tokens), plain.embed(tokens) * 8)
    assert torch.equal(scaled.head_weight_VD, plain.head_weight_VD)
    assert not torch.allclose(scaled(tokens), plain(tokens))


def test_initialise_spike_no_more_makes_small_layers_under_a_large_shortcut():
    config = spike_no_more(replace(NANO, hidden_size=160, layers=8))
    decoder = build(config)
    up_FD = decoder.model.layers["3"].mlp.up_proj.weight
    down_DF = decoder.model.layers["3"].mlp.down_proj.weight
    assert up_FD.std().item() == pytest.approx(0.05, rel=0.05)  # sqrt(2 / 800)
    assert down_DF.std().item() == pytest.approx(0.0125, rel=0.05)  # sqrt(2 · 8) = 4
    assert decoder.embed(ids_BT(4, 128)).std().item() == pytest.approx((2 / 5) ** 0.5, rel=0.05)


def test_initialise_experts_draw_the_same_whatever_their_number_and_scale_as_dense_layers():
    config = replace(preset("mixtral-nano"), layers=8)
    few, more = (
        build(replace(config, moe=replace(config.moe, experts=experts))).state_dict() for experts in (4, 6)
    )
    name = "model.layers.2.mlp.experts.down_proj"
    assert torch.equal(few[name], more[name][:4])
    assert few[name].std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert few[name.replace("down", "up")].std().item() == pytest.approx(0.02, rel=0.05)


def test_initialise_biases_are_zero_and_norms_one():
    weights = build(replace(preset("qwen2-nano"), layers=1)).state_dict()
    weights |= build(replace(preset("qwen3-nano"), layers=1)).state_dict()
    biases = [name for name in weights if name.endswith("bias")]
    norms = [name for name in weights if name.endswith("norm.weight")]
    assert len(biases) == 3
    assert len(norms) == 5
    assert not any(weights[name].any() for name in biases)
    assert all((weights[name] == 1).all() for name in norms)


def test_attention_function_of_a_layer_can_be_replaced():
    decoder, tokens = build(NANO), ids_BT(1, 12)
    seen = []

    def watch(q, k, v, layout, window):
        seen.append((q.shape[2], window))
        return attention.attend(q, k, v, layout, window)

    for block in decoder.model.layers.values():
        block.self_attn.attend = watch
    with torch.no_grad():
        assert torch.equal(decoder(tokens), build(NANO)(tokens))
    assert seen == [(12, None)] * 2
