"""Mixtures of experts and shared key-value heads in four processes: every layout's losses are those of one.

One script makes four processes once and trains in one layout after the other, on the engine itself: a run of
the whole stage in as many processes (`test_together`) takes several seconds to start.
"""

import pytest

SCRIPT = """
import json, os, sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch

from tsugiki.dataset.mixture import Batch
from tsugiki.models.config import preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.training.checkpoint import Saving, newest_checkpoint, restore
from tsugiki.training.compute import Compute
from tsugiki.training.engine import Alone
from tsugiki.training.optimizer import adamw
from tsugiki.training.parallel.mesh import close_world, open_world
from tsugiki.training.parallel.together import Together
from tsugiki.training.routers import Balancing, routers_of
from tsugiki.training.settings import Parallel
from tsugiki.training.telemetry import Routed
from tsugiki.training.validation import ValidationSet
from dataclasses import replace
from types import SimpleNamespace
import logging

import torch.distributed as dist

work, job = Path(sys.argv[1]), json.loads(sys.argv[2])
ROWS, LENGTH, STEPS = 8, 32, job["steps"]
torch.set_num_threads(1)
shape = replace(preset(job["preset"]), vocabulary_size=128, hidden_size=32, head_dim=8, **job["shape"])
if shape.family.startswith("qwen"):
    shape = replace(shape, moe=replace(shape.moe, experts=4, dense_layers=(0,)))
Z_LOSS = 1e-3
balancing = Balancing(0.05, 0.01, job.get("convention", "sequence"), job.get("bias", 0.0))


def batches():
    draw = np.random.default_rng(1)
    tokens = draw.zipf(1.4, (STEPS, ROWS, LENGTH + 1)) % shape.vocabulary_size
    for rows in tokens.astype(np.int64):
        targets = np.where(draw.random((ROWS, LENGTH)) < 0.1, -100, rows[:, 1:])
        targets[0, 3:] = -100  # a row that is nearly all padding
        documents = np.cumsum(draw.random((ROWS, LENGTH)) < 0.1, axis=1).astype(np.int32)
        yield Batch(np.ascontiguousarray(rows[:, :-1]), targets, documents, np.zeros(ROWS, np.int64))


def started(engine, decoders):
    for part in decoders:
        initialise(part, 3)
        if job.get("lopsided"):  # every token goes through the first experts: the others get none
            for name, parameter in part.named_parameters():
                if name.endswith("mlp.gate.weight"):
                    with torch.no_grad():
                        parameter.zero_()
    engine.optimizer = adamw(
        engine.parameters.items(), learning_rate=1e-2, betas=(0.9, 0.95), epsilon=1e-8, weight_decay=0.1,
        decay_embeddings=False,
    )
    return engine


def alone():
    decoder = Decoder(shape)
    routers = routers_of(decoder, balancing)
    compute = Compute(torch.device("cpu"), z_loss=Z_LOSS, routers=routers)
    return started(Alone(decoder, None, compute, job.get("rows", 2)), [decoder])


def together(layout, recompute="none", precision="float32", rows=None):
    world = open_world(Parallel.model_validate(layout), torch.device("cpu"), timedelta(seconds=60))
    engine = Together(
        shape, world, sequence_length=LENGTH, rows_at_once=rows or (2 if layout.get("data", 1) < 4 else 1),
        precision=precision, document_masking=True, z_loss=Z_LOSS,
        balancing=balancing, recompute=recompute,
    )
    return started(engine, engine.decoders)


def routed_of(engine):
    counters = SimpleNamespace(expert_tokens=[], router_biases=[], routing={})
    alone = engine.ranks == 1
    routed = Routed([engine.compute.routers] if alone else engine.routers, None if alone else dist.all_reduce)
    routed.start(counters)
    return routed, counters


def with_biases(engine, some):
    '''Training whose biases move; then how held-out rows are routed, and measured, with and without them.'''
    routed, counters = routed_of(engine)
    found = rows_of(engine, some, lambda: routed.after_step(counters))
    held_out = ValidationSet("held-out", next(batches()), 1000)
    bits = engine.measure(held_out)
    seen = routed.watched()
    without = routed.without_biases(lambda: engine.measure(held_out), counters)
    assert engine.measure(held_out) == bits != without
    row = {"bits": bits, "without": without, "moved": seen.moved_share, "biases": counters.router_biases}
    return [found, row, counters.expert_tokens, seen.as_row()]


def rows_of(engine, some, after=lambda: None):
    found = []
    for batch in some:
        counted = int((batch.targets_BT >= 0).sum())
        share = ROWS // engine.world.parallel.data if engine.ranks > 1 else ROWS
        first = share * (engine.world.data_rank if engine.ranks > 1 else 0)
        result = engine.train(batch.rows(first, first + share), 1.0, counted)
        found.append({"loss": result.loss, "norm": result.gradient_norm, **result.figures})
        after()
    return found


def handed_over(layouts):
    '''Each layout takes the checkpoint of the one before, and goes on.'''
    found, all_batches = [], list(batches())
    share = STEPS // len(layouts)
    for number, layout in enumerate(layouts):
        engine = together(layout)
        if number:
            checkpoint = newest_checkpoint(
                work, "run", logging.getLogger(), rank=engine.rank, ranks=engine.ranks, agree=engine.in_all
            )
            restore(checkpoint, engine.parameters, engine.optimizer)
        found += rows_of(engine, all_batches[number * share : (number + 1) * share])
        saving = Saving(
            work, engine.parameters, engine.optimizer, step=(number + 1) * share, run_identity="run",
            counters={}, rank=engine.rank,
        )
        saving.wait()
        engine.in_all(True)
        if engine.rank == 0:
            saving.commit()
        engine.in_all(True)
    return found


def child(rank):
    train = with_biases if job.get("bias") else rows_of
    results = {"alone": train(alone(), batches())} if rank == 0 else {}
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(job["processes"]))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=os.environ["PORT"])
    for name, given in job["layouts"].items():
        results[name] = train(together(**given), batches())
    if job.get("chain"):
        results["chain"] = handed_over(job["chain"])
    close_world()
    if rank == 0:
        (work / "results.json").write_text(json.dumps(results))
"""


def assert_same(found, expected, rtol=2e-5):
    assert len(found) == len(expected)
    for name in expected[0]:
        ours, theirs = ([row[name] for row in rows] for rows in (found, expected))
        assert ours == pytest.approx(theirs, rel=rtol, abs=1e-6), name


MIXTRAL = {"layers": 2, "heads": 4, "kv_heads": 2}
MIXTRAL_LAYOUTS = {
    "data-tensor-expert": {"layout": {"data": 2, "tensor": 2, "expert": 2}, "recompute": "selective"},
    "pipeline-context-expert": {"layout": {"pipeline": 2, "context": 2, "expert": 2}, "recompute": "full"},
}
SLOW_LAYOUTS = {
    "data": {"layout": {"data": 4}},
    "copies": {"layout": {"data": 4, "shard": 1}},
    "tensor": {"layout": {"tensor": 4}},
    "context": {"layout": {"context": 4}},
    "expert": {"layout": {"data": 4, "expert": 4}},
    "expert-fsdp": {"layout": {"data": 4, "expert": 2}},
    "expert-copied": {"layout": {"data": 4, "shard": 1, "expert": 2}},
    "expert-both": {"layout": {"data": 4, "shard": 2, "expert": 4}, "recompute": "selective"},
    "expert-over-context": {"layout": {"data": 2, "context": 2, "expert": 4}, "recompute": "full"},
    "expert-copied-context": {"layout": {"data": 2, "shard": 1, "context": 2, "expert": 2}},
    "pipeline-tensor": {"layout": {"pipeline": 2, "tensor": 2}},
}


TWO_PROCESSES = {
    "data": {"layout": {"data": 2}},
    "copies": {"layout": {"data": 2, "shard": 1}},
    "tensor": {"layout": {"tensor": 2}},
    "context": {"layout": {"context": 2}},
    "pipeline": {"layout": {"pipeline": 2}},
}


def test_a_dense_model_has_the_losses_of_one_process_in_every_layout_of_two(tmp_path, in_processes):
    results = in_processes(
        SCRIPT, tmp_path, processes=2, preset="llama-nano", shape=MIXTRAL, steps=6, layouts=TWO_PROCESSES
    )
    expected = results.pop("alone")
    assert expected[-1]["loss"] < expected[0]["loss"]
    assert results.keys() == TWO_PROCESSES.keys()
    for found in results.values():
        assert_same(found, expected)


@pytest.mark.parametrize(
    ("preset", "layouts", "steps"),
    [
        ("mixtral-nano", MIXTRAL_LAYOUTS, 3),
        ("qwen2-moe-nano", MIXTRAL_LAYOUTS, 3),  # a shared expert
        *(
            pytest.param(preset, layouts, 20, marks=pytest.mark.slow)
            for preset in ("mixtral-nano", "qwen2-moe-nano")
            for layouts in (MIXTRAL_LAYOUTS, SLOW_LAYOUTS)
        ),
    ],
)
def test_a_mixture_of_experts_has_the_losses_of_one_process_in_every_layout(
    tmp_path, in_processes, preset, layouts, steps
):
    results = in_processes(
        SCRIPT, tmp_path, processes=4, preset=preset, shape=MIXTRAL, steps=steps, layouts=layouts
    )
    expected = results.pop("alone")
    assert expected[-1]["loss"] < expected[0]["loss"]
    assert {"balance_loss", "router_z_loss", "expert_load", "expert_load_max"} <= expected[0].keys()
    assert results.keys() == layouts.keys()
    for found in results.values():
        assert_same(found, expected)


def test_biases_and_telemetry_are_those_of_one_process_in_every_layout(tmp_path, in_processes):
    results = in_processes(
        SCRIPT, tmp_path, processes=4, preset="mixtral-nano", shape=MIXTRAL, steps=8, bias=0.02,
        layouts=MIXTRAL_LAYOUTS,
    )  # fmt: skip
    rows, row, tokens, seen = results.pop("alone")
    assert row["moved"] > 0.01
    assert max(abs(bias) for layer in row["biases"] for bias in layer) > 0.03
    for name, (found, other, other_tokens, other_seen) in results.items():
        assert_same(found, rows)
        assert other["biases"] == row["biases"], name  # of counts, so to the bit
        assert other_tokens == tokens
        entropies = other_seen.pop("router_entropy")
        assert entropies == pytest.approx(seen["router_entropy"], abs=3e-6)
        assert other_seen == {key: value for key, value in seen.items() if key != "router_entropy"}
        assert (other["bits"], other["without"]) == pytest.approx((row["bits"], row["without"]), rel=1e-5)


def test_the_balance_over_the_whole_batch_is_that_of_one_process_where_a_step_is_one_micro_batch(
    tmp_path, in_processes
):
    layouts = {
        "data-tensor": {"layout": {"data": 2, "tensor": 2}, "rows": 4},
        "data-context": {"layout": {"data": 2, "context": 2}, "rows": 4},
    }
    results = in_processes(
        SCRIPT, tmp_path, processes=4, preset="mixtral-nano", shape=MIXTRAL, steps=4, rows=8,
        layouts=layouts, convention="megatron-global",
    )  # fmt: skip
    expected = results.pop("alone")
    for found in results.values():
        assert_same(found, expected)


def test_processes_whose_experts_get_no_token_and_checkpoints_that_change_hands(tmp_path, in_processes):
    chain = [{"data": 4, "expert": 2}, {"tensor": 4}, {"data": 2, "pipeline": 2, "expert": 2}]
    results = in_processes(
        SCRIPT, tmp_path, processes=4, preset="qwen3-moe-nano", shape={**MIXTRAL, "layers": 3},
        steps=3, lopsided=True,
        layouts={"expert": {"layout": {"data": 4, "expert": 4}}}, chain=chain,
    )  # fmt: skip
    assert results["alone"][0]["expert_load_max"] == 2.0  # all tokens on two of four
    assert_same(results["expert"], results["alone"])
    assert_same(results["chain"], results["alone"])


@pytest.mark.slow
def test_bfloat16_routes_as_one_process_does_within_its_rounding(tmp_path, in_processes):
    layouts = {"bfloat16": {"layout": {"data": 2, "tensor": 2, "expert": 2}, "precision": "bfloat16"}}
    results = in_processes(
        SCRIPT, tmp_path, processes=4, preset="mixtral-nano", shape=MIXTRAL, steps=20, layouts=layouts
    )
    assert_same(results["bfloat16"], [{"loss": row["loss"]} for row in results["alone"]], rtol=2e-2)
