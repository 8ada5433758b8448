from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open

from tsugiki.errors import InputError, StageError
from tsugiki.models.weights import INDEX, WEIGHTS, read_headers, write_stream, write_weights

TENSORS = {name: torch.full((size,), float(size)) for name, size in (("a", 30), ("b", 10), ("c", 50))}
SIZES = {name: tensor.nbytes for name, tensor in TENSORS.items()}


def test_write_stream_in_another_order_gives_the_same_files(tmp_path):
    write_stream(tmp_path / "in", SIZES, TENSORS.items(), shard_bytes=160)
    write_stream(tmp_path / "out", SIZES, reversed(TENSORS.items()), shard_bytes=160)
    names = sorted(path.name for path in (tmp_path / "in").iterdir())
    assert names == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", INDEX]
    for name in names:
        assert (tmp_path / "in" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_write_stream_index_names_every_tensors_file_and_all_bytes(tmp_path):
    write_stream(tmp_path, SIZES, TENSORS.items(), shard_bytes=100)
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["metadata"]["total_size"] == 360
    for name, file in index["weight_map"].items():
        with safe_open(tmp_path / file, "pt") as stored:
            assert torch.equal(stored.get_tensor(name), TENSORS[name])
    assert read_headers(tmp_path).keys() == TENSORS.keys()


def test_write_stream_holds_no_more_than_one_shard(tmp_path):
    written = []

    def stream():
        for name, tensor in TENSORS.items():
            written.append(sorted(path.name[6:11] for path in tmp_path.glob("model-*")))
            yield name, tensor

    write_stream(tmp_path, SIZES, stream(), shard_bytes=100)
    assert written == [[], ["00001"], ["00001", "00002"]]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a": TENSORS["a"], "b": TENSORS["b"]}, "c did not come"),
        ({**TENSORS, "b": torch.zeros(11)}, "b has 44 bytes, not 40"),
        ({**TENSORS, "d": torch.zeros(1)}, "d has 4 bytes, not None"),
    ],
)
def test_write_stream_of_other_tensors_than_planned_is_a_fault(tensors, message, tmp_path):
    with pytest.raises(StageError, match=message):
        write_stream(tmp_path, SIZES, tensors.items())


def test_write_weights_bfloat16_and_empty_model(tmp_path):
    write_weights(tmp_path, {"x": torch.ones(3, 4, dtype=torch.bfloat16)})
    assert read_headers(tmp_path)["x"].dtype == "BF16"
    assert (tmp_path / WEIGHTS).exists()


@pytest.mark.parametrize(
    "header",
    [
        "[]",
        "3",
        '{"a": 1}',
        '{"a": {"dtype": "F32", "shape": [1]}}',
        '{"a": {"data_offsets": [0]}}',
        "{",
        "\xff",
    ],
)
def test_read_headers_damaged_header_is_refused(header, tmp_path):
    content = header.encode("latin-1")
    (tmp_path / WEIGHTS).write_bytes(len(content).to_bytes(8, "little") + content)
    with pytest.raises(InputError, match="no safetensors file"):
        read_headers(tmp_path)


_LOAD = """
import sys, torch
from pathlib import Path
from tsugiki.models.directory import load_decoder
def kib(key):
    return int(open("/proc/self/status").read().split(key)[1].split()[0])
load_decoder(Path(sys.argv[2]))  # libraries are loaded, buffers made
before = kib("VmRSS:")
open("/proc/self/clear_refs", "w").write("5")  # the high-water mark starts anew
decoder = load_decoder(Path(sys.argv[1]))
print(kib("VmHWM:") - before, sum(p.nbytes for p in decoder.parameters()) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the high-water mark from /proc")
def test_load_never_holds_two_copies_of_the_model(tmp_path):
    from dataclasses import replace

    from tsugiki.artifacts.files import write_json
    from tsugiki.models.config import preset
    from tsugiki.models.decoder import Decoder, initialise
    from tsugiki.models.directory import exported

    small = preset("mixtral-nano")
    for name, config in (
        ("small", small),
        ("large", replace(small, hidden_size=512, intermediate_size=2048, moe=None, family="llama")),
    ):
        decoder = Decoder(replace(config, layers=3))
        initialise(decoder, 0)
        write_weights(tmp_path / name, dict(exported(decoder)), shard_bytes=4 * 2**20)
        write_json(tmp_path / name / "config.json", decoder.config.to_hf())
    run = subprocess.run(
        [sys.executable, "-c", _LOAD, tmp_path / "large", tmp_path / "small"],
        capture_output=True,
        text=True,
        check=True,
    )
    peak_kib, model_kib = map(int, run.stdout.split())
    assert model_kib > 35_000
    assert peak_kib < 1.3 * model_kib
