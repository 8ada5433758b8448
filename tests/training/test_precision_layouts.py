"""bfloat16 and float8 in several processes (gloo): how far every layout is from one process.

As in `test_layouts`, one script makes the processes once and trains on the engines in one layout after the
other.
"""

import pytest

SCRIPT = """
import itertools, json, os, sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from tsugiki.dataset.mixture import Batch
from tsugiki.models.config import preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.training.compute import Compute
from tsugiki.training.engine import Alone
from tsugiki.training.optimizer import adamw
from tsugiki.training.parallel.mesh import close_world, open_world
from tsugiki.training.parallel.together import Together
from tsugiki.training.precision.products import Float8Product, recipe_of, use_float8
from tsugiki.training.precision.recipes import TORCHAO_NAMES
from tsugiki.training.settings import Parallel
from tsugiki.training.stage import Config

work, job = Path(sys.argv[1]), json.loads(sys.argv[2])
ROWS, LENGTH, STEPS = 8, 32, 20
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
        engine.parameters.items(), learning_rate=3e-3, betas=(0.9, 0.95), epsilon=1e-8, weight_decay=0.1,
        decay_embeddings=False,
    )
    return engine


def alone(precision):
    decoder = Decoder(shape)
    float8 = use_float8(config_of(precision), shape, [decoder], device)
    compute = Compute(device, bfloat16=precision != "float32")
    return started(Alone(decoder, None, compute, 4, float8), [decoder])


def together(precision, layout, recompute="none"):
    world = open_world(Parallel.model_validate(layout), device, timedelta(seconds=60))
    engine = Together(
        shape, world, sequence_length=LENGTH,
        rows_at_once=2 if layout.get("data", 1) == 4 or "pipeline" in layout else 4,
        precision=precision, document_masking=True,
        z_loss=0.0, recompute=recompute,
        float8=lambda parts: use_float8(config_of(precision), shape, parts, device),
    )
    return started(engine, engine.decoders)


def rows_of(engine, steps, fall_back_after=None):
    found = []
    for number, batch in zip(range(steps), batches()):
        if number == fall_back_after:
            assert engine.fall_back() and not engine.fall_back()
        if number in {0, 3, 6}:
            engine.watch_float8()
        counted = int((batch.targets_BT >= 0).sum())
        share = ROWS // engine.world.parallel.data if engine.ranks > 1 else ROWS
        first = share * (engine.world.data_rank if engine.ranks > 1 else 0)
        for group in engine.optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (number + 1) / 10)
        result = engine.train(batch.rows(first, first + share), 1.0, counted)
        report = None if result.float8 is None else result.float8.row()["matrices"]
        found.append({"loss": result.loss, "precision": engine.precision, "report": report})
    return found


def product_differences(mesh):
    '''Of each recipe and cut: dB of output and gradients on DTensors, against whole matrices.'''
    found = {}
    for precision, emulate in itertools.product(TORCHAO_NAMES, (True, False)):
        product = Float8Product(*recipe_of(precision, emulate=emulate))
        draw = torch.Generator().manual_seed(5)
        x, w, grad = (torch.randn(*size, generator=draw) for size in ((2, 32, 64), (128, 64), (2, 32, 128)))
        w[5] *= 50  # a process with larger numbers than the others: scales have to be those of all
        x[..., 3] *= 50
        w, grad = w.requires_grad_(), grad.bfloat16()
        x = x.requires_grad_()
        y = product(x, w)
        y.backward(grad)
        wanted = (y.detach(), x.grad, w.grad)
        for cut, placements in (("outputs", (Replicate(), Shard(0))), ("inputs", (Shard(2), Shard(1)))):
            x_part, w_part = (
                distribute_tensor(whole.detach(), mesh, [placement]).requires_grad_()
                for whole, placement in zip((x, w), placements, strict=True)
            )
            y_part = product(x_part, w_part)
            y_part.redistribute(placements=[Replicate()]).to_local().backward(grad)
            ours = (y_part.full_tensor().detach(), x_part.grad.full_tensor(), w_part.grad.full_tensor())
            found[f"{precision} {cut} {emulate}"] = [
                float(10 * torch.log10(a.double().square().sum() / (a.double() - b.double()).square().sum()))
                for a, b in zip(wanted, ours, strict=True)
            ]
    return found


def child(rank):
    results = {}
    if rank == 0:
        for name, (precision, run) in job["alone"].items():
            results[name] = rows_of(alone(precision), **run)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(job["processes"]))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=os.environ["PORT"])
    for name, (precision, run, given) in job["layouts"].items():
        results[name] = rows_of(together(precision, **given), **run)
    if job.get("products"):
        open_world(Parallel(tensor=job["processes"]), device, timedelta(seconds=60))
        results["products"] = product_differences(init_device_mesh("cpu", (job["processes"],)))
    close_world()
    if rank == 0:
        (work / "results.json").write_text(json.dumps(results))


recipe_of("float8-rowwise", emulate=True)  # torchao is imported once for all
"""


def losses(run):
    return [step["loss"] for step in run]


BFLOAT16_TOLERANCE = 5e-3
"""Relative, of any of 20 steps' losses against float32, in one process and in several."""

FLOAT8_TOLERANCE = 1e-2
"""Relative, of any of 20 steps' losses against float32, in one process and in several."""

GW_HP = "float8-rowwise-gw-hp"
FALL_BACK_AFTER = 5


@pytest.fixture(scope="module")
def results(tmp_path_factory, in_processes):
    """Twenty steps in float32, in bfloat16 and in float8, alone, with FSDP and with tensor parallelism."""
    plain, falling = {"steps": 20}, {"steps": 8, "fall_back_after": FALL_BACK_AFTER}
    return in_processes(
        SCRIPT,
        tmp_path_factory.mktemp("precisions"),
        processes=2,
        products=True,
        alone={
            "float32": ["float32", plain],
            "bfloat16": ["bfloat16", plain],
            "float8": [GW_HP, falling],
        },
        layouts={
            "bfloat16 of several": ["bfloat16", plain, {"layout": {"data": 2}}],
            "float8 of several": [GW_HP, falling, {"layout": {"tensor": 2}}],
        },
    )


def assert_near(found, expected, tolerance):
    assert found == pytest.approx(expected[: len(found)], rel=tolerance)
    assert found[-1] < 0.98 * found[0]


def test_bfloat16_in_several_processes_is_as_near_to_float32_as_in_one(results):
    float32, one, several = (losses(results[name]) for name in ("float32", "bfloat16", "bfloat16 of several"))
    assert one[0] == pytest.approx(float32[0], rel=2e-4)  # before any step: rounding alone
    assert several[0] == pytest.approx(float32[0], rel=2e-4)
    assert one != several
    assert_near(one, float32, BFLOAT16_TOLERANCE)
    assert_near(several, float32, BFLOAT16_TOLERANCE)
    assert {step["precision"] for step in results["bfloat16 of several"]} == {"bfloat16"}


def test_float8_products_of_cut_matrices_have_the_scales_of_whole_ones(results):
    products = results["products"]
    assert len(products) == 12
    for name, ratios in products.items():  # scales of each part alone would give 30 dB at most
        assert min(ratios) > 42, name


def test_float8_falls_back_in_every_process_and_is_measured_over_all(results):
    one = results["float8"]
    for run in (one, results["float8 of several"]):
        assert_near(losses(run), losses(results["float32"]), FLOAT8_TOLERANCE)
        steps = len(run)
        assert [step["precision"] for step in run] == (
            [GW_HP] * FALL_BACK_AFTER + ["bfloat16"] * (steps - FALL_BACK_AFTER)
        )
        measured = [number for number, step in enumerate(run) if step["report"] is not None]
        assert measured == [0, 3]  # and not at 6: it fell back before
        for matrix, operands in one[0]["report"].items():
            found = run[0]["report"][matrix]
            assert found["weights"] == operands["weights"]
            for role in ("activations", "gradients"):
                assert found[role][0] == pytest.approx(operands[role][0], abs=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float8-tensorwise", "float8-rowwise", GW_HP])
def test_float8_in_every_layout_learns_as_float32_does(tmp_path, in_processes, precision):
    layouts = {
        "data": {"layout": {"data": 4}},
        "copies": {"layout": {"data": 4, "shard": 1}, "recompute": "full"},
        "tensor": {"layout": {"data": 2, "tensor": 2}, "recompute": "selective"},
        "pipeline": {"layout": {"pipeline": 2, "context": 2}, "recompute": "selective"},
    }
    found = in_processes(
        SCRIPT,
        tmp_path,
        processes=4,
        alone={"float32": ["float32", {"steps": 20}], "one": [precision, {"steps": 20}]},
        layouts={name: [precision, {"steps": 20}, given] for name, given in layouts.items()},
    )
    float32 = losses(found.pop("float32"))
    for run in found.values():
        assert_near(losses(run), float32, FLOAT8_TOLERANCE)
