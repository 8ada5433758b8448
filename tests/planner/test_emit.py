"""Layouts in the words of three frameworks; ours has to be a valid stage."""

from __future__ import annotations

import pytest

from tsugiki.errors import InputError
from tsugiki.models.config import preset
from tsugiki.planner.devices import ACCELERATORS
from tsugiki.planner.emit import megatron_flags, recipe_lines, recipe_settings, titan_flags
from tsugiki.planner.kernels import KERNELS
from tsugiki.planner.layout import Layout, Workload
from tsugiki.planner.search import search
from tsugiki.training.planning import layout_problems, micro_batch_rows
from tsugiki.training.stage import Config

LLAMA = Workload(preset("llama-3.1-8b"), 8192, 1024)
MIXTRAL = Workload(preset("mixtral-8x7b"), 4096, 256)
REST = {"model": "base", "data": {"text": 1.0}, "tokens": 10**9}


def flags(workload: Workload, layout: Layout) -> dict[str, str]:
    return parsed(megatron_flags(workload, layout))


def parsed(lines: list[str]) -> dict[str, str]:
    """The flags as a program would parse them: name -> value, empty for a switch."""
    words = " ".join(lines).split()
    found, name = {}, ""
    for word in words:
        if word.startswith("--"):
            name = word
            found[name] = ""
        else:
            found[name] = word
    return found


def test_megatron_flags_say_the_model_the_layout_and_the_batch() -> None:
    layout = Layout(
        data=8,
        tensor=4,
        pipeline=2,
        context=2,
        micro_batch=2,
        chunks=4,
        schedule="interleaved",
        recompute="full",
    )
    found = flags(LLAMA, layout)
    expected = {
        "--num-layers": "32",
        "--hidden-size": "4096",
        "--ffn-hidden-size": "14336",
        "--num-attention-heads": "32",
        "--num-query-groups": "8",
        "--vocab-size": "128256",
        "--rotary-base": "500000",
        "--seq-length": "8192",
        "--micro-batch-size": "2",
        "--global-batch-size": "1024",
        "--tensor-model-parallel-size": "4",
        "--pipeline-model-parallel-size": "2",
        "--num-layers-per-virtual-pipeline-stage": "4",
        "--context-parallel-size": "2",
        "--recompute-granularity": "full",
    }
    assert expected.items() <= found.items()
    assert {"--sequence-parallel", "--use-distributed-optimizer", "--bf16"} <= found.keys()
    assert "--untie-embeddings-and-output-weights" in found
    assert not {"--num-experts", "--fp8-format", "--qk-layernorm"} & found.keys()


def test_megatron_flags_of_a_mixture_in_float8_with_small_gradients() -> None:
    workload = Workload(preset("qwen3-30b-a3b"), 4096, 256, "float8", 2)
    found = flags(workload, Layout(data=8, expert=8, expert_tensor=1, sharding="none"))
    expected = {
        "--num-experts": "128",
        "--moe-router-topk": "8",
        "--moe-ffn-hidden-size": "768",
        "--expert-model-parallel-size": "8",
        "--expert-tensor-parallel-size": "1",
        "--fp8-format": "hybrid",
    }
    assert expected.items() <= found.items()
    assert {"--grad-reduce-in-bf16", "--qk-layernorm"} <= found.keys()
    assert "--use-distributed-optimizer" not in found


def test_megatron_flags_of_a_shared_expert_and_of_weights_that_are_not_normalised() -> None:
    found = flags(Workload(preset("qwen2-57b-a14b"), 4096, 256), Layout(data=8, expert=8))
    assert found["--moe-shared-expert-intermediate-size"] == "20480"
    assert {"--moe-shared-expert-gate", "--moe-router-pre-softmax", "--add-qkv-bias"} <= found.keys()
    other = flags(Workload(preset("mixtral-8x7b"), 4096, 256), Layout(data=8, expert=8))
    assert not {"--moe-shared-expert-gate", "--moe-router-pre-softmax"} & other.keys()


def test_megatron_flags_in_float32_are_refused() -> None:
    with pytest.raises(InputError, match="16 bits"):
        megatron_flags(Workload(LLAMA.model, 8192, 1024, "float32"), Layout())


def test_megatron_flags_share_what_the_layout_shares() -> None:
    assert "--use-distributed-optimizer" not in flags(LLAMA, Layout(data=8, sharding="none"))
    assert "--use-megatron-fsdp" not in flags(LLAMA, Layout(data=8, sharding="optimizer"))
    shared = flags(LLAMA, Layout(data=8, sharding="gradients"))
    assert shared["--data-parallel-sharding-strategy"] == "optim_grads"
    shared = flags(LLAMA, Layout(data=8, sharding="weights"))
    assert shared["--data-parallel-sharding-strategy"] == "optim_grads_params"


def test_megatron_flags_of_gpipe_are_refused() -> None:
    with pytest.raises(InputError, match="no GPipe"):
        megatron_flags(LLAMA, Layout(data=4, pipeline=2, schedule="gpipe"))


def test_titan_flags_without_a_pipeline_accumulate_up_to_the_global_batch() -> None:
    lines = titan_flags(LLAMA, Layout(data=16, tensor=4, micro_batch=2, sharding="weights"))
    found = parsed(lines)
    assert found["--training.seq_len"] == "8192"
    assert found["--training.local_batch_size"] == "2"
    assert found["--training.global_batch_size"] == "1024"
    assert found["--parallelism.data_parallel_shard_degree"] == "16"
    assert found["--parallelism.tensor_parallel_degree"] == "4"
    assert lines[-1] == "activation_checkpoint:none"


def test_titan_flags_with_a_pipeline_name_its_schedule_and_micro_batch() -> None:
    layout = Layout(
        data=8,
        pipeline=4,
        chunks=2,
        schedule="interleaved",
        recompute="selective",
        shard=4,
        sharding="weights",
    )
    lines = titan_flags(LLAMA, layout)
    found = parsed(lines)
    assert found["--training.local_batch_size"] == "128"
    assert found["--parallelism.pipeline_parallel_schedule"] == "Interleaved1F1B"
    assert found["--parallelism.pipeline_parallel_microbatch_size"] == "1"
    assert found["--parallelism.pipeline_parallel_layers_per_stage"] == "4"
    assert found["--parallelism.data_parallel_replicate_degree"] == "2"
    assert lines[-1] == "activation_checkpoint:selective"


def test_titan_flags_of_a_mixture_spread_its_experts_or_cut_them() -> None:
    found = parsed(titan_flags(MIXTRAL, Layout(data=8, expert=4, sharding="weights")))
    assert found["--parallelism.expert_parallel_degree"] == "4"
    with pytest.raises(InputError, match="does not cut experts that it spreads"):
        titan_flags(MIXTRAL, Layout(data=8, tensor=2, expert=4, expert_tensor=2, sharding="weights"))


@pytest.mark.parametrize("workload", [LLAMA, MIXTRAL])
def test_recipe_settings_of_every_layout_that_fits_are_a_valid_stage(workload) -> None:
    found = search(workload, 16, ACCELERATORS["h200-141gb"], KERNELS["tsugiki"])
    assert len(found.candidates) > 50
    for one in found.candidates[::7]:
        config = Config(**REST, **recipe_settings(workload, one.layout))
        assert config.parallel.product == 16
        assert micro_batch_rows(config) == one.layout.micro_batch
        wrong = [
            problem for problem in layout_problems(config, workload.model) if problem.severity == "error"
        ]
        assert not wrong


def test_recipe_settings_in_float8_name_a_recipe_that_the_stage_has() -> None:
    settings = recipe_settings(
        Workload(LLAMA.model, 8192, 1024, "float8"), Layout(data=8, sharding="weights")
    )
    assert Config(**REST, **settings).precision == "float8-rowwise"


def test_recipe_lines_are_yaml_that_reads_back() -> None:
    from ruamel.yaml import YAML

    layout = Layout(
        data=4, pipeline=2, chunks=2, schedule="interleaved", recompute="full", sharding="weights"
    )
    settings = recipe_settings(LLAMA, layout, "h100-80gb")
    read = YAML(typ="safe").load("\n".join(recipe_lines(settings)))
    assert read == settings
    assert Config(**REST, **read).parallel.chunks == 2
