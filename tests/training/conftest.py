"""A nano model on small real documents: a whole run takes a second or two."""

import json
import os
import random
import socket
import subprocess
import sys

import pyarrow as pa
import pytest
import torch

from tsugiki.artifacts.contract import ArtifactType, Inputs, open_workspace
from tsugiki.artifacts.documents import documents_schema, write_documents
from tsugiki.artifacts.identity import identity_of
from tsugiki.artifacts.manifest import Manifest, content_files, write_manifest
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


FORK = """

children = []
for rank in range(job["processes"]):
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


FORKER = """
import json, os, sys, traceback
import tsugiki.training.job
import tsugiki.training.parallel.together

for line in sys.stdin:
    script, arguments, environment, output = json.loads(line)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(file, 1)
            os.dup2(file, 2)
            sys.argv[1:] = arguments
            os.environ.update(environment)
            exec(compile(script, "<script>", "exec"), {"__name__": "__main__"})
            status = 0
        except SystemExit as left:
            status = left.code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.fixture(scope="session")
def run_script():
    """Run a script in a process of its own; gives its exit status, negative for a signal.

    It is forked from one that has imported torch and the engines: that takes five seconds, and is done once.
    """
    with subprocess.Popen(
        [sys.executable, "-c", FORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
    ) as process:

        def go(script, arguments, output, **environment):
            process.stdin.write(json.dumps([script, arguments, environment, str(output)]) + "\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield go
        process.stdin.close()


@pytest.fixture(scope="session")
def in_processes(run_script):
    """Call `child(rank)` of a script in forked processes; gives what the first leaves in results.json.

    The script finds a directory and the job (JSON) in its arguments, and a free port in PORT.
    """

    def go(script, directory, *, processes, **job):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        arguments = [str(directory), json.dumps({"processes": processes, **job})]
        output = directory / "output.txt"
        status = run_script(script + FORK, arguments, output, PORT=str(port))
        assert status == 0, output.read_text()[-8000:]
        return json.loads((directory / "results.json").read_text())

    return go


@pytest.fixture(scope="session")
def finish():
    """Write the manifest that the workflow writes; `facts` are added to the outcome's."""

    def go(directory, outcome, *, kind="train", **facts):
        payload = {"kind": kind}
        manifest = Manifest(
            type=ArtifactType.MODEL,
            kind=kind,
            code_version=1,
            identity=identity_of(payload),
            payload=payload,
            config={},
            files=content_files(directory),
            counts=dict(outcome.counts),
            facts={**outcome.facts, **facts},
            provenance={},
        )
        write_manifest(directory, manifest)
        return directory

    return go
