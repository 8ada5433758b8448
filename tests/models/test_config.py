from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.errors import InputError
from tsugiki.models.config import (
    FAMILIES,
    DecoderConfig,
    MixtureOfExperts,
    RopeScaling,
    preset,
    preset_names,
    preset_of_hub_id,
    spike_no_more,
)
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.names import stored_shapes

# Sums of the tensors in the published checkpoints (their safetensors indices).
PUBLISHED_PARAMETERS = {
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "mistral-7b": 7_241_732_096,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3.1-8b": 8_030_261_248,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-7b": 7_615_616_512,
    "qwen3-8b": 8_190_735_360,
    "mixtral-8x7b": 46_702_792_704,
    "qwen1.5-moe-a2.7b": 14_315_784_192,
    "qwen2-57b-a14b": 57_408_658_944,
    "qwen3-30b-a3b": 30_532_122_624,
}
NANOS = [name for name in preset_names() if name.endswith("-nano")]


@pytest.mark.parametrize(("name", "parameters"), PUBLISHED_PARAMETERS.items())
def test_preset_published_model_has_published_number_of_parameters(name, parameters):
    assert preset(name).parameters == parameters


def test_parameters_of_a_mixture_are_those_of_its_model_card():
    # LLM-jp-3 8x1.8b. The card counts of the router only the rows of the two experts that are chosen.
    config = DecoderConfig.from_hf(
        {
            "architectures": ["MixtralForCausalLM"],
            "vocab_size": 99487,
            "hidden_size": 2048,
            "intermediate_size": 7168,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
        }
    )
    assert config.parameters == 9_266_362_368
    assert config.embedding_parameters == 407_498_752
    assert config.active_parameters - 24 * 2048 * (8 - 2) == 2_924_279_808


@pytest.mark.parametrize("name", [*NANOS, "llama-mini"])
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
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = CONFIG_MAPPING[preset(name).family](**preset(name).to_hf())
    assert config.head_dim == preset(name).head_dim
    assert DecoderConfig.from_hf(config.to_dict()) == preset(name)


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


def test_from_hf_mistral_window_does_not_cap_the_positions():
    config = DecoderConfig.from_hf({**preset("mistral-7b").to_hf(), "sliding_window": 4096})
    assert (config.max_positions, config.window(0)) == (32768, 4096)


def test_from_hf_several_end_tokens_takes_the_first():
    config = {**preset("llama-3.1-8b").to_hf(), "eos_token_id": [128001, 128008, 128009]}
    assert DecoderConfig.from_hf(config).eos_id == 128001


def test_presets_have_a_tiny_one_of_every_family():
    assert {preset(name).family for name in NANOS} == FAMILIES.keys()


@pytest.mark.parametrize("name", NANOS)
def test_from_hf_keys_that_are_left_out_are_those_of_transformers(name):
    """A config.json that names nothing but what has no sensible default."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    family = preset(name).family
    given = {"hidden_size": 4096, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 512}
    given |= {"num_attention_heads": 32}
    theirs = CONFIG_MAPPING[family](**given).to_dict()
    theirs.pop("architectures", None)
    ours = DecoderConfig.from_hf({"architectures": [FAMILIES[family].architecture], **given})
    read = DecoderConfig.from_hf({"architectures": [FAMILIES[family].architecture], **theirs})
    assert ours == read
    peer = CONFIG_MAPPING[family](**ours.to_hf())
    assert (peer.num_key_value_heads, peer.max_position_embeddings, peer.rms_norm_eps) == (
        theirs["num_key_value_heads"],
        theirs["max_position_embeddings"],
        theirs["rms_norm_eps"],
    )


PUBLISHED = {  # config.json as it lies on the hub, where families write what is not in use
    "qwen2.5-0.5b": """{"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0,
        "bos_token_id": 151643, "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 896,
        "initializer_range": 0.02, "intermediate_size": 4864, "max_position_embeddings": 32768,
        "max_window_layers": 24, "model_type": "qwen2", "num_attention_heads": 14, "num_hidden_layers": 24,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": true,
        "torch_dtype": "bfloat16", "transformers_version": "4.40.1", "use_cache": true, "use_mrope": false,
        "use_sliding_window": false, "vocab_size": 151936}""",
    "mixtral-8x7b": """{"architectures": ["MixtralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1,
        "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
        "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mixtral",
        "num_attention_heads": 32, "num_experts_per_tok": 2, "num_hidden_layers": 32,
        "num_key_value_heads": 8, "num_local_experts": 8, "output_router_logits": false,
        "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.02, "sliding_window": null,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 32000}""",
    "qwen1.5-moe-a2.7b": """{"architectures": ["Qwen2MoeForCausalLM"], "attention_dropout": 0.0,
        "bos_token_id": 151643, "decoder_sparse_step": 1, "eos_token_id": 151643, "hidden_act": "silu",
        "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 5632,
        "max_position_embeddings": 8192, "max_window_layers": 21, "model_type": "qwen2_moe",
        "moe_intermediate_size": 1408, "norm_topk_prob": false, "num_attention_heads": 16, "num_experts": 60,
        "num_experts_per_tok": 4, "num_hidden_layers": 24, "num_key_value_heads": 16,
        "output_router_logits": false, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
        "router_aux_loss_coef": 0.001, "shared_expert_intermediate_size": 5632, "sliding_window": 32768,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_cache": true,
        "use_sliding_window": false, "vocab_size": 151936}""",
    "qwen2-57b-a14b": """{"architectures": ["Qwen2MoeForCausalLM"], "attention_dropout": 0.0,
        "bos_token_id": 151643, "decoder_sparse_step": 1, "eos_token_id": 151643, "hidden_act": "silu",
        "hidden_size": 3584, "initializer_range": 0.02, "intermediate_size": 18944,
        "max_position_embeddings": 131072, "max_window_layers": 28, "model_type": "qwen2_moe",
        "moe_intermediate_size": 2560, "norm_topk_prob": false, "num_attention_heads": 28, "num_experts": 64,
        "num_experts_per_tok": 8, "num_hidden_layers": 28, "num_key_value_heads": 4,
        "output_router_logits": false, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
        "router_aux_loss_coef": 0.001, "shared_expert_intermediate_size": 20480, "sliding_window": 131072,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_cache": true,
        "use_sliding_window": false, "vocab_size": 151936}""",
    "qwen3-30b-a3b": """{"architectures": ["Qwen3MoeForCausalLM"], "attention_bias": false,
        "attention_dropout": 0.0, "bos_token_id": 151643, "decoder_sparse_step": 1, "eos_token_id": 151643,
        "head_dim": 128, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
        "intermediate_size": 6144, "max_position_embeddings": 32768, "max_window_layers": 48,
        "mlp_only_layers": [], "model_type": "qwen3_moe", "moe_intermediate_size": 768,
        "norm_topk_prob": true, "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8,
        "num_hidden_layers": 48, "num_key_value_heads": 4, "output_router_logits": false,
        "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.001,
        "sliding_window": null, "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_cache": true,
        "use_sliding_window": false, "vocab_size": 151936}""",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_from_hf_published_config_json_is_the_preset(name):
    assert DecoderConfig.from_hf(json.loads(PUBLISHED[name])) == preset(name)


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
@pytest.mark.parametrize(
    ("keys", "windows"),
    [
        ({"sliding_window": 64}, [None, None, None]),
        ({"use_sliding_window": False, "sliding_window": 64}, [None, None, None]),
        ({"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 2}, [None, None, 64]),
        ({"use_sliding_window": True, "max_window_layers": 0}, [4096, 4096, 4096]),
        ({"use_sliding_window": True, "sliding_window": 64}, [None, None, None]),  # 28 layers see all
    ],
)
def test_from_hf_qwen_windows_are_those_that_transformers_makes_of_the_keys(family, keys, windows):
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    shape = {**preset(f"{family}-nano").to_hf(), "num_hidden_layers": 3}
    for key in ("use_sliding_window", "sliding_window", "max_window_layers"):
        shape.pop(key)
    theirs = CONFIG_MAPPING[family](**shape, **keys)
    for config in ({**shape, **keys}, {**theirs.to_dict(), "architectures": shape["architectures"]}):
        ours = DecoderConfig.from_hf(config)
        assert [ours.window(layer) for layer in range(3)] == windows
        assert DecoderConfig.from_hf(ours.to_hf()) == ours
    kinds = ["sliding_attention" if window else "full_attention" for window in windows]
    assert theirs.layer_types == kinds


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("qwen3-nano", {"layer_types": ["sliding_attention", "full_attention"]}, "layer_types"),
        ("mixtral-nano", {"router_jitter_noise": 0.1}, "router_jitter_noise"),
        ("mixtral-nano", {"num_experts_per_tok": 5}, "5 experts a token are more than all 4"),
        ("mixtral-nano", {"num_local_experts": 0}, "experts is 0"),
        ("qwen3-moe-nano", {"mlp_only_layers": "all"}, "mlp_only_layers"),
        ("qwen3-moe-nano", {"mlp_only_layers": ["0"]}, "mlp_only_layers"),
        ("qwen3-moe-nano", {"decoder_sparse_step": 0}, "sparse_step is 0"),
        ("qwen3-moe-nano", {"architectures": ["Qwen3NextForCausalLM"]}, "Qwen3NextForCausalLM"),
        ("qwen2-moe-nano", {"qkv_bias": False}, "qkv_bias = False"),
        ("qwen2-moe-nano", {"use_sliding_window": True}, "use_sliding_window = True"),
        ("qwen2-moe-nano", {"layer_types": ["sliding_attention", "full_attention"]}, "layer_types"),
        ("qwen2-moe-nano", {"shared_expert_intermediate_size": 0}, "qwen2_moe has a shared expert"),
        ("qwen2-moe-nano", {"shared_expert_intermediate_size": -8}, "shared_size is -8"),
        ("qwen2-moe-nano", {"shared_expert_intermediate_size": "wide"}, "shared_expert_intermediate_size"),
        ("mistral-nano", {"sliding_window": -3}, "sliding_window is -3"),
        ("qwen2-nano", {"use_sliding_window": "yes"}, "use_sliding_window"),
        ("qwen3-moe-nano", {"norm_topk_prob": 1}, "norm_topk_prob"),
    ],
)
def test_from_hf_unsupported_family_feature_is_refused(name, changes, message):
    with pytest.raises(InputError, match=message):
        DecoderConfig.from_hf({**preset(name).to_hf(), **changes})


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("llama-nano", {"family": "lama"}, 'did you mean "llama"'),
        ("llama-nano", {"sliding_window": 8}, "llama has no sliding window"),
        ("mistral-nano", {"full_attention_layers": 1}, "mistral has the same attention in all layers"),
        ("mixtral-nano", {"moe": None}, "mixtral is a mixture of experts"),
        ("llama-nano", {"moe": MixtureOfExperts(4, 2, 160)}, "llama has no experts"),
        ("mixtral-nano", {"moe": MixtureOfExperts(4, 2, 128)}, "mixtral has experts of intermediate_size"),
        ("mixtral-nano", {"moe": MixtureOfExperts(4, 2, 160, normalise=False)}, "normalised"),
        ("mixtral-nano", {"moe": MixtureOfExperts(4, 2, 160, shared_size=8)}, "mixtral has no shared expert"),
        ("qwen3-moe-nano", {"moe": MixtureOfExperts(4, 2, 48, shared_size=8)}, "has no shared expert"),
        ("qwen2-moe-nano", {"moe": MixtureOfExperts(4, 2, 48)}, "qwen2_moe has a shared expert"),
        ("qwen2-moe-nano", {"sliding_window": 8}, "qwen2_moe has no sliding window"),
    ],
)
def test_config_that_its_family_has_no_way_to_write_is_refused(name, changes, message):
    with pytest.raises(InputError, match=message):
        replace(preset(name), **changes)


def test_training_flops_count_the_window_and_the_chosen_experts():
    plain = replace(preset("mistral-nano"), sliding_window=None)
    window = replace(plain, sliding_window=32)
    # Of 128 tokens the first 32 see 1 to 32 keys, the others 32: 32 - 32² / 256 = 28 on average, for 64.
    attention = 12 * plain.layers * plain.heads * plain.head_dim
    assert plain.training_flops_per_token(128) - window.training_flops_per_token(128) == attention * 36
    sparse = preset("mixtral-nano")
    more = replace(sparse, moe=replace(sparse.moe, experts=8))
    router = 6 * sparse.layers * 4 * sparse.hidden_size
    assert more.training_flops_per_token(64) - sparse.training_flops_per_token(64) == router


def test_shared_expert_is_met_by_every_token():
    # "14.3B parameters in total and 2.7B activated" (model card), "2.0 billion non-embedding" (Qwen's blog);
    # "57.4 billion", "14.2 billion" (arXiv 2407.10671, table 1).
    small, large = preset("qwen1.5-moe-a2.7b"), preset("qwen2-57b-a14b")
    assert small.active_parameters == pytest.approx(2.7e9, rel=0.01)
    assert small.active_parameters - small.embedding_parameters == pytest.approx(2.0e9, rel=0.04)
    assert large.active_parameters == pytest.approx(14.2e9, rel=0.005)
    shared = 28 * (3 * 20480 + 1) * 3584  # three matrices and the gate's row
    without = replace(large, family="qwen3_moe", moe=replace(large.moe, shared_size=0))
    biases, norms = 28 * 128 * (28 + 2 * 4), 28 * 2 * 128
    assert large.active_parameters - without.active_parameters == shared + biases - norms
    flops = large.training_flops_per_token(4096) - without.training_flops_per_token(4096)
    assert flops == 6 * shared


def test_spike_no_more_is_the_papers_numbers():
    config = spike_no_more(replace(preset("llama-nano"), hidden_size=1000))
    assert config.initializer_std == pytest.approx(0.02)  # sqrt(2 / 5000)
    assert config.embedding_scale == pytest.approx(31.6227766)
    assert DecoderConfig.from_hf(config.to_hf()) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel"),
        ({"architectures": ["DeepseekV3ForCausalLM"]}, "known: LlamaForCausalLM, MistralForCausalLM, Qwen2"),
        ({"kv_lora_rank": 512}, "kv_lora_rank = 512"),
        ({"attention_dropout": 0.1}, "attention_dropout = 0.1"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "one object for all layers"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
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
        (
            {"architectures": ["MistralForCausalLM"], "model_type": None, "sliding_window": "x"},
            "sliding_window",
        ),
        (
            {"architectures": ["MistralForCausalLM"]},
            'model_type "llama", and architecture "MistralForCausalLM"',
        ),
        ({"model_type": "gemma2"}, 'model_type "gemma2"'),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings = 'no'; true or false is needed"),
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
    assert ours.sliding_window == theirs.sliding_window == 4096


def test_training_flops_per_token_matches_the_layers_counted_by_hand():
    config = preset("llama-nano")  # D 64, F 160, L 2, N 4, K 2, H 16, V 512
    attention = 64 * 64 + 2 * 64 * 32 + 64 * 64
    matrices = 2 * (attention + 3 * 64 * 160) + 512 * 64
    # Each token attends to T/2 others on average: 2 products of T/2 · N · H multiply-adds, three passes.
    assert config.training_flops_per_token(128) == 6 * matrices + 2 * 3 * (2 * 2 * 64 * 4 * 16)


def test_training_flops_per_token_does_not_count_the_look_up():
    tied = replace(preset("llama-nano"), tied_embeddings=True)
    assert tied.training_flops_per_token(64) == preset("llama-nano").training_flops_per_token(64)
    assert tied.embedding_parameters * 2 == preset("llama-nano").embedding_parameters


def test_config_is_hashable_with_scaling():
    assert hash(preset("llama-3.1-8b")) == hash(preset("llama-3.1-8b"))
    assert preset("llama-3.1-8b").rope_scaling == RopeScaling(8.0, 1.0, 4.0, 8192)


@st.composite
def shapes(draw):
    """Any shape of any family, small enough to build."""
    name = draw(st.sampled_from(sorted(FAMILIES)))
    features, layers = FAMILIES[name], draw(st.integers(1, 4))
    kv_heads, width = draw(st.integers(1, 3)), draw(st.integers(1, 40))
    heads = kv_heads * draw(st.integers(1, 3))
    window = draw(st.none() | st.integers(1, 64)) if features.windows != "none" else None
    moe = None
    if features.experts:
        experts = draw(st.integers(1, 6))
        moe = MixtureOfExperts(experts, draw(st.integers(1, experts)), width)
        if name != "mixtral":
            moe = replace(
                moe,
                intermediate_size=draw(st.integers(1, 40)),
                normalise=draw(st.booleans()),
                sparse_step=draw(st.integers(1, 3)),
                dense_layers=tuple(draw(st.lists(st.integers(0, layers - 1), unique=True))),
                shared_size=draw(st.integers(1, 40)) if features.shared_expert else 0,
            )
    return DecoderConfig(
        vocabulary_size=draw(st.integers(1, 99)),
        hidden_size=heads * draw(st.integers(1, 9)),
        intermediate_size=width,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=2 * draw(st.integers(1, 8)),
        rope_theta=draw(st.floats(1.0, 1e7)),
        norm_eps=draw(st.floats(1e-8, 1e-3)),
        tied_embeddings=draw(st.booleans()),
        max_positions=draw(st.integers(1, 10**6)),
        bos_id=draw(st.none() | st.integers(0, 9)),
        eos_id=draw(st.none() | st.integers(0, 9)),
        initializer_std=draw(st.floats(1e-3, 1.0)),
        rope_scaling=draw(st.none() | st.just(RopeScaling(8.0, 1.0, 4.0, 8192))),
        family=name,
        sliding_window=window,
        full_attention_layers=draw(st.integers(0, 5)) if window and features.windows == "upper" else 0,
        moe=moe,
    )


@settings(max_examples=150, deadline=None)
@given(shapes())
def test_any_shape_comes_back_from_config_json_and_from_transformers(config):
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    written = json.loads(json.dumps(config.to_hf()))
    assert DecoderConfig.from_hf(written) == config
    assert DecoderConfig.from_hf(CONFIG_MAPPING[config.family](**written).to_dict()) == config


@settings(max_examples=50, deadline=None)
@given(shapes())
def test_any_shape_has_the_parameters_that_are_built_and_stored(config):
    with torch.device("meta"):
        decoder = Decoder(config)
    assert sum(parameter.numel() for parameter in decoder.parameters()) == config.parameters
    assert sum(math.prod(shape) for shape in stored_shapes(config).values()) == config.parameters
    assert config.active_parameters <= config.parameters
