"""bfloat16 and float8 in four processes (gloo): how far every layout is from one process, and what float8 does.

As in `test_layouts`, one script makes the processes once and trains on the engines in one layout after the
other.
"""

import json
import os
import socket
import subprocess
import sys

import pytest

SCRIPT = """
import json, os, sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch

from tsugiki.dataset.mixture import Batch
from tsugiki.models.config import preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.training.compute import Compute
from tsugiki.training.engine import Alone
from tsugiki.training.optimizer import adamw
from tsugiki.training.parallel.mesh import close_world, open_world
from tsugiki.training.parallel.together import Together
from tsugiki.training.precision.products import use_float8
from tsugiki.training.settings import Parallel
from tsugiki.training.stage import Config

work, job = Path(sys.argv[1]), json.loads(sys.argv[2])
ROWS, LENGTH, STEPS = 8, 32, job["steps"]
torch.set_num_threads(1)
shape = replace(
    preset("llama-nano"), vocabulary_size=128, hidden_size=64, intermediate_size=128, layers=4, heads=4,
    kv_heads=2, head_dim=16,
)
device = torch.device("cpu")


def batches():
    draw = np.random.default_rng(1)
    tokens = draw.zipf(1.4, (STEPS, ROWS, LENGTH + 1)) % shape.vocabulary_size
    for rows in tokens.astype(np.int64):
        targets = np.where(draw.random((ROWS, LENGTH)) < 0.1, -100, rows[:, 1:])
        documents = np.cumsum(draw.random((ROWS, LENGTH)) < 0.1, axis=1).astype(np.int32)
        yield Batch(np.ascontiguousarray(rows[:, :-1]), targets, documents, np.zeros(ROWS, np.int64))


def config_of(precision):
    return Config.model_validate({
        "model": {"preset": "llama-nano"}, "tokenizer": {"train": "a", "size": 320}, "data": {"a": 1.0},
        "tokens": 16384, "precision": precision,
    })


def started(engine, decoders):
    for part in decoders:
        initialise(part, 3)
    engine.optimizer = adamw(
        engine.parameters.items(), learning_rate=1e-2, betas=(0.9, 0.95), epsilon=1e-8, weight_decay=0.1,
        decay_embeddings=False,
    )
    return engine


def alone(precision):
    decoder = Decoder(shape)
    float8 = use_float8(config_of(precision), shape, [decoder], device)
    compute = Compute(device, bfloat16=precision != "float32")
    return started(Alone(decoder, None, compute, 2, float8), [decoder])


def together(precision, layout, recompute="none"):
    world = open_world(Parallel.model_validate(layout), device, timedelta(seconds=60))
    engine = Together(
        shape, world, sequence_length=LENGTH, rows_at_once=2, precision=precision, document_masking=True,
        z_loss=0.0, recompute=recompute,
        float8=lambda parts: use_float8(config_of(precision), shape, parts, device),
    )
    return started(engine, engine.decoders)


def rows_of(engine, fall_back_after=None):
    found = []
    for number, batch in enumerate(batches()):
        if number == fall_back_after:
            assert engine.fall_back() and not engine.fall_back()
        if number in {0, 5}:
            engine.watch_float8()
        counted = int((batch.targets_BT >= 0).sum())
        share = ROWS // engine.world.parallel.data if engine.ranks > 1 else ROWS
        first = share * (engine.world.data_rank if engine.ranks > 1 else 0)
        result = engine.train(batch.rows(first, first + share), 1.0, counted)
        report = None if result.float8 is None else result.float8.row()["matrices"]
        found.append({"loss": result.loss, "precision": engine.precision, "report": report})
    return found


def child(rank):
    results = {}
    if rank == 0:
        for name, (precision, fall_back_after) in job["alone"].items():
            results[name] = rows_of(alone(precision), fall_back_after)
    os.environ.update(RANK=str(rank), WORLD_SIZE="4", MASTER_ADDR="127.0.0.1", MASTER_PORT=os.environ["PORT"])
    for name, (precision, fall_back_after, given) in job["layouts"].items():
        results[name] = rows_of(together(precision, **given), fall_back_after)
    close_world()
    if rank == 0:
        (work / "results.json").write_text(json.dumps(results))


children = []
for rank in range(4):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            child(rank)
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    children.append(pid)
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children))
"""


def trained(directory, **job):
    """The losses, precisions and reports of every step, of each run by name."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(directory), json.dumps(job)],
        env={**os.environ, "PORT": str(port), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return json.loads((directory / "results.json").read_text())
