from __future__ import annotations

import pytest

from tsugiki.errors import InputError
from tsugiki.models.config import DecoderConfig, RopeScaling, preset, preset_names, preset_of_hub_id
from tsugiki.models.decoder import Decoder, initialise

# Sums of the tensors in the published checkpoints (their safetensors indices).
PUBLISHED_PARAMETERS = {
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "mistral-7b": 7_241_732_096,
    "llama-3.1-8b": 8_030_261_248,
}


@pytest.mark.parametrize(("name", "parameters"), PUBLISHED_PARAMETERS.items())
def test_preset_published_model_has_published_number_of_parameters(name, parameters):
    assert preset(name).parameters == parameters


@pytest.mark.parametrize("name", ["llama-nano", "llama-mini"])
def test_parameters_of_a_built_decoder_equal_the_formula(name):
    decoder = Decoder(preset(name))
    initialise(decoder, 0)
    assert sum(parameter.numel() for parameter in decoder.parameters()) == preset(name).parameters


def test_preset_unknown_name_suggests_the_closest():
    with pytest.raises(InputError, match='did you mean "llama-mini"'):
        preset("lama-mini")


def test_preset_of_hub_id_ignores_case_and_knows_only_its_own():
    assert preset_of_hub_id("meta-llama/llama-2-7B-HF") == preset("llama-2-7b")
    assert preset_of_hub_id("somebody/else") is None


@pytest.mark.parametrize("name", preset_names())
def test_to_hf_then_from_hf_gives_the_same_config(name):
    assert DecoderConfig.from_hf(preset(name).to_hf()) == preset(name)


@pytest.mark.parametrize("name", preset_names())
def test_to_hf_is_read_by_transformers_with_the_same_rope(name):
    from transformers import LlamaConfig

    config = LlamaConfig(**preset(name).to_hf())
    assert config.head_dim == preset(name).head_dim
    assert DecoderConfig.from_hf({**config.to_dict(), "architectures": ["LlamaForCausalLM"]}) == preset(name)


def test_from_hf_transformers_5_spelling_of_rope_is_read():
    config = {**preset("llama-3.1-8b").to_hf(), "rope_theta": None, "rope_scaling": None}
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config["rope_parameters"] = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "original_max_position_embeddings": 8192,
        **scaling,
    }
    assert DecoderConfig.from_hf(config) == preset("llama-3.1-8b")


def test_from_hf_mistral_window_caps_the_positions():
    config = {**preset("mistral-7b").to_hf(), "architectures": ["MistralForCausalLM"], "sliding_window": 4096}
    assert DecoderConfig.from_hf({**config, "max_position_embeddings": 32768}).max_positions == 4096


def test_from_hf_several_end_tokens_takes_the_first():
    config = {**preset("llama-3.1-8b").to_hf(), "eos_token_id": [128001, 128008, 128009]}
    assert DecoderConfig.from_hf(config).eos_id == 128001


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel"),
        ({"architectures": None}, "none"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"attention_bias": True}, "attention_bias"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "yarn"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "linear"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "lacks low_freq_factor"),
        ({"vocab_size": None}, "vocab_size"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"num_attention_heads": 4, "num_key_value_heads": 3}, "can't share 3"),
        ({"head_dim": 15}, "odd"),
        ({"num_hidden_layers": 0}, "layers is 0"),
        ({"num_attention_heads": 0, "head_dim": None}, "heads is 0"),
        ({"max_position_embeddings": "long"}, "max_position_embeddings"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps"),
        ({"rope_theta": "a"}, "rope_theta"),
        ({"rope_scaling": "linear"}, "rope_scaling"),
        ({"architectures": 3}, "architecture"),
        ({"vocab_size": True}, "vocab_size"),
        ({"bos_token_id": "<s>"}, "bos_token_id"),
        ({"sliding_window": "x"}, "sliding_window"),
    ],
)
def test_from_hf_unsupported_model_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        DecoderConfig.from_hf({**preset("llama-nano").to_hf(), **changes})


def test_from_hf_of_no_mapping_is_refused():
    with pytest.raises(InputError, match="no JSON object"):
        DecoderConfig.from_hf(["LlamaForCausalLM"])


def test_from_hf_empty_list_of_end_tokens_is_none():
    assert DecoderConfig.from_hf({**preset("llama-nano").to_hf(), "eos_token_id": []}).eos_id is None


def test_from_hf_keys_that_mistral_leaves_out_are_those_of_transformers():
    from transformers import MistralConfig

    given = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 16}
    theirs = MistralConfig(**given, vocab_size=512)
    ours = DecoderConfig.from_hf({"architectures": ["MistralForCausalLM"], "vocab_size": 512, **given})
    assert ours.kv_heads == theirs.num_key_value_heads == 8
    assert ours.max_positions == theirs.sliding_window == 4096


def test_training_flops_per_token_matches_the_layers_counted_by_hand():
    config = preset("llama-nano")  # D 64, F 160, L 2, N 4, K 2, H 16, V 512
    attention = 64 * 64 + 2 * 64 * 32 + 64 * 64
    matrices = 2 * (attention + 3 * 64 * 160) + 512 * 64
    # Each token attends to T/2 others on average: 2 products of T/2 · N · H multiply-adds, three passes.
    assert config.training_flops_per_token(128) == 6 * matrices + 2 * 3 * (2 * 2 * 64 * 4 * 16)


def test_training_flops_per_token_does_not_count_the_look_up():
    from dataclasses import replace

    tied = replace(preset("llama-nano"), tied_embeddings=True)
    assert tied.training_flops_per_token(64) == preset("llama-nano").training_flops_per_token(64)
    assert tied.embedding_parameters * 2 == preset("llama-nano").embedding_parameters


def test_config_is_hashable_with_scaling():
    assert hash(preset("llama-3.1-8b")) == hash(preset("llama-3.1-8b"))
    assert preset("llama-3.1-8b").rope_scaling == RopeScaling(8.0, 1.0, 4.0, 8192)
