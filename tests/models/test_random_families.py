"""Random shapes of every family, as transformers writes them: logits, gradients, packed documents."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tsugiki.models.config import FAMILIES
from tsugiki.models.directory import load_decoder

LENGTH, CUTS = 24, (5, 18)
SCALING = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@st.composite
def shapes(draw, family):
    """Keys of a config.json, by transformers' names."""
    layers, kv_heads, head_dim = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 3)),
        draw(st.sampled_from([4, 6, 16])),
    )
    heads, experts = kv_heads * draw(st.integers(1, 3)), draw(st.integers(2, 6))
    rope = {"rope_theta": draw(st.sampled_from([1e4, 5e5])), "rope_type": "default"}
    if draw(st.booleans()):
        rope |= {**SCALING, "original_max_position_embeddings": draw(st.sampled_from([16, 64]))}
    keys = {
        "vocab_size": draw(st.sampled_from([17, 64, 101])),
        # transformers 5 wants whole heads of a Llama, and 16 bytes of what its experts multiply
        "hidden_size": heads * head_dim if family == "llama" else draw(st.sampled_from([16, 24, 40])),
        "intermediate_size": draw(st.sampled_from([8, 20, 36])),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-3])),
        "max_position_embeddings": 64,
        "tie_word_embeddings": draw(st.booleans()),
        "rope_parameters": rope,
        "initializer_range": 0.2,
        "pad_token_id": None,
    }
    if FAMILIES[family].windows != "none":
        keys["sliding_window"] = draw(st.sampled_from([1, 3, 11, 100]))
        keys["use_sliding_window"] = draw(st.booleans())
    if FAMILIES[family].windows == "upper":
        keys["max_window_layers"] = draw(st.integers(0, 4))
    if family == "mixtral":
        keys |= {"num_local_experts": experts, "num_experts_per_tok": draw(st.integers(1, 2))}
    elif FAMILIES[family].experts:
        keys |= {"num_experts": experts, "num_experts_per_tok": draw(st.integers(1, experts))}
        keys |= {
            "moe_intermediate_size": draw(st.sampled_from([4, 12])),
            "norm_topk_prob": draw(st.booleans()),
        }
        keys |= {"decoder_sparse_step": draw(st.integers(1, 2)), "shared_expert_intermediate_size": 8}
        keys["mlp_only_layers"] = draw(st.lists(st.integers(0, layers - 1), unique=True))
    return keys


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_shape_equals_transformers(family, tmp_path, data):
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    keys = data.draw(shapes(family))
    if family in {"mistral", "mixtral"}:  # which have a window unless the file says null
        keys["sliding_window"] = keys["sliding_window"] if keys.pop("use_sliding_window") else None
    peer = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**keys)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    peer.save_pretrained(tmp_path)
    decoder = load_decoder(tmp_path)
    ids_BT = torch.randint(0, keys["vocab_size"], (2, LENGTH), generator=generator)
    ours_BTV, theirs_BTV = decoder(ids_BT), peer(ids_BT, use_cache=False).logits
    scale = max(1.0, float(theirs_BTV.detach().abs().max()))
    torch.testing.assert_close(ours_BTV, theirs_BTV, atol=1e-5 * scale, rtol=0)
    for logits_BTV in (ours_BTV, theirs_BTV):
        logits_BTV.square().mean().backward()
    theirs, largest = dict(peer.named_parameters()), 0.0
    pairs = [(p.grad, theirs[name].grad) for name, p in decoder.named_parameters() if name in theirs]
    largest = max(float(grad.abs().max()) for _, grad in pairs if grad is not None)
    for mine, other in pairs:
        torch.testing.assert_close(mine, other, atol=1e-5 * largest, rtol=1e-4)
    documents_BT = torch.bucketize(torch.arange(LENGTH), torch.tensor(CUTS), right=True).expand(2, -1)
    with torch.no_grad():
        packed_BTV = decoder(ids_BT, document_ids_BT=documents_BT)
        apart = [peer(part, use_cache=False).logits for part in ids_BT.tensor_split(CUTS, dim=1)]
    torch.testing.assert_close(packed_BTV, torch.cat(apart, dim=1), atol=1e-5 * scale, rtol=0)
