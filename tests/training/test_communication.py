"""What processes say to each other in a step: how often weights are gathered and gradients added up."""

import pytest

SCRIPT = """
import json, os, sys
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tsugiki.dataset.mixture import Batch
from tsugiki.models.config import preset
from tsugiki.models.decoder import initialise
from tsugiki.training.optimizer import adamw
from tsugiki.training.parallel.mesh import close_world, open_world
from tsugiki.training.parallel.together import Together
from tsugiki.training.placement import local_part
from tsugiki.training.settings import Parallel
from tsugiki.training.validation import ValidationSet

work, job = Path(sys.argv[1]), json.loads(sys.argv[2])
torch.set_num_threads(1)
shape = replace(
    preset("llama-nano"), vocabulary_size=64, hidden_size=16, head_dim=8, heads=2, kv_heads=2, layers=4
)


class Counting(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "c10d":
            self.calls[func._schema.name.removeprefix("c10d::").strip("_")] += 1
        return func(*args, **(kwargs or {}))


def engine_of(layout):
    world = open_world(Parallel.model_validate(layout), torch.device("cpu"), timedelta(seconds=60))
    engine = Together(
        shape, world, sequence_length=8, rows_at_once=1, precision="float32", document_masking=False,
        z_loss=0.0,
    )
    for part in engine.decoders:
        initialise(part, 1)
    engine.optimizer = adamw(
        engine.parameters.items(), learning_rate=1e-3, betas=(0.9, 0.95), epsilon=1e-8, weight_decay=0.1,
        decay_embeddings=False,
    )
    return engine


def batch_of(rows):
    ids = np.arange(rows * 8).reshape(rows, 8) % 64
    return Batch(ids, ids, np.zeros((rows, 8), np.int32), np.zeros(rows, np.int64))


def measured(layout):
    '''A held-out set before and after the weights are changed, as a checkpoint that is gone back to does.'''
    engine, held_out = engine_of(layout), ValidationSet("held-out", batch_of(8), 1)
    found = [engine.measure(held_out)]
    with torch.no_grad():
        for parameter in engine.parameters.values():
            local_part(parameter).mul_(3)
    return [*found, engine.measure(held_out)]


def counted(layout):
    engine = engine_of(layout)
    batch = batch_of(8 // engine.world.parallel.data)
    engine.train(batch, 1.0, 64)
    with Counting() as mode:
        engine.train(batch, 1.0, 64)
    return mode.calls


def child(rank):
    os.environ.update(RANK=str(rank), WORLD_SIZE="4", MASTER_ADDR="127.0.0.1", MASTER_PORT=os.environ["PORT"])
    make = globals()[job["make"]]
    results = {name: make(layout) for name, layout in job["layouts"].items()}
    close_world()
    if rank == 0:
        (work / "results.json").write_text(json.dumps(results))
"""

LAYOUTS = {
    "spread": {"data": 4},
    "copies": {"data": 4, "shard": 1},
    "both": {"data": 4, "shard": 2},
    "pipeline": {"data": 2, "pipeline": 2},
}
"""Two micro-batches a process of four layers (and what is beside them), or four of two layers."""


def test_a_step_gathers_weights_and_adds_gradients_up_no_more_often_than_it_has_to(tmp_path, in_processes):
    found = in_processes(SCRIPT, tmp_path, processes=4, layouts=LAYOUTS, make="counted")
    for name in ("spread", "both"):
        # forward all, backward those that were dropped: the last to be used stay
        assert found[name]["allgather_base"] == 2 * (5 + 4)
        # after each micro-batch: no process ever holds whole gradients
        assert found[name]["reduce_scatter_base"] == 2 * 5
    assert found["spread"]["allreduce"] == 1  # loss and norm
    # copies hear of the sum once a step, however many micro-batches it has
    assert found["both"]["allreduce"] == found["copies"]["allreduce"] == 5 + 1
    assert "allgather_base" not in found["copies"]
    # once a step, whatever the number of micro-batches
    assert found["pipeline"]["allgather_base"] == found["pipeline"]["reduce_scatter_base"] == 2 + 1


def test_weights_that_were_changed_after_a_measurement_are_those_of_the_next_one(tmp_path, in_processes):
    found = in_processes(SCRIPT, tmp_path, processes=4, layouts=LAYOUTS, make="measured")
    before, after = found["copies"]
    assert after > before + 1  # bits per byte of three times as large weights
    for name, pair in found.items():
        assert pair == pytest.approx([before, after], rel=1e-5), name
