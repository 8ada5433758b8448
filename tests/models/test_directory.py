from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from tsugiki.artifacts.files import sha256_of
from tsugiki.errors import InputError, StageError
from tsugiki.models import directory as directory_module
from tsugiki.models.config import preset, preset_names, spike_no_more
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.directory import (
    check_parity,
    differing_tensors,
    load_decoder,
    read_config,
    resolve_model,
    save_model,
    vocabulary_size,
)
from tsugiki.models.tokenizer import EOS
from tsugiki.models.weights import INDEX, WEIGHTS, read_headers

IDS_BT = torch.arange(64).view(2, 32)


def edit_weights(directory, change):
    weights = load_file(directory / WEIGHTS)
    change(weights)
    save_file(weights, directory / WEIGHTS)


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_save_then_load_gives_the_same_weights_and_config(model_directory, nano, tokenizer):
    loaded = load_decoder(model_directory)
    assert loaded.config == replace(nano.config, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id)
    assert read_config(model_directory) == loaded.config
    for name, tensor in nano.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_save_twice_gives_the_same_bytes(model_directory, nano, tokenizer, tmp_path):
    save_model(nano, tokenizer, tmp_path / "again")
    names = sorted(path.name for path in model_directory.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
    assert not [
        name for name in names if sha256_of(model_directory / name) != sha256_of(tmp_path / "again" / name)
    ]


def test_saved_files_are_what_other_programs_expect(model_directory):
    names = {path.name for path in model_directory.iterdir()}
    assert names == {
        "config.json",
        "generation_config.json",
        WEIGHTS,
        "tokenizer.json",
        "tokenizer_config.json",
    }
    special = json.loads((model_directory / "tokenizer_config.json").read_text())
    assert special.get("eos_token") == EOS
    assert json.loads((model_directory / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shard_bytes", [10**9, 60_000])
def test_transformers_loads_the_directory_and_agrees(tied, shard_bytes, tokenizer, tmp_path):
    decoder = Decoder(replace(preset("llama-nano"), vocabulary_size=tokenizer.size, tied_embeddings=tied))
    initialise(decoder, 2)
    save_model(decoder, tokenizer, tmp_path, shard_bytes=shard_bytes)
    assert (tmp_path / INDEX).exists() == (shard_bytes == 60_000)
    parity = check_parity(tmp_path, IDS_BT, tolerance=1e-5)
    assert parity.max_abs_difference <= 1e-5
    assert parity.positions == 64
    assert vocabulary_size(tmp_path) == tokenizer.size


@pytest.mark.parametrize("name", [name for name in preset_names() if name.endswith("-nano")])
def test_every_family_is_written_checked_and_read_back(name, tokenizer, tmp_path):
    decoder = Decoder(replace(preset(name), vocabulary_size=tokenizer.size))
    initialise(decoder, 4)
    save_model(decoder, tokenizer, tmp_path, shard_bytes=200_000)
    assert check_parity(tmp_path, IDS_BT, tolerance=1e-5).max_abs_difference <= 1e-5
    assert differing_tensors(decoder, tmp_path) == []
    assert vocabulary_size(tmp_path) == tokenizer.size
    loaded = load_decoder(tmp_path)
    assert loaded.config == replace(decoder.config, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id)
    assert all(torch.equal(tensor, loaded.state_dict()[key]) for key, tensor in decoder.state_dict().items())


def test_differing_tensors_names_one_experts_matrix(tokenizer, tmp_path):
    decoder = Decoder(replace(preset("mixtral-nano"), vocabulary_size=tokenizer.size))
    initialise(decoder, 4)
    save_model(decoder, tokenizer, tmp_path)
    with torch.no_grad():
        decoder.model.layers["1"].mlp.experts.up_proj[2, 0, 0] += 1
    assert differing_tensors(decoder, tmp_path) == [
        "model.layers.1.block_sparse_moe.experts.2.w3.weight",
    ]


@pytest.mark.parametrize("tied", [False, True])
def test_scaled_embedding_is_written_as_a_model_that_transformers_agrees_with(tied, tokenizer, tmp_path):
    config = replace(preset("llama-nano"), vocabulary_size=tokenizer.size, tied_embeddings=tied)
    decoder = Decoder(spike_no_more(config))  # sqrt(64): a scale that rounds nothing
    initialise(decoder, 2)
    save_model(decoder, tokenizer, tmp_path)
    assert check_parity(tmp_path, IDS_BT, tolerance=1e-5).max_abs_difference <= 1e-5
    loaded = load_decoder(tmp_path)
    assert (loaded.config.embedding_scale, loaded.config.tied_embeddings) == (1.0, False)
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS_BT), decoder(IDS_BT), atol=1e-6, rtol=0)
    assert differing_tensors(decoder, tmp_path) == []


def test_saving_sharded_over_single_leaves_no_file_of_the_old_generation(model_directory, nano, tokenizer):
    save_model(nano, tokenizer, model_directory, shard_bytes=60_000)
    assert not (model_directory / WEIGHTS).exists()
    save_model(nano, tokenizer, model_directory)
    assert [path.name for path in model_directory.glob("model*")] == [WEIGHTS]


def test_load_casts_and_does_not_map_the_file(model_directory, nano):
    decoder = load_decoder(model_directory, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in decoder.parameters()} == {torch.bfloat16}
    plain = load_decoder(model_directory)
    shutil.rmtree(model_directory)
    assert torch.equal(plain.lm_head.weight, nano.lm_head.weight)


def test_load_stale_rotary_buffer_and_doubled_tied_head_are_passed_over(tokenizer, tmp_path):
    decoder = Decoder(replace(preset("llama-nano"), vocabulary_size=tokenizer.size, tied_embeddings=True))
    initialise(decoder, 0)
    save_model(decoder, tokenizer, tmp_path)

    def add(weights):
        weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()

    edit_weights(tmp_path, add)
    assert torch.equal(load_decoder(tmp_path).head_weight_VD, decoder.head_weight_VD)


def test_load_every_wrong_tensor_is_listed(model_directory):
    def spoil(weights):
        del weights["model.norm.weight"]
        weights["model.layers.0.mlp.up_proj.bias"] = torch.zeros(160)
        weights["lm_head.weight"] = weights["lm_head.weight"][:-1].clone()

    edit_weights(model_directory, spoil)
    with pytest.raises(InputError) as caught:
        load_decoder(model_directory)
    message = str(caught.value)
    assert "model.norm.weight is missing" in message
    assert "up_proj.bias is not known" in message
    assert "lm_head.weight has shape [319, 64], config.json says [320, 64]" in message


@pytest.mark.parametrize("kind", [torch.int8, torch.float8_e4m3fn])
def test_load_quantised_weights_are_refused(model_directory, kind):
    """They would be read as numbers, and mean others: the scale is missing."""

    def quantise(weights):
        name = "model.layers.0.mlp.up_proj.weight"
        weights[name] = (weights[name] * 100).to(kind)

    edit_weights(model_directory, quantise)
    with pytest.raises(InputError, match=r"up_proj\.weight is (I8|F8_E4M3), which is not one of F64, F32"):
        load_decoder(model_directory)


def test_load_tied_embeddings_that_differ_are_refused(tokenizer, tmp_path):
    decoder = Decoder(replace(preset("llama-nano"), vocabulary_size=tokenizer.size, tied_embeddings=True))
    initialise(decoder, 0)
    save_model(decoder, tokenizer, tmp_path)

    def add(weights):
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"] + 1

    edit_weights(tmp_path, add)
    with pytest.raises(InputError, match="says that the embeddings are tied, but"):
        load_decoder(tmp_path)


def test_load_single_file_beside_an_index_is_read_as_transformers_reads_it(nano, tokenizer, tmp_path):
    other = Decoder(nano.config)
    initialise(other, 5)
    save_model(other, tokenizer, tmp_path, shard_bytes=60_000)
    save_model(nano, tokenizer, tmp_path / "whole")
    shutil.copy(tmp_path / "whole" / WEIGHTS, tmp_path / WEIGHTS)
    assert torch.equal(load_decoder(tmp_path).lm_head.weight, nano.lm_head.weight)
    assert check_parity(tmp_path, IDS_BT, tolerance=1e-5).max_abs_difference <= 1e-5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 10**13}, "lm_head.weight has shape .* config.json says .10000000000000, 64"),
        ({"num_hidden_layers": 10**9}, "says 1000000000 layers; the weights are"),
        ({"intermediate_size": 10**12}, "up_proj.weight has shape"),
    ],
)
def test_load_config_that_asks_for_all_memory_is_refused_before_it_is_taken(
    model_directory, changes, message
):
    edit_json(model_directory / "config.json", **changes)
    with pytest.raises(InputError, match=message):
        load_decoder(model_directory)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth"])
def test_load_pickled_weights_are_refused_with_a_way_out(model_directory, name):
    (model_directory / WEIGHTS).rename(model_directory / name)
    with pytest.raises(InputError, match="unpickling runs whatever code"):
        load_decoder(model_directory)


def test_save_tokenizer_larger_than_the_embedding_is_refused(tokenizer, tmp_path):
    decoder = Decoder(replace(preset("llama-nano"), vocabulary_size=300))
    with pytest.raises(InputError, match="320 pieces, the embedding 300 rows"):
        save_model(decoder, tokenizer, tmp_path)


def test_vocabulary_size_reads_headers_only(model_directory, monkeypatch):
    monkeypatch.setattr(directory_module, "read_tensors", None)
    assert vocabulary_size(model_directory) == 320


@pytest.mark.parametrize("fault", ["config", "head", "tokenizer"])
def test_vocabulary_size_disagreement_is_refused(model_directory, fault):
    if fault == "config":
        edit_json(model_directory / "config.json", vocab_size=321)
    elif fault == "head":
        edit_weights(
            model_directory, lambda weights: weights.update({"lm_head.weight": torch.zeros(328, 64)})
        )
    else:
        token = {"id": 320, "content": "<new>", "special": True, "single_word": False}
        token |= {"lstrip": False, "rstrip": False, "normalized": False}
        path = model_directory / "tokenizer.json"
        edit_json(path, added_tokens=[*json.loads(path.read_text())["added_tokens"], token])
    with pytest.raises(InputError, match="at odds about its vocabulary"):
        vocabulary_size(model_directory)


def test_vocabulary_size_padding_rows_are_allowed(nano, tokenizer, tmp_path):
    decoder = Decoder(replace(nano.config, vocabulary_size=328))
    initialise(decoder, 0)
    save_model(decoder, tokenizer, tmp_path)
    assert vocabulary_size(tmp_path) == 328


def test_check_parity_above_tolerance_raises(model_directory, monkeypatch):
    original = directory_module.load_decoder

    def spoilt(directory):
        decoder = original(directory)
        with torch.no_grad():
            decoder.model.norm.weight[0] += 0.5
        return decoder

    monkeypatch.setattr(directory_module, "load_decoder", spoilt)
    with pytest.raises(StageError, match="differ from those of transformers by"):
        check_parity(model_directory, IDS_BT)


@pytest.mark.parametrize("name", ["llama-nano", "qwen2-nano", "mixtral-nano", "qwen3-moe-nano"])
def test_check_parity_of_a_model_beyond_memory_takes_the_first_layers(name, tokenizer, tmp_path, monkeypatch):
    shape = replace(preset(name), vocabulary_size=tokenizer.size, layers=4)
    decoder = Decoder(shape)
    initialise(decoder, 4)
    save_model(decoder, tokenizer, tmp_path)
    ends = 4 * shape.vocabulary_size * shape.hidden_size * (1 if shape.tied_embeddings else 2)
    half = ends + (4 * shape.parameters - ends) // 2
    monkeypatch.setattr(directory_module, "free_memory_bytes", lambda: int(half / 0.74))
    parity = check_parity(tmp_path, IDS_BT, tolerance=1e-5)
    assert (parity.layers, parity.all_layers, parity.note) == (2, 4, ", of 2 of 4 layers")
    monkeypatch.setattr(directory_module, "free_memory_bytes", lambda: 1)
    assert check_parity(tmp_path, IDS_BT, tolerance=1e-5).layers == 1
    monkeypatch.undo()
    assert check_parity(tmp_path, IDS_BT, tolerance=1e-5).note == ""


def test_check_parity_of_a_part_finds_what_differs_in_it(model_directory, monkeypatch):
    original = directory_module.load_weights

    def spoilt(decoder, directory):
        original(decoder, directory)
        with torch.no_grad():
            decoder.model.norm.weight[0] += 0.5

    monkeypatch.setattr(directory_module, "free_memory_bytes", lambda: 1)
    monkeypatch.setattr(directory_module, "load_weights", spoilt)
    with pytest.raises(StageError, match="differ from those of transformers by"):
        check_parity(model_directory, IDS_BT)


def test_resolve_model_local_directory_is_itself(model_directory):
    assert resolve_model(model_directory) == model_directory


@pytest.mark.parametrize("name", ["no-such-model", "/no/such/place", "a/b/c"])
def test_resolve_model_neither_directory_nor_hub_id_is_refused(name):
    with pytest.raises(InputError, match="neither a model directory"):
        resolve_model(name)


def test_resolve_model_directory_without_config_is_refused(tmp_path):
    with pytest.raises(InputError, match="neither a model directory"):
        resolve_model(tmp_path)


def test_resolve_model_hub_id_offline_is_refused_with_a_hint(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="HF_HUB_OFFLINE"):
        resolve_model("somebody/some-model")


@pytest.mark.parametrize(
    ("error", "words"), [("GatedRepoError", "HF_TOKEN"), ("RepositoryNotFoundError", "check the name")]
)
def test_resolve_model_hub_refusal_becomes_a_hint(monkeypatch, error, words):
    import huggingface_hub
    from huggingface_hub import errors

    def refuse(*_args, **_options):
        kind = getattr(errors, error)
        raise kind.__new__(kind)  # its arguments are an HTTP response of this or that library

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(InputError, match=words):
        resolve_model("meta-llama/Llama-2-7b-hf")


def test_read_headers_truncated_file_is_refused(model_directory):
    path = model_directory / WEIGHTS
    for size in (path.stat().st_size - 1, 100, 4):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(InputError, match="cut short"):
            read_headers(model_directory)


def test_read_headers_missing_shard_is_refused(nano, tokenizer, tmp_path):
    save_model(nano, tokenizer, tmp_path, shard_bytes=60_000)
    next(tmp_path.glob("model-00002*")).unlink()
    with pytest.raises(InputError, match="model-00002"):
        read_headers(tmp_path)


@pytest.mark.parametrize(
    "index",
    ["[]", "{}", '{"weight_map": ["a"]}', '{"weight_map": {"a": 1}}', '{"weight_map": {"a": "../b"}}'],
)
def test_read_headers_index_that_names_no_files_is_refused(tmp_path, index):
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(InputError, match="does not say which file"):
        read_headers(tmp_path)


def test_read_headers_tensor_in_two_files_is_refused(nano, tokenizer, tmp_path):
    save_model(nano, tokenizer, tmp_path, shard_bytes=60_000)
    first, second = sorted(tmp_path.glob("model-*.safetensors"))[:2]
    shutil.copy(first, second)
    with pytest.raises(InputError, match="is in model-00001"):
        read_headers(tmp_path)


def test_read_headers_of_an_empty_directory_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no model.safetensors"):
        read_headers(tmp_path)
