"""Converting a dense model to a mixture of experts: ours, the load-everything way, and a plain copy.

    python benchmarks/upcycling.py [--layers 16] [--width 1536] [--inner 4096] [--repeats 3] [--place PLACE]
                                   [--ways WAY ...] [--cold]

A Llama of random bfloat16 weights is made below PLACE (1.1 GB by default) and becomes eight experts (5.3 GB):

    cp            copies the result with `cp`, then flushes it to the disk: the disk's copy speed, the base
    ours          tsugiki.upcycling.convert, flushed file by file; with one thread and with two
    everything    all weights in memory, experts drawn with torch as the released converter does (but by the
                  paper's rule, one set of neurons), then safetensors' save_file, flushed; no transformers
    stage         `tsugiki upcycle` from its start to its end: conversion, proof and SHA-256 of every file

All write the same number of bytes and wait until they are on the disk. What each reads (cp: the result, the
others: the dense model) is in the system's cache before it begins, or, with --cold, is not. Each runs in a
process of its own; they take turns. Times are from after the imports to flushed files (of the stage: with
its imports), "of cp" is the median of the turns' ratios; processor time is user and system together, of the
process and its children; memory is the process's peak resident set (cp's line: that of the imports alone).
Training speed is benchmarks/upcycling_training.py's.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tsugiki.artifacts.files import write_json
from tsugiki.artifacts.processes import peak_memory_bytes
from tsugiki.models.config import DecoderConfig
from tsugiki.models.directory import write_tokenizer
from tsugiki.models.names import stored_shapes
from tsugiki.models.tokenizer import train_byte_level_bpe

WAYS = ("cp", "ours 1 thread", "ours 2 threads", "everything", "stage")
EXPERTS, RATIO = 8, 0.5
MATRICES = (("w1", "gate_proj"), ("w2", "down_proj"), ("w3", "up_proj"))


def make_dense(directory: Path, layers: int, width: int, inner: int) -> None:
    """A Llama of random weights in bfloat16."""
    shape = DecoderConfig(
        vocabulary_size=32_000, hidden_size=width, intermediate_size=inner, layers=layers, heads=width // 64,
        kv_heads=width // 64, head_dim=64, rope_theta=1e4, norm_eps=1e-5, tied_embeddings=False,
        max_positions=4096, bos_id=1, eos_id=2, initializer_std=0.02,
    )  # fmt: skip
    directory.mkdir()
    tensors = {
        name: (torch.randn(size) * 0.02).bfloat16() if len(size) > 1 else torch.ones(size).bfloat16()
        for name, size in stored_shapes(shape).items()
    }
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    write_json(directory / "config.json", {**shape.to_hf(), "torch_dtype": "bfloat16"})
    write_tokenizer(train_byte_level_bpe(["a graft joins a shoot to a root\n"], 270), directory)


def convert_ours(source: Path, out: Path, workers: int) -> float:
    """Seconds of our conversion."""
    from tsugiki.upcycling import kernels  # noqa: F401 (loading compiled code is no part of it)
    from tsugiki.upcycling.config import Config
    from tsugiki.upcycling.convert import convert

    config = Config(model="dense", num_experts=EXPERTS, ratio=RATIO, workers=workers)
    begun = time.perf_counter()
    convert([source], out, config)
    return time.perf_counter() - begun


def convert_everything(source: Path, out: Path) -> float:
    """Seconds of the plain way: whole models in memory."""
    begun = time.perf_counter()
    dense = load_file(source / "model.safetensors")
    made = {name: tensor for name, tensor in dense.items() if ".mlp." not in name}
    for layer in range(sum(name.endswith("mlp.up_proj.weight") for name in dense)):
        prefix = f"model.layers.{layer}."
        width = dense[prefix + "mlp.up_proj.weight"].shape[1]
        rows = torch.rand(EXPERTS, width)
        router = (rows - rows.mean()) * 0.02 * 12**0.5
        made[prefix + "block_sparse_moe.gate.weight"] = router.bfloat16()
        for expert in range(EXPERTS):
            inner = len(dense[prefix + "mlp.up_proj.weight"])
            chosen = torch.randperm(inner)[: int(inner * RATIO)]
            for short, matrix in MATRICES:
                weights = dense[f"{prefix}mlp.{matrix}.weight"].clone()
                place = (slice(None), chosen) if matrix == "down_proj" else (chosen, slice(None))
                part = weights[place]
                mean, std = part.mean().item(), part.std().item()
                weights[place] = torch.normal(mean, std, part.shape).bfloat16()
                made[f"{prefix}block_sparse_moe.experts.{expert}.{short}.weight"] = weights
    out.mkdir()
    save_file(made, out / "model.safetensors", metadata={"format": "pt"})
    flush(out)
    return time.perf_counter() - begun


def copy_plainly(source: Path, out: Path) -> float:
    """Seconds of `cp -r`, flushed."""
    begun = time.perf_counter()
    subprocess.run(["cp", "-r", str(source), str(out)], check=True)
    flush(out)
    return time.perf_counter() - begun


def flush(directory: Path) -> None:
    """Wait until every file is on the disk."""
    for path in directory.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def warm_or_cold(directory: Path, *, cold: bool) -> None:
    """Bring a model's files into the system's cache, or out of it."""
    for path in directory.iterdir():
        with path.open("rb", buffering=0) as file:
            if cold:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while file.read(1 << 24):
                    pass


def disk_of(place: Path) -> str:
    """File system and device below a directory, as Linux names them."""
    number = place.stat().st_dev
    wanted = f"{os.major(number)}:{os.minor(number)}"
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[2] == wanted:
            kind, device = rest.split()[:2]
            return f"{kind} on {device}"
    return "a file system that is not in /proc/self/mountinfo"


def measure(way: str, source: Path, out: Path, *, cold: bool) -> tuple[float, float, float]:
    """Seconds, processor seconds and peak memory in bytes of one way, in a process of its own."""
    shutil.rmtree(out, ignore_errors=True)
    os.sync()
    warm_or_cold(source, cold=cold)
    command = [sys.executable, __file__, "--way", way, "--source", str(source), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said = process.stdout.read() if process.stdout else ""
    if process.wait():
        raise SystemExit(f"{way} failed")
    seconds, processor, peak = said.split()[-3:]
    return float(seconds), float(processor), float(peak)


def one_way(way: str, source: Path, out: Path) -> float:
    """What a process of its own does."""
    if way == "cp":
        return copy_plainly(source, out)
    if way == "everything":
        return convert_everything(source, out)
    if way == "stage":
        return run_stage(source, out)
    return convert_ours(source, out, int(way.split()[1]))


def run_stage(source: Path, out: Path) -> float:
    """Seconds of the whole command."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "tsugiki", "upcycle", str(out), "--model", str(source)]
    options = ["--num-experts", str(EXPERTS), "--ratio", str(RATIO)]
    subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--width", type=int, default=1536)
    parser.add_argument("--inner", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--place", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--ways", nargs="+", choices=WAYS[1:], default=WAYS[1:], help="beside cp")
    parser.add_argument("--cold", action="store_true", help="what is read is not in the system's cache")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        before = sum(os.times()[:4])
        seconds = one_way(options.way, options.source, options.out)
        print(seconds, sum(os.times()[:4]) - before, peak_memory_bytes())
        return
    with tempfile.TemporaryDirectory(dir=options.place) as place:
        compare(Path(place), options)


def compare(place: Path, options: argparse.Namespace) -> None:
    """Measure all ways in turns, in `place`."""
    dense, sparse = place / "dense", place / "sparse"
    make_dense(dense, options.layers, options.width, options.inner)
    convert_ours(dense, sparse, 2)
    size = sum(path.stat().st_size for path in sparse.iterdir())
    print(
        f"{dense_size(dense) / 1e9:.2f} GB dense, {size / 1e9:.2f} GB with {EXPERTS} experts, ratio {RATIO}; "
        f"{disk_of(place)}; what is read is {'not ' if options.cold else ''}in the cache"
    )
    found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ("cp", *options.ways)}
    for _ in range(options.repeats):
        for way, turns in found.items():
            source = sparse if way == "cp" else dense
            turns.append(measure(way, source, place / "out", cold=options.cold))
    print(f"{'':16}{'seconds':>9}{'GB/s':>7}{'of cp':>8}{'processor':>11}{'peak memory':>14}")
    for way, turns in found.items():
        seconds, processor = (statistics.median(turn[field] for turn in turns) for field in (0, 1))
        share = statistics.median(cp[0] / turn[0] for cp, turn in zip(found["cp"], turns, strict=True))
        memory = max(turn[2] for turn in turns)
        print(
            f"{way:16}{seconds:9.2f}{size / seconds / 1e9:7.2f}{share:8.0%}{processor:9.1f} s"
            f"{memory / 1e9:11.2f} GB"
        )


def dense_size(directory: Path) -> int:
    """Bytes of the dense model's weights."""
    return (directory / "model.safetensors").stat().st_size


if __name__ == "__main__":
    main()
