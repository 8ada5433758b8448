"""A nano model on small real documents: a whole run takes a second or two."""

import random

import pyarrow as pa
import pytest
import torch

from tsugiki.artifacts.contract import Inputs, open_workspace
from tsugiki.artifacts.documents import documents_schema, write_documents
from tsugiki.training.stage import Config, run

WORDS = [
    "graft",
    "language",
    "onto",
    "open",
    "model",
    "tree",
    "branch",
    "root",
    *(f"w{n}" for n in range(60)),
]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_documents(directory, *, seed, count=120, words=WORDS, parts=2):
    """Documents whose words follow Zipf's law; every eighth is held out."""
    draw = random.Random(seed)
    weights = [1 / (rank + 1) for rank in range(len(words))]
    schema = documents_schema({})
    for part in range(parts):
        rows = [
            dict.fromkeys(schema.names)
            | {
                "id": f"{part}-{number}",
                "text": " ".join(draw.choices(words, weights, k=draw.randint(5, 120))) + ".",
                "split": "heldout" if number % 8 == 0 else "train",
            }
            for number in range(count // parts)
        ]
        table = pa.Table.from_pylist(rows, schema=schema)
        write_documents(directory / "documents" / f"part-{part:05d}.parquet", table)
    return directory


@pytest.fixture(scope="session")
def corpora(tmp_path_factory):
    """Two documents artifacts by name."""
    root = tmp_path_factory.mktemp("corpora")
    return {
        "english": random_documents(root / "english", seed=1),
        "japanese": random_documents(
            root / "japanese", seed=2, words=["接ぎ木", "言語", "模型", "幹", "根", "葉"]
        ),
    }


SCRATCH = {
    "model": {"preset": "llama-nano", "hidden_size": 32, "intermediate_size": 64, "head_dim": 8},
    "tokenizer": {"train": "english", "size": 320},
    "data": {"english": 1.0},
    "tokens": 6144,
    "sequence_length": 32,
    "batch_tokens": 256,
    "learning_rate": 5e-3,
    "warmup": 2,
    "checkpoint_every_steps": 5,
    "threads": 1,
    "device": "cpu",
}


@pytest.fixture(scope="session")
def scratch():
    """The configuration of a nano run from scratch, as a recipe gives it."""
    return SCRATCH


@pytest.fixture(scope="session")
def run_stage(corpora):
    """Run the stage into a directory; further inputs by name."""

    def go(directory, settings, **more):
        given = {name: (path,) for name, path in {**corpora, **more}.items()}
        workspace = open_workspace(directory)
        try:
            return run(Config.model_validate(settings), Inputs(given), workspace)
        finally:
            workspace.metrics.close()
            for handler in list(workspace.log.handlers):
                workspace.log.removeHandler(handler)
                handler.close()

    return go


@pytest.fixture(scope="session")
def trained(tmp_path_factory, run_stage, scratch):
    """A finished run from scratch: its directory and its outcome."""
    directory = tmp_path_factory.mktemp("trained")
    settings = {
        **scratch,
        "validation": ["english", "japanese"],
        "validation_bytes": 2000,
        "validation_points": 2,
    }
    return directory, run_stage(directory, settings)
