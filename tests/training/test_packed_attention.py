"""The kernel for packed documents in training: chosen or not, and in every layout.

No GPU is needed: a kernel by the definition takes the place of torch's, and takes queries on a CPU.
"""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.models.attention import attend
from tsugiki.models.config import preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.varlen_attention import attend_segments, in_one_row, mask_of
from tsugiki.training.packed_attention import KERNEL, attention_of, choose_attention
from tsugiki.training.parallel.context import places_of, reach_of

CPU = torch.device("cpu")


def by_definition(q_SNH, k_EKH, v_EKH, segments, window):
    lengths = (ends.diff().tolist() for ends in (segments.query_ends, segments.key_ends))
    q, k, v = (x.transpose(0, 1)[None] for x in (q_SNH, k_EKH, v_EKH))
    mask_SE = mask_of(*lengths, window)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_SE, enable_gqa=q.shape[1] > k.shape[1])
    return out[0].transpose(0, 1)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.lists(st.floats(0, 1), min_size=1, max_size=3),
    st.sampled_from([None, 1, 3, 20]),
    st.integers(0, 99),
)
def test_reach_of_every_part_gives_the_attention_of_whole_rows(degree, piece, rates, window, seed):
    generator = torch.Generator().manual_seed(seed)
    length, rows = 2 * degree * piece, len(rates)
    starts_BT = torch.rand(rows, length, generator=generator) < torch.tensor(rates)[:, None]
    starts_BT[:, 0] = True
    q, k, v = (torch.randn(rows, heads, length, 4, generator=generator) for heads in (4, 2, 2))
    numbers_BT = starts_BT.cumsum(dim=1)
    back_TT = torch.arange(length)[:, None] - torch.arange(length)
    seen_BTT = (numbers_BT[:, :, None] == numbers_BT[:, None]) & (back_TT >= 0)
    seen_BTT &= back_TT < (window or length)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=seen_BTT[:, None], enable_gqa=True)
    gathered_T = torch.cat([places_of(rank, degree, length) for rank in range(degree)])
    order_T = torch.argsort(gathered_T)
    for rank in range(degree):
        places_Q = places_of(rank, degree, length)
        reach = reach_of(places_Q, order_T, starts_BT, window=window, device=CPU)
        keys, values = (in_one_row(x[:, :, gathered_T])[reach.keys_E] for x in (k, v))
        out = attend_segments(
            q[:, :, places_Q], keys, values, reach.segments, kernel=by_definition, window=window
        )
        torch.testing.assert_close(out, expected[:, :, places_Q], atol=1e-5, rtol=1e-4)
        assert reach.keys_E.bincount().max() <= 2  # so adding up gradients has one order


def choose(kernel, *, elsewhere=False, dtype=torch.bfloat16):
    decoder = Decoder(preset("llama-nano"))
    initialise(decoder, 1)
    lines: list[logging.LogRecord] = []
    log = logging.Logger("test")  # noqa: LOG001 (of this test alone)
    handler = logging.Handler()
    handler.emit = lines.append
    log.addHandler(handler)
    said = choose_attention([decoder], kernel, CPU, dtype, in_any=lambda flag: flag or elsewhere, log=log)
    layers = [block.self_attn.attend for block in decoder.model.layers.values()]
    return said, layers, [(line.levelname, line.getMessage()) for line in lines]


def test_a_kernel_that_is_right_is_taken_by_every_layer_and_said_once():
    said, layers, lines = choose(by_definition)
    assert said == KERNEL
    assert all(layer.func is attend and layer.keywords["kernel"] is by_definition for layer in layers)
    assert [level for level, _ in lines] == ["INFO"]


@pytest.mark.parametrize(
    ("kernel", "options", "reason"),
    [
        (None, {}, "has no such kernel"),
        (by_definition, {"dtype": torch.float32}, "not in float32"),
        (by_definition, {"elsewhere": True}, "another process"),
        (
            lambda q, k, v, segments, window: 2 * by_definition(q, k, v, segments, window),
            {},
            "outputs differ",
        ),
        (lambda *given: given[0].no_such_thing, {}, "AttributeError"),
    ],
)
def test_a_kernel_with_a_fault_leaves_attention_to_masks_and_says_why(kernel, options, reason):
    said, layers, lines = choose(kernel, **options)
    assert said.startswith("mask (")
    assert reason in said
    assert all(layer is attend for layer in layers)
    assert [level for level, _ in lines] == ["WARNING"]
    assert reason in lines[0][1]


def test_there_is_no_choice_on_a_cpu():
    config = SimpleNamespace(document_masking=True, precision="bfloat16", parallel=SimpleNamespace(context=1))
    assert attention_of(config, [Decoder(preset("llama-nano"))], None, CPU, logging.getLogger()) == ""


SCRIPT = """
import json, os, sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from tsugiki.dataset.mixture import Batch
from tsugiki.models import attention
from tsugiki.models.config import preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.varlen_attention import attend_by_kernel, mask_of
from tsugiki.training.compute import Compute
from tsugiki.training.engine import Alone
from tsugiki.training.optimizer import adamw
from tsugiki.training.parallel import context
from tsugiki.training.parallel.mesh import close_world, open_world
from tsugiki.training.parallel.together import Together
from tsugiki.training.settings import Parallel

work, job = Path(sys.argv[1]), json.loads(sys.argv[2])
ROWS, LENGTH, STEPS = 8, 32, 2
torch.set_num_threads(1)
shape = replace(
    preset("llama-nano"), vocabulary_size=128, hidden_size=32, head_dim=8, layers=2, heads=4, kv_heads=2,
    family="mistral", sliding_window=6,
)
calls = [0]
for module in (attention, context):
    module.is_for_kernel = lambda _x: True


def kernel(q_SNH, k_EKH, v_EKH, segments, window):
    calls[0] += 1
    lengths = (ends.diff().tolist() for ends in (segments.query_ends, segments.key_ends))
    q, k, v = (x.transpose(0, 1)[None] for x in (q_SNH, k_EKH, v_EKH))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_of(*lengths, window), enable_gqa=True)
    return out[0].transpose(0, 1)


def batches():
    draw = np.random.default_rng(1)
    for _ in range(STEPS):
        rows = draw.integers(0, 128, (ROWS, LENGTH + 1))
        documents = np.cumsum(draw.random((ROWS, LENGTH)) < 0.1, axis=1).astype(np.int32)
        yield Batch(np.ascontiguousarray(rows[:, :-1]), rows[:, 1:], documents, np.zeros(ROWS, np.int64))


def train(engine, decoders):
    for part in decoders:
        initialise(part, 3)
    engine.optimizer = adamw(
        engine.parameters.items(), learning_rate=1e-2, betas=(0.9, 0.95), epsilon=1e-8, weight_decay=0.1,
        decay_embeddings=False,
    )
    calls[0], found = 0, []
    for batch in batches():
        share = ROWS // (engine.world.parallel.data if engine.ranks > 1 else 1)
        first = share * (engine.world.data_rank if engine.ranks > 1 else 0)
        result = engine.train(batch.rows(first, first + share), 1.0, ROWS * LENGTH)
        found.append([result.loss, result.gradient_norm])
    return {"found": found, "calls": calls[0]}


def together(layout, recompute):
    world = open_world(Parallel.model_validate(layout), torch.device("cpu"), timedelta(seconds=60))
    engine = Together(
        shape, world, sequence_length=LENGTH, rows_at_once=2, precision="float32", document_masking=True,
        z_loss=0.0, recompute=recompute,
    )
    attend_by_kernel(engine.decoders, kernel)
    return train(engine, engine.decoders)


def child(rank):
    results = {}
    if rank == 0:
        decoder = Decoder(shape)
        results["alone"] = train(Alone(decoder, None, Compute(torch.device("cpu")), 2), [decoder])
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(job["processes"]))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=os.environ["PORT"])
    for name, given in job["layouts"].items():
        results[name] = together(*given)
    close_world()
    if rank == 0:
        (work / "results.json").write_text(json.dumps(results))
"""

LAYOUTS = {
    "context-tensor": [{"context": 2, "tensor": 2}, "full"],
    "pipeline-context": [{"pipeline": 2, "context": 2}, "selective"],
}
SLOW_LAYOUTS = {
    "data": [{"data": 4}, "none"],
    "pipeline-data": [{"pipeline": 2, "data": 2}, "none"],
    "context": [{"context": 4}, "selective"],
}


@pytest.mark.parametrize("layouts", [LAYOUTS, pytest.param(SLOW_LAYOUTS, marks=pytest.mark.slow)])
def test_every_layout_has_the_losses_of_one_process_without_the_kernel(tmp_path, in_processes, layouts):
    results = in_processes(SCRIPT, tmp_path, processes=4, layouts=layouts)
    alone = results.pop("alone")
    assert alone["calls"] == 0
    assert results.keys() == layouts.keys()
    for name, run in results.items():
        assert run["calls"] > 0, name
        for found, expected in zip(run["found"], alone["found"], strict=True):
            assert found == pytest.approx(expected, rel=2e-5), name
