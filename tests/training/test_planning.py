import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsugiki.artifacts.contract import ArtifactType, Forecast
from tsugiki.errors import InputError
from tsugiki.models.config import preset
from tsugiki.planner.devices import ACCELERATORS
from tsugiki.training.devices import DEVICES
from tsugiki.training.planning import micro_batch_rows, shape_of, steps_for, tokens_for
from tsugiki.training.settings import Parallel
from tsugiki.training.stage import Config, estimate

GIB = 2**30


def model(name, **facts):
    shape = preset(name)
    counts = {"parameters": shape.parameters, "vocabulary_size": shape.vocabulary_size}
    return Forecast(ArtifactType.MODEL, counts, {"model_config": shape.to_hf(), "tokenizer": name, **facts})


def documents(text_bytes=10**12, count=10**6):
    return Forecast(ArtifactType.DOCUMENTS, {"documents": count, "bytes": text_bytes})


def recipe_problems(config, inputs):
    """What is wrong with a recipe; that several processes can't run here yet is another matter."""
    return tuple(problem for problem in estimate(config, inputs).problems if problem.severity != "here")


def swallow_70b(**more):
    """The published settings (reference: vocabulary-and-continual-pretraining.md, 1.2 and 1.3)."""
    return Config.model_validate(
        {
            "model": "base",
            "data": {"japanese": 0.9, "english": 0.1},
            "tokens": "104.86B",
            "sequence_length": 4096,
            "batch_tokens": 1024 * 4096,
            "learning_rate": 5e-5,
            "warmup": 1000,
            "precision": "bfloat16",
            "parallel": {"data": 4, "tensor": 8, "pipeline": 8},
            "micro_batch_tokens": 4096,
            "hardware": "a100-40gb",
            **more,
        }
    )


def swallow_inputs(name="llama-2-70b"):
    return {"base": model(name), "japanese": documents(), "english": documents()}


def test_validation_on_documents_of_which_none_is_held_out_is_refused_before_the_run():
    whole = Forecast(ArtifactType.DOCUMENTS, {"documents": 10**6, "bytes": 10**12, "heldout_documents": 0})
    inputs = {**swallow_inputs(), "english": whole}
    (problem,) = recipe_problems(swallow_70b(validation=["japanese", "english"]), inputs)
    assert problem.severity == "error"
    assert (problem.where, problem.message) == (
        "validation",
        '"english" holds no held-out documents to measure on',
    )


def test_few_steps_are_remarked_upon():
    """300k tokens at the default batch of 16,384 are 18 steps: what a newcomer would not expect."""
    few = Config(model="base", data={"japanese": 1.0}, tokens="300k")
    inputs = {"base": model("llama-nano"), "japanese": documents()}
    (problem,) = recipe_problems(few, inputs)
    assert (problem.severity, problem.where) == ("warning", "batch_tokens")
    assert problem.message.startswith("18 steps of 16,384 tokens are few")
    assert recipe_problems(few.model_copy(update={"batch_tokens": 4096}), inputs) == ()


def test_estimate_of_swallow_70b_passes_and_agrees_with_the_paper():
    forecast = estimate(swallow_70b(), swallow_inputs())
    assert [problem.severity for problem in forecast.problems] == ["here"]  # 256 processes
    assert "256 processes; one machine starts 16" in forecast.problems[0].message
    assert forecast.facts["device_hours"] == pytest.approx(forecast.seconds * 256 / 3600)
    assert forecast.type == ArtifactType.MODEL
    assert forecast.counts["steps"] == 25_000
    assert forecast.counts["tokens"] == 25_000 * 1024 * 4096
    # 6 P T is 4.3e22; attention at 4096 adds little.
    assert forecast.counts["training_flops"] == pytest.approx(6 * 69e9 * 104.86e9, rel=0.07)
    # 256 GPUs at the published 158 TFLOP/s would take 1.1e6 s of pure training.
    assert forecast.seconds == pytest.approx(forecast.counts["training_flops"] / (256 * 158e12), rel=0.15)
    assert 15 * GIB < forecast.memory_bytes < 40 * GIB
    assert forecast.facts["device"] == "cuda"
    assert forecast.facts["tokenizer"] == "llama-2-70b"


@pytest.mark.parametrize(
    ("name", "parallel"),
    [
        ("llama-2-7b", {"tensor": 2, "pipeline": 2, "data": 8}),
        ("llama-2-13b", {"tensor": 2, "pipeline": 4, "data": 8}),
    ],
)
def test_estimate_of_smaller_swallow_models_passes(name, parallel):
    assert recipe_problems(swallow_70b(parallel=parallel), swallow_inputs(name)) == ()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"parallel": {"tensor": 3}},
            ["query heads (64)", "feed-forward layers (28672)", "vocabulary (32000)", "key-value heads"],
        ),
        ({"parallel": {"tensor": 8, "pipeline": 7}}, ["7 does not divide layers (80)"]),
        (
            {"parallel": {"tensor": 8, "pipeline": 8, "data": 3}},
            ["3 does not divide sequences of a batch (1024)"],
        ),
        (
            {"parallel": {"tensor": 8, "pipeline": 8, "context": 3}},
            ["context: 3 needs 6 pieces of a sequence, two a process, which do not divide its 4096 tokens"],
        ),
    ],
)
def test_estimate_of_a_layout_that_does_not_divide_says_which_number(change, expected):
    problems = [
        problem
        for problem in recipe_problems(swallow_70b(**change), swallow_inputs())
        if problem.where != "parallel"
    ]
    messages = [problem.message for problem in problems if problem.severity == "error"]
    assert len(messages) >= len(expected)
    assert all(any(part in message for message in messages) for part in expected)
    assert all(problem.hint for problem in problems)
    assert (
        "1, 2, 4, 8" in problems[0].hint or "divides" in problems[0].hint or "1, 2, 4, 5" in problems[0].hint
    )


def test_estimate_of_an_unpadded_vocabulary_names_it():
    base = model("llama-2-70b")
    base.facts["model_config"]["vocab_size"] = 43_177
    problems = recipe_problems(swallow_70b(), {**swallow_inputs(), "base": base})
    assert [problem.message for problem in problems] == [
        "parallel.tensor: 8 does not divide entries of the vocabulary (43177)"
    ]


def test_estimate_of_what_does_not_fit_on_the_device_is_a_problem():
    (problem,) = recipe_problems(swallow_70b(parallel={"tensor": 8, "data": 4}), swallow_inputs())
    assert problem.severity == "error"
    assert "one a100-40gb has 40 GiB" in problem.message
    (problem,) = recipe_problems(
        swallow_70b(parallel={"tensor": 8, "data": 2}, hardware=None), swallow_inputs()
    )
    assert problem.severity == "warning"


@pytest.mark.parametrize(("schedule", "severity"), [("gpipe", "warning"), ("1f1b", "error")])
def test_estimate_of_a_starved_pipeline_warns_where_the_schedule_can_run_it(schedule, severity):
    parallel = {"data": 4, "tensor": 8, "pipeline": 8, "schedule": schedule}
    config = swallow_70b(batch_tokens=16 * 4096, parallel=parallel)
    assert [problem.severity for problem in recipe_problems(config, swallow_inputs())] == [severity]


def test_estimate_of_unknown_hardware_suggests_a_name():
    problem = recipe_problems(swallow_70b(hardware="a100-40g"), swallow_inputs())[0]
    assert problem.hint == 'did you mean "a100-40gb"?'


def small(**more):
    settings = {
        "model": {"preset": "llama-mini"},
        "tokenizer": {"train": "english", "size": 4096},
        "data": {"english": 1.0},
        "tokens": "1.5M",
        "sequence_length": 256,
        "batch_tokens": 4096,
        "threads": 2,
        "device": "cpu",
    }
    return Config.model_validate({**settings, **more})


def test_estimate_of_the_demo_on_a_cpu_is_small():
    forecast = estimate(small(), {"english": documents(3_000_000, 500)})
    assert forecast.problems == ()
    assert forecast.counts["vocabulary_size"] == 4096
    assert forecast.counts["tokens"] == 366 * 4096
    assert forecast.memory_bytes < 2 * GIB
    assert forecast.disk_bytes < 0.2 * GIB
    assert 5 < forecast.seconds < 600
    assert forecast.facts["device"] == "cpu"
    assert forecast.facts["tokenizer"] == "byte-level BPE of 4096 entries from english"


@pytest.mark.parametrize(
    ("rows", "length", "measured"),
    [(2, 512, 1.052e9), (8, 512, 1.892e9), (8, 2048, 4.698e9), (4, 4096, 4.819e9)],
)
def test_memory_on_a_cpu_is_that_of_runs(rows, length, measured):
    """docs/log.md, 2026-11-26: `peak_memory_bytes` of `tsugiki run`."""
    model = {"preset": "llama-nano", "hidden_size": 256, "intermediate_size": 688, "layers": 6}
    model |= {"heads": 8, "kv_heads": 8, "head_dim": 32, "tied_embeddings": True, "max_positions": length}
    batch = {"sequence_length": length, "batch_tokens": rows * length, "micro_batch_tokens": rows * length}
    tokenizer = {"train": "english", "size": 8192}
    config = small(model=model, tokenizer=tokenizer, precision="float32", **batch)
    forecast = estimate(config, {"english": documents(3_000_000, 500)})
    assert forecast.memory_bytes == pytest.approx(measured, rel=0.15)


def test_disk_holds_copies_of_plain_files_and_their_tokens():
    files = Forecast(ArtifactType.DOCUMENTS, {"files": 3, "bytes": 1e12})
    held_out = Forecast(ArtifactType.DOCUMENTS, {"files": 1, "bytes": 1e9})
    known = estimate(swallow_70b(), swallow_inputs()).disk_bytes
    plain = estimate(swallow_70b(), {**swallow_inputs(), "japanese": files}).disk_bytes
    # files are compressed to a third, as their copy is: text three times as long, beside it the copy
    assert plain - known == pytest.approx(1e12 + 2e12 / 3 * 2)  # 3 bytes a token, of 2 bytes
    measured = swallow_70b(validation=["more"])
    inputs = {**swallow_inputs(), "more": held_out}
    assert estimate(measured, inputs).disk_bytes - known == pytest.approx(1e9)


@pytest.mark.parametrize(
    ("text_bytes", "severities"), [(1_200_000, []), (1_000_000, ["warning"]), (300_000, ["error"])]
)
def test_estimate_tells_a_corpus_surely_too_small_from_one_that_may_be(text_bytes, severities):
    problems = estimate(small(), {"english": documents(text_bytes, 300)}).problems
    assert [problem.severity for problem in problems] == severities
    assert all(problem.where == "data.english" for problem in problems)


def test_estimate_counts_the_training_split_where_it_is_known():
    counts = {"documents": 300, "bytes": 3_000_000, "train_documents": 200, "train_bytes": 300_000}
    (problem,) = estimate(small(), {"english": Forecast(ArtifactType.DOCUMENTS, counts)}).problems
    assert "300,000 bytes" in problem.message


def test_estimate_of_files_from_outside_does_not_take_their_size_for_text():
    files = Forecast(ArtifactType.DOCUMENTS, {"files": 3, "bytes": 1000})
    assert estimate(small(), {"english": files}).problems == ()


def test_estimate_of_equal_compute_gives_the_tokens_that_cost_the_same():
    base = estimate(small(), {"english": documents()})
    config = small(tokens=None, equal_compute="base", tokenizer={"train": "english", "size": 6144})
    larger = estimate(config, {"english": documents(), "base": base})
    assert larger.counts["tokens"] < base.counts["tokens"]
    assert 0 <= base.counts["training_flops"] - larger.counts["training_flops"] < 4096 * 2 * 3e7
    unknown = Forecast(ArtifactType.MODEL, {}, {})
    (problem,) = estimate(config, {"english": documents(), "base": unknown}).problems
    assert problem.where == "equal_compute"
    assert "tokens" not in estimate(config, {"english": documents(), "base": unknown}).counts


@given(st.integers(1, 40), st.integers(1, 1500), st.integers(1, 200_000))
def test_tokens_for_the_compute_of_the_same_shape_are_the_same_tokens(hundreds, rows, steps):
    shape, length = preset("llama-2-70b"), 100 * hundreds
    tokens = length * rows * steps
    flops = shape.training_flops_per_token(length) * tokens
    assert tokens_for(flops, shape, length) == tokens
    assert tokens_for(flops * (1 - 1e-9), shape, length) <= tokens


def test_tokens_for_a_float_that_falls_short_of_a_whole_batch_keeps_it():
    shape, tokens = preset("llama-2-70b"), 3000 * 1293 * 129081
    per_token = shape.training_flops_per_token(3000)
    assert int(per_token * tokens / per_token) == tokens - 1  # why rounding down alone will not do
    assert tokens_for(per_token * tokens, shape, 3000) == tokens


@pytest.mark.parametrize(("warmup", "warned"), [(100, True), (99, False), (0.5, False), (5000, True)])
def test_estimate_of_a_warmup_as_long_as_the_run_warns(warmup, warned):
    problems = estimate(small(tokens=4096 * 100, warmup=warmup), {"english": documents()}).problems
    assert [problem.where for problem in problems if "warm" in problem.message] == ["warmup"] * warned
    assert all(problem.severity == "warning" for problem in problems)


@pytest.mark.parametrize(
    ("kept", "action", "warned"), [(1, "rewind", True), (2, "rewind", False), (1, "stop", False)]
)
def test_estimate_of_a_single_checkpoint_to_rewind_to_warns(kept, action, warned):
    config = small(tokens=4096 * 100, keep_checkpoints=kept, spikes={"action": action})
    found = estimate(config, {"english": documents()}).problems
    assert [problem.where for problem in found] == ["keep_checkpoints"] * warned


def test_estimate_of_fewer_tokens_than_a_batch_is_a_problem():
    (problem,) = estimate(small(tokens=4000), {"english": documents()}).problems
    assert problem.message == "4,000 tokens are fewer than one batch of 4,096"


def test_estimate_of_too_long_a_sequence_is_a_problem():
    (problem,) = estimate(small(sequence_length=2048), {"english": documents()}).problems
    assert problem.where == "sequence_length"


def test_estimate_of_a_model_of_unknown_shape_warns():
    config = small(model="someone/something", tokenizer=None)
    inputs = {
        "english": documents(),
        "someone/something": Forecast(ArtifactType.MODEL, facts={"tokenizer": "x"}),
    }
    forecast = estimate(config, inputs)
    assert [problem.severity for problem in forecast.problems] == ["warning"]
    assert forecast.counts["tokens"] == 366 * 4096


def test_shape_of_takes_overrides_and_refuses_what_does_not_hold_together():
    assert shape_of(small(model={"preset": "llama-mini", "layers": 3}), {}).layers == 3
    with pytest.raises(InputError, match="5 heads can't share 2"):
        shape_of(small(model={"preset": "llama-mini", "heads": 5}), {})


@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        ({}, 16),
        ({"batch_tokens": 256 * 48}, 24),
        ({"micro_batch_tokens": 256 * 10}, 8),
        ({"parallel": {"data": 4}}, 4),
        ({"batch_tokens": 256 * 37}, 1),
        ({"sequence_length": 16384, "batch_tokens": 16384 * 4}, 1),
    ],
)
def test_micro_batch_rows_divide_each_copys_share_within_the_limit(changes, rows):
    assert micro_batch_rows(small(**changes)) == rows


@pytest.mark.parametrize(("tokens", "expected"), [(0, 0), (4095, 0), (4096, 1), (12_287, 2)])
def test_steps_for_rounds_down(tokens, expected):
    assert steps_for(tokens, 4096) == expected


def mixture(name="mixtral-8x7b", **parallel):
    config = swallow_70b(parallel=parallel, hardware=None, micro_batch_tokens=4096)
    return config, swallow_inputs(name)


@pytest.mark.parametrize(
    ("name", "parallel"),
    [
        ("mixtral-8x7b", {"data": 8, "expert": 8}),
        ("mixtral-8x7b", {"data": 2, "tensor": 4, "expert": 2}),
        ("qwen3-30b-a3b", {"tensor": 8, "data": 2, "expert": 2}),  # 4 key-value heads: two copies of each
        ("qwen3-30b-a3b", {"tensor": 16}),
        ("qwen3-30b-a3b", {"pipeline": 4, "context": 2, "data": 2, "expert": 4}),
    ],
)
def test_mixtures_of_experts_are_planned_in_layouts_that_divide(name, parallel):
    config, inputs = mixture(name, **parallel)
    assert [problem for problem in estimate(config, inputs).problems if problem.severity != "warning"] == []


@pytest.mark.parametrize(
    ("name", "parallel", "message", "hint"),
    [
        ("mixtral-8x7b", {"data": 16, "expert": 16}, "16 does not divide 8 experts", "1, 2, 4, 8"),
        (
            "llama-2-70b",
            {"tensor": 8, "data": 2, "expert": 2},
            "expert: the model has no experts",
            "expert 1",
        ),
        (
            "mixtral-8x7b",
            {"tensor": 3},
            "parallel.tensor: 3 does not divide the width of an expert (14336)",
            "1, 2, 4, 7, 8",
        ),
        ("llama-2-70b", {"tensor": 12}, "12 and 8 key-value heads divide neither way", "8, 16, 32, 64"),
    ],
)
def test_a_layout_of_experts_or_heads_that_does_not_divide_names_those_that_do(name, parallel, message, hint):
    config, inputs = mixture(name, **parallel)
    problems = estimate(config, inputs).problems
    hints = [problem.hint for problem in problems if message in problem.message]
    assert hints
    assert hint in hints[0]


@pytest.mark.parametrize(
    ("parallel", "degrees"),
    [
        ({"data": 4, "expert": 3}, "1, 2, 4"),
        ({"data": 12, "shard": 3, "expert": 2}, "1, 3, 6, 12"),
        ({"context": 2, "data": 3, "shard": 1, "expert": 3}, "1, 2, 6"),
        ({"tensor": 2, "expert": 2}, "1"),
    ],
)
def test_a_degree_of_experts_that_the_data_ranks_do_not_allow_is_refused(parallel, degrees):
    with pytest.raises(ValueError, match=rf"degrees that do: {degrees} \["):
        Parallel.model_validate(parallel)


def test_devices_have_the_memory_that_the_planner_gives_them():
    accelerators = {name: device.memory_bytes for name, device in DEVICES.items() if name != "cpu"}
    assert accelerators == {name: ACCELERATORS[name].memory_bytes for name in accelerators}
    assert accelerators["h200-141gb"] == pytest.approx(143_771 * 2**20, rel=0.01)  # nvidia-smi's total


def test_devices_have_sensible_figures():
    assert all(
        0 < device.utilisation <= 1 and device.bfloat16_flops >= device.float32_flops
        for device in DEVICES.values()
    )
