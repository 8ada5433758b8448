"""Every family against transformers: logits, gradients, documents, files both ways, generation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tsugiki.models.attention import KeyValueCache
from tsugiki.models.config import DecoderConfig, MixtureOfExperts, RopeScaling
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.directory import load_decoder
from tsugiki.models.generation import generate
from tsugiki.models.names import stored_pieces
from tsugiki.models.weights import read_headers, write_weights

VOCABULARY = 64
LLAMA = DecoderConfig(
    vocabulary_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=48,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=8,
    rope_theta=10_000.0,
    norm_eps=1e-5,
    tied_embeddings=False,
    max_positions=256,
    bos_id=1,
    eos_id=None,
    initializer_std=0.2,
)
MIXTRAL = replace(LLAMA, family="mixtral", moe=MixtureOfExperts(4, 2, 48))
SPARSE = MixtureOfExperts(8, 3, 16)
SHARED = replace(LLAMA, family="qwen2_moe", moe=replace(SPARSE, shared_size=40))
QWEN3 = replace(LLAMA, family="qwen3", head_dim=12, tied_embeddings=True)
VARIANTS = {
    "llama": LLAMA,
    "llama-tied-multi-query": replace(LLAMA, tied_embeddings=True, kv_heads=1),
    "llama-3.1": replace(LLAMA, rope_theta=5e5, rope_scaling=RopeScaling(8.0, 1.0, 4.0, 64)),
    "mistral": replace(LLAMA, family="mistral"),
    "mistral-window": replace(LLAMA, family="mistral", sliding_window=10),
    "qwen2": replace(LLAMA, family="qwen2"),
    "qwen2-window": replace(
        LLAMA, family="qwen2", layers=3, sliding_window=7, full_attention_layers=1, tied_embeddings=True
    ),
    "qwen3": QWEN3,
    "qwen3-window": replace(QWEN3, sliding_window=9, full_attention_layers=1),
    "mixtral": MIXTRAL,
    "mixtral-window": replace(MIXTRAL, sliding_window=12),
    "qwen2-moe": SHARED,
    "qwen2-moe-raw-weights": replace(
        SHARED, tied_embeddings=True, moe=replace(SPARSE, normalise=False, shared_size=16)
    ),
    "qwen2-moe-some-dense": replace(
        SHARED, layers=4, moe=replace(SHARED.moe, sparse_step=2, dense_layers=(3,))
    ),
    "qwen2-moe-3.1-rope": replace(SHARED, rope_theta=5e5, rope_scaling=RopeScaling(8.0, 1.0, 4.0, 64)),
    "qwen3-moe": replace(QWEN3, family="qwen3_moe", moe=SPARSE),
    "qwen3-moe-raw-weights": replace(
        QWEN3, family="qwen3_moe", tied_embeddings=False, moe=replace(SPARSE, normalise=False)
    ),
    "qwen3-moe-some-dense": replace(
        QWEN3, family="qwen3_moe", layers=4, moe=replace(SPARSE, sparse_step=2, dense_layers=(3,))
    ),
    "qwen3-moe-window": replace(QWEN3, family="qwen3_moe", sliding_window=11, moe=SPARSE),
}
every_variant = pytest.mark.parametrize("name", VARIANTS)


@torch.no_grad()
def build(name, seed=0) -> Decoder:
    """Random weights throughout: norms and biases too, which `initialise` leaves at 1 and 0."""
    decoder = Decoder(VARIANTS[name])
    initialise(decoder, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for parameter in decoder.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return decoder


def peer_of(decoder):
    """Transformers' model with the same weights, handed over in the layout that it has in memory."""
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = CONFIG_MAPPING[decoder.config.family](**decoder.config.to_hf())
    peer = AutoModelForCausalLM.from_config(config)
    weights = peers_layout(decoder.config, decoder.state_dict())
    loaded = peer.load_state_dict(weights, strict=False)
    assert loaded.unexpected_keys == []
    assert loaded.missing_keys == (["lm_head.weight"] if decoder.config.tied_embeddings else [])
    return peer.eval()


def peers_layout(config, tensors):
    stored = {}
    for key, pieces in stored_pieces(config, tensors, fused=True).items():
        parts = [piece.of(tensors) for piece in pieces]
        stored[key] = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-2)
    return stored


def tokens(batch, time, seed=0):
    """Rows in which every token of the vocabulary comes up."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randperm(VOCABULARY, generator=generator) for _ in range(-(-batch * time // VOCABULARY))]
    return torch.cat(rows)[: batch * time].view(batch, time)


@every_variant
def test_logits_equal_those_of_transformers(name):
    decoder = build(name)
    peer, ids_BT = peer_of(decoder), tokens(2, 64)
    with torch.no_grad():
        logits_BTV = decoder(ids_BT)
        assert logits_BTV.std() > 0.5  # else a tolerance of 1e-5 would say little
        torch.testing.assert_close(logits_BTV, peer(ids_BT).logits, atol=1e-5, rtol=0)


@every_variant
def test_logits_notice_a_change_of_any_weight(name):
    decoder = build(name)
    ids_BT, generator = tokens(4, 64), torch.Generator().manual_seed(2)
    with torch.no_grad():
        theirs_BTV = peer_of(decoder)(ids_BT).logits
        for key, parameter in decoder.named_parameters():
            place = int(torch.randint(parameter.numel(), (), generator=generator))
            before = parameter.view(-1)[place].clone()
            parameter.view(-1)[place] += 0.3
            difference = float((decoder(ids_BT) - theirs_BTV).abs().max())
            assert difference > 1e-5, key
            parameter.view(-1)[place] = before
        torch.testing.assert_close(decoder(ids_BT), theirs_BTV, atol=1e-5, rtol=0)


@every_variant
def test_gradients_equal_those_of_transformers(name):
    decoder = build(name)
    peer, ids_BT = peer_of(decoder), tokens(2, 33)
    decoder(ids_BT).square().mean().backward()
    peer(ids_BT).logits.square().mean().backward()
    ours = peers_layout(
        decoder.config, {key: parameter.grad for key, parameter in decoder.named_parameters()}
    )
    theirs = {key: parameter.grad for key, parameter in peer.named_parameters()}
    assert ours.keys() == theirs.keys()
    for key, gradient in ours.items():
        assert gradient.abs().max() > 0, key
        torch.testing.assert_close(gradient, theirs[key], atol=1e-6, rtol=1e-4, msg=key)


@every_variant
def test_bfloat16_logits_are_close_to_transformers(name):
    ids_BT, ours, theirs = tokens(2, 64), 0.0, 0.0
    for seed in range(3):  # rounding sends some tokens to other experts, in either model
        decoder = build(name, seed)
        peer = peer_of(decoder).bfloat16()
        with torch.no_grad():
            exact_BTV = decoder(ids_BT)
            ours += (decoder.bfloat16()(ids_BT) - exact_BTV).abs().mean()
            theirs += (peer(ids_BT).logits - exact_BTV).abs().mean()
    assert ours <= 1.5 * theirs  # as far from the exact logits as theirs


@every_variant
def test_autocast_step_is_close_to_the_float32_one(name):
    gradients = []
    for enabled in (False, True):
        decoder, ids_BT = build(name), tokens(2, 32)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            decoder(ids_BT).float().square().mean().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in decoder.parameters()]))
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.95
    assert not torch.equal(*gradients)


@every_variant
def test_documents_packed_give_the_peers_logits_of_documents_apart(name):
    decoder = build(name)
    peer, lengths = peer_of(decoder), [[5, 30, 1, 28], [64], [20, 44]]
    ids_BT = tokens(3, 64)
    numbers = [torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row)) for row in lengths]
    with torch.no_grad():
        packed_BTV = decoder(ids_BT, document_ids_BT=torch.stack(numbers))
        for row, parts in enumerate(lengths):
            apart = [peer(part[None]).logits[0] for part in ids_BT[row].split(parts)]
            torch.testing.assert_close(packed_BTV[row], torch.cat(apart), atol=1e-5, rtol=0)


@every_variant
def test_documents_change_of_one_leaves_the_others_logits_alone(name):
    decoder, ids_BT = build(name), tokens(1, 64)
    documents_BT = torch.zeros_like(ids_BT)
    documents_BT[0, 20:], documents_BT[0, 41:] = 1, 2
    changed_BT = ids_BT.clone()
    changed_BT[0, 20:41] = (changed_BT[0, 20:41] + 7) % VOCABULARY
    with torch.no_grad():
        before, after = (decoder(ids, document_ids_BT=documents_BT)[0] for ids in (ids_BT, changed_BT))
    others = torch.cat((torch.arange(20), torch.arange(41, 64)))
    torch.testing.assert_close(before[others], after[others], atol=1e-6, rtol=0)
    assert not torch.allclose(before[20:41], after[20:41], atol=1e-2)


@every_variant
def test_cache_filled_in_chunks_gives_the_logits_of_one_pass(name):
    decoder, ids_BT = build(name), tokens(2, 40)
    cache = KeyValueCache(decoder.config.layers, 40)
    with torch.no_grad():
        chunks = [decoder.hidden(part, cache=cache) for part in ids_BT.split([9, 1, 17, 13], dim=1)]
        torch.testing.assert_close(torch.cat(chunks, dim=1), decoder.hidden(ids_BT), atol=1e-5, rtol=0)


@every_variant
def test_generate_greedy_equals_transformers(name):
    decoder, prompt = build(name), [5, 40, 21, 9, 33]
    ids_BT = torch.tensor([prompt])
    theirs = peer_of(decoder).generate(
        ids_BT,
        attention_mask=torch.ones_like(ids_BT),
        max_new_tokens=24,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert generate(decoder, prompt, 24) == theirs[0, len(prompt) :].tolist()


@every_variant
@pytest.mark.parametrize("shard_size", ["1GB", "20KB"])
def test_directory_that_transformers_wrote_is_read(name, shard_size, tmp_path):
    decoder = build(name)
    peer = peer_of(decoder)
    peer.save_pretrained(tmp_path, max_shard_size=shard_size)
    loaded = load_decoder(tmp_path)
    assert loaded.config == decoder.config
    for key, tensor in decoder.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[key]), key


@every_variant
@pytest.mark.parametrize("shard_bytes", [10**9, 20_000])
def test_directory_written_holds_the_names_and_bytes_that_transformers_writes(name, shard_bytes, tmp_path):
    from safetensors.torch import load_file

    from tsugiki.models.names import export_tensors

    decoder = build(name)
    peer_of(decoder).save_pretrained(tmp_path / "theirs")
    write_weights(
        tmp_path / "ours", export_tensors(decoder.config, decoder.state_dict()), shard_bytes=shard_bytes
    )
    ours = {key: entry.file for key, entry in read_headers(tmp_path / "ours").items()}
    theirs = load_file(tmp_path / "theirs" / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert (len(set(ours.values())) > 1) == (shard_bytes == 20_000)
    for key, tensor in theirs.items():
        assert torch.equal(load_file(ours[key])[key], tensor), key


@pytest.mark.parametrize("name", [name for name in VARIANTS if VARIANTS[name].moe])
def test_weights_in_transformers_layout_of_memory_are_read(name, tmp_path):
    from tsugiki.artifacts.files import write_json

    decoder = build(name)
    write_weights(tmp_path, peers_layout(decoder.config, decoder.state_dict()))
    write_json(tmp_path / "config.json", decoder.config.to_hf())
    loaded = load_decoder(tmp_path).state_dict()
    assert all(torch.equal(tensor, loaded[key]) for key, tensor in decoder.state_dict().items())
