"""Prompts that the model goes on from while it trains, in one process and in several."""

import pytest

from tsugiki.artifacts.metrics import read_metrics
from tsugiki.models.directory import load_decoder
from tsugiki.models.generation import generate
from tsugiki.models.tokenizer import load_tokenizer


def test_samples_are_written_at_every_point_and_the_last_is_the_models(tmp_path, run_stage, scratch):
    settings = {
        **scratch,
        "tokens": 4096,
        "prompts": ["graft language", "木"],
        "prompt_tokens": 6,
        "validation_points": 2,
    }
    outcome = run_stage(tmp_path / "run", settings)
    samples = outcome.facts["samples"]
    assert [(one["step"], one["prompt"]) for one in samples] == [
        (step, prompt) for step in (0, 8, 16) for prompt in ("graft language", "木")
    ]
    logged = read_metrics(tmp_path / "run" / "metrics.jsonl", event="sample")
    assert [row["text"] for row in logged] == [one["text"] for one in samples]
    tokenizer, decoder = load_tokenizer(tmp_path / "run"), load_decoder(tmp_path / "run").eval()
    start = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    ids = [*start, *tokenizer.encode_within(["graft language"])[0]]
    expected = generate(decoder, ids, 6, tokenizer.eos_id, pieces=tokenizer.size)
    assert samples[-2]["text"] == tokenizer.decode(expected)


def test_samples_leave_the_training_as_it_is(tmp_path, run_stage, scratch, trained):
    settings = {**scratch, "prompts": ["tree"], "validation_points": 3}
    outcome = run_stage(tmp_path / "run", settings)
    assert outcome.facts["final_loss"] == trained[1].facts["final_loss"]


def test_nothing_follows_a_prompt_that_leaves_no_room(tmp_path, run_stage, scratch):
    model = {**scratch["model"], "max_positions": 32}
    long = " ".join(["graft"] * 60)
    settings = {**scratch, "model": model, "tokens": 512, "prompts": [long, "tree"], "validation_points": 1}
    samples = run_stage(tmp_path / "run", settings).facts["samples"]
    assert [one["text"] for one in samples if one["prompt"] == long] == ["", ""]
    assert any(one["text"] for one in samples if one["prompt"] == "tree")


SCRIPT = """
import json, os, sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch

from tsugiki.models.config import preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.training.compute import Compute
from tsugiki.training.engine import Alone
from tsugiki.training.parallel.mesh import close_world, open_world
from tsugiki.training.parallel.together import Together
from tsugiki.training.routers import Balancing, routers_of
from tsugiki.training.settings import Parallel

work, job = Path(sys.argv[1]), json.loads(sys.argv[2])
torch.set_num_threads(1)
shape = replace(preset(job["preset"]), vocabulary_size=128, hidden_size=32, head_dim=8, layers=4,
                max_positions=32, initializer_std=0.3, tied_embeddings=False)
PROMPTS = [[1, 5, 9], [2], [], [3, 3, 3, 3, 7, 11, 13], list(range(1, 33)), [100, 4], [6, 90]]
ASKED = (PROMPTS, 8, job["eos"], 120)


def child(rank):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=os.environ["PORT"], RANK=str(rank),
                      LOCAL_RANK=str(rank), WORLD_SIZE=str(job["processes"]))
    found = {}
    for name, layout in job["layouts"].items():
        world = open_world(Parallel.model_validate(layout), torch.device("cpu"), timedelta(seconds=60))
        engine = Together(shape, world, sequence_length=32, rows_at_once=1, precision="float32",
                          document_masking=True, z_loss=0.0, balancing=Balancing())
        for part in engine.decoders:
            initialise(part, 3)
        found[name] = engine.continuations(*ASKED)
        assert not any(routers.take().any() for routers in engine.routers)
    if rank == 0:
        decoder = Decoder(shape)
        initialise(decoder, 3)
        compute = Compute(torch.device("cpu"), routers=routers_of(decoder, Balancing()))
        found["alone"] = Alone(decoder, None, compute, 1).continuations(*ASKED)
        (work / "results.json").write_text(json.dumps(found))
    close_world()
"""

LAYOUTS = {
    "llama-nano": {
        "data": {"data": 4},
        "tensor, data": {"tensor": 2, "data": 2},
        "context, tensor": {"context": 2, "tensor": 2},
        "pipeline, tensor": {"pipeline": 2, "tensor": 2},
        "interleaved, context": {"pipeline": 2, "schedule": "interleaved", "chunks": 2, "context": 2},
    },
    "mixtral-mini": {
        "expert": {"data": 4, "expert": 2},
        "expert, tensor": {"data": 2, "expert": 2, "tensor": 2},
    },
}


@pytest.mark.parametrize("shape", LAYOUTS)
def test_processes_write_what_one_writes(shape, tmp_path, in_processes):
    """Greedy in float32, so the same ids; padding ids 120 to 127 are never chosen."""
    found = in_processes(SCRIPT, tmp_path, processes=4, preset=shape, layouts=LAYOUTS[shape], eos=17)
    alone = found.pop("alone")
    assert [len(ids) for ids in (alone[2], alone[4])] == [0, 0]
    assert len({tuple(ids) for ids in alone}) > 3
    assert max(max(ids, default=0) for ids in alone) < 120
    for layout, ids in found.items():
        assert ids == alone, layout
