"""A dense model's files to those of a mixture of experts, tensor by tensor.

Memory: a worker holds one dense matrix, and two experts': one is written while the next is made. Trunk
weights are copied from file to file. So the
size of the model does not matter, that of its largest matrix does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tsugiki.artifacts.files import read_json, write_json
from tsugiki.artifacts.identity import identity_of
from tsugiki.errors import InputError
from tsugiki.models.config import DecoderConfig
from tsugiki.models.directory import CONFIG_FILE, read_config, stored_tensors, write_tokenizer
from tsugiki.models.tokenizer import load_tokenizer
from tsugiki.models.weights import SHARD_BYTES, TensorEntry
from tsugiki.upcycling.config import Config
from tsugiki.upcycling.draws import chosen_neurons, generator_of, router_rows, seed_of
from tsugiki.upcycling.experts import (
    NEURON_DIMENSION,
    change_neurons,
    neuron_sums,
    routed_gain,
    scale_of,
    shared_matrix,
    slice_number,
    slice_of,
)
from tsugiki.upcycling.output import page_tensor
from tsugiki.upcycling.shapes import same_tensors, upcycled_shape
from tsugiki.upcycling.shards import Shards, read_fully
from tsugiki.upcycling.weights import Task, dense_name, is_matrix, plan_tasks

TORCH_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

Progress = Callable[[int, int], None]
Weights = Mapping[str, TensorEntry]


@dataclass(frozen=True)
class Conversion:
    """What is made from what. dense, shape: of the source and of the result. sources: weights by name."""

    config: Config
    dense: DecoderConfig
    shape: DecoderConfig
    sources: tuple[Weights, ...]


def convert(
    models: Sequence[Path],
    out: Path,
    config: Config,
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> Conversion:
    """Write the mixture that `config` asks for to `out`: config.json, weights, tokenizer.

    models: directories of the dense model, and of those that branch-train-mix adds. progress: is told the
    bytes written and all bytes. Called again after a kill, it goes on with the files that are not whole; the
    same arguments give the same bytes, whatever `config.workers` is.

    Raises InputError for a source that can't be upcycled, lacks tensors or has others, or would be
    overwritten; StorageError where the disk is full (what is finished is kept).
    """
    conversion = open_conversion(models, out, config)
    tasks = plan_tasks(conversion.shape, conversion.sources[0])
    parts = [part for task in tasks for part in task.parts]
    payload = {**config.identity_payload(), "model": "", "models": len(models)}
    with _one_torch_thread(), Shards(out, parts, shard_bytes, identity_of(payload)) as shards:
        report = _reporter(tasks, progress)
        if config.draws == "released":
            for task in _released(conversion, tasks, shards):
                report(task)
        else:
            _in_threads(conversion, tasks, shards, report)
        shards.finish()
    _write_beside(models[0], out, conversion)
    return conversion


def open_conversion(models: Sequence[Path], out: Path, config: Config) -> Conversion:
    """Check sources and settings, before anything is written; reads JSON and the weights' headers only."""
    for model in models:
        if out.resolve() == model.resolve():
            raise InputError(f"the result would overwrite its source {model}", hint="name another directory")
    shapes = [read_config(model) for model in models]
    dense = shapes[0]
    shape = upcycled_shape(dense, config)
    for model, other in zip(models[1:], shapes[1:], strict=True):
        if not same_tensors(dense, other):
            raise InputError(
                f"{model} has another shape or vocabulary than {models[0]}",
                hint="branch-train-mix averages the models' weights: train them all from the same one",
            )
    sources = tuple(stored_tensors(dense, model) for model in models)
    for model, source in zip(models[1:], sources[1:], strict=True):
        differing = sorted(name for name in source if source[name].dtype != sources[0][name].dtype)
        if differing:
            raise InputError(
                f"{differing[0]} is {source[differing[0]].dtype} in {model} and "
                f"{sources[0][differing[0]].dtype} in {models[0]}",
                hint="save all models in one precision",
            )
    return Conversion(config, dense, shape, sources)


def expert_matrices(conversion: Conversion, layer: int, matrix: str) -> Iterator[Tensor]:
    """One matrix of all experts of a layer, in order, in the stored type.

    A tensor is valid until the one after the next is asked for: there are two, in turns.

    The dense model's, with the neurons that `draws.chosen_neurons` names drawn anew (or with noise added),
    times `experts.scale_of`.
    """
    config, dimension = conversion.config, NEURON_DIMENSION[matrix]
    experts_each = config.num_experts // len(conversion.sources)
    scale = scale_of(matrix, routed_gain(config), config.scaling)
    for source in conversion.sources:
        dense = read_tensor(source[dense_name(layer, matrix)])
        width = dense.shape[dimension] // config.granularity
        shape = slice_of(dense, dimension, 0, config.granularity).shape
        turns = [page_tensor(shape, dense.dtype) for _ in range(2)]
        sums = [
            neuron_sums(slice_of(dense, dimension, part, config.granularity), dimension)
            for part in range(config.granularity if config.method == "drop" and config.ratio else 0)
        ]
        for expert in range(experts_each):  # of several models nothing is changed: the number is of no use
            number = slice_number(config, expert)
            out = turns[expert % 2].copy_(slice_of(dense, dimension, number, config.granularity))
            chosen = chosen_neurons(config, layer, expert, matrix, width)
            normal = sums[number].mean_and_std(chosen) if sums else (0.0, config.noise_std)
            seed = seed_of(config.seed, "layer", layer, "expert", expert, matrix)
            change_neurons(out, dimension, chosen, seed, normal, add=config.method == "noise")
            yield out if scale == 1 else out.mul_(scale)


def read_tensor(entry: TensorEntry) -> Tensor:
    """A stored tensor, in memory of its own (no mapping: what is held is what was asked for)."""
    tensor = torch.empty(entry.shape, dtype=TORCH_DTYPES[entry.dtype])
    with entry.file.open("rb", buffering=0) as file:
        file.seek(entry.begins)
        read_fully(file, content_of(tensor))
    return tensor


def content_of(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor, without a copy."""
    return memoryview(tensor.view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]


def _in_threads(
    conversion: Conversion, tasks: Sequence[Task], shards: Shards, report: Callable[[Task], None]
) -> None:
    workers = conversion.config.workers
    with (
        ThreadPoolExecutor(workers, thread_name_prefix="writing") as writers,
        ThreadPoolExecutor(workers, thread_name_prefix="upcycling") as pool,
    ):

        def carry_out(task: Task) -> None:
            if is_matrix(task):
                _make_experts(conversion, task, shards, writers)
            else:
                _carry_out(conversion, task, shards)

        waiting = {pool.submit(carry_out, task): task for task in tasks}
        try:
            for done in as_completed(waiting):
                done.result()
                report(waiting[done])
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _make_experts(conversion: Conversion, task: Task, shards: Shards, writers: Executor) -> None:
    """Make a matrix of all experts; one is written while the next is drawn."""
    lacking = {part.name for part in task.parts if not shards.has(part.name)}
    if not lacking:
        return
    writing: Future[None] | None = None
    made = expert_matrices(conversion, task.layer, task.matrix)
    for part, matrix in zip(task.parts, made, strict=True):
        if writing is not None:
            writing.result()
        if part.name in lacking:
            writing = writers.submit(shards.write, part.name, content_of(matrix))
    if writing is not None:
        writing.result()


def _carry_out(conversion: Conversion, task: Task, shards: Shards) -> None:
    """Write what is no matrix of experts: a router, a shared expert's, or what is taken over."""
    if all(shards.has(part.name) for part in task.parts):
        return
    if task.matrix == "router":
        config = conversion.config
        rows = router_rows(
            config.router,
            config.num_experts,
            conversion.shape.hidden_size,
            generator_of(config.seed, "layer", task.layer, "router"),
            alike=config.copy_experts,
        )
        _write_router(task, rows, shards)
    elif task.matrix == "zeros":
        (zeros,) = task.parts
        shards.write(zeros.name, content_of(torch.zeros(zeros.shape, dtype=TORCH_DTYPES[zeros.dtype])))
    elif task.matrix:
        dense = read_tensor(conversion.sources[0][task.source])
        shared = shared_matrix(dense, task.matrix.removeprefix("shared "), conversion.config)
        shards.write(task.parts[0].name, content_of(shared))
    elif len(conversion.sources) == 1:
        shards.copy(task.parts[0].name, conversion.sources[0][task.source])
    else:
        shards.write(task.parts[0].name, content_of(_mean(conversion.sources, task.source)))


def _write_router(task: Task, rows: Tensor, shards: Shards) -> None:
    (part,) = task.parts
    if not shards.has(part.name):
        shards.write(part.name, content_of(rows.to(TORCH_DTYPES[part.dtype])))


def _mean(sources: Sequence[Weights], name: str) -> Tensor:
    """The mean of a tensor over all models, summed up in float32 (float64 for float64)."""
    first = read_tensor(sources[0][name])
    total = first.to(torch.promote_types(first.dtype, torch.float32), copy=True)
    for source in sources[1:]:
        total += read_tensor(source[name])
    return (total / len(sources)).to(first.dtype)


def _released(conversion: Conversion, tasks: Sequence[Task], shards: Shards) -> Iterator[Task]:
    """Carry out all tasks with the draws of the released code: one stream, from the beginning every time."""
    from tsugiki.upcycling.released import ORDER, released_experts, released_routers

    config, shape, (source,) = conversion.config, conversion.shape, conversion.sources
    stream = torch.Generator().manual_seed(config.seed)
    routers = released_routers(config, shape, stream)
    by_place = {(task.layer, task.matrix): task for task in tasks if task.matrix}
    for task in tasks:
        if not task.matrix:
            _carry_out(conversion, task, shards)
            yield task
    for layer, rows in enumerate(routers):
        _write_router(by_place[layer, "router"], rows, shards)
        yield by_place[layer, "router"]
        dense = {matrix: read_tensor(source[dense_name(layer, matrix)]) for matrix in ORDER}
        for expert, matrix, weights in released_experts(config, dense, stream):
            part = by_place[layer, matrix].parts[expert]
            if not shards.has(part.name):
                shards.write(part.name, content_of(weights.contiguous()))
        yield from (by_place[layer, matrix] for matrix in ORDER)


def _reporter(tasks: Sequence[Task], progress: Progress | None) -> Callable[[Task], None]:
    total, done = sum(task.bytes for task in tasks), 0

    def report(task: Task) -> None:
        nonlocal done
        done += task.bytes
        if progress is not None:
            progress(done, total)

    return report


def _write_beside(model: Path, out: Path, conversion: Conversion) -> None:
    """Tokenizer, generation settings and config.json; the last says that the directory is a model."""
    write_tokenizer(load_tokenizer(model), out)
    generation = model / "generation_config.json"
    if generation.exists():
        write_json(out / generation.name, read_json(generation))
    dtypes = [entry.dtype for name, entry in conversion.sources[0].items() if ".mlp." in name]
    name = str(TORCH_DTYPES[dtypes[0]]).removeprefix("torch.")
    write_json(out / CONFIG_FILE, {**conversion.shape.to_hf(), "torch_dtype": name})


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Sums over a matrix depend on how many threads share them; here whole matrices are shared out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
