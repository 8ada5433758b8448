"""Loading, initialising and exporting decoders whose parameters are spread over processes."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch._dynamo  # DTensor imports it: once here rather than in every process
import torch.distributed as dist
import torch.multiprocessing
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.testing._internal.distributed.fake_pg import FakeStore

from tsugiki.artifacts.files import write_json
from tsugiki.models.config import preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.directory import exported, load_weights
from tsugiki.models.layers import FeedForward
from tsugiki.models.moe import SparseFeedForward
from tsugiki.models.names import stored_shapes
from tsugiki.models.sharding import copy_whole
from tsugiki.models.weights import read_headers, read_tensors, weight_files, write_stream, write_weights

NAMES = ["qwen3-moe-nano", "mixtral-nano", "qwen2-moe-nano"]  # Qwen's have a dense layer too


def build(config, seed=0):
    decoder = Decoder(config)
    initialise(decoder, seed)
    return decoder


def spread(decoder, mesh):
    """Tensor parallelism of the dense matrices, experts over the same group, and FSDP over the other."""
    for block in decoder.model.layers.values():
        plan = {"self_attn.q_proj": ColwiseParallel(), "self_attn.o_proj": RowwiseParallel()}
        if isinstance(block.mlp, FeedForward):
            plan |= {"mlp.up_proj": ColwiseParallel(), "mlp.down_proj": RowwiseParallel()}
        parallelize_module(block, mesh["tensor"], plan)
        if isinstance(block.mlp, SparseFeedForward):
            for name, parameter in list(block.mlp.experts.named_parameters()):
                cut = distribute_tensor(parameter, mesh["tensor"], [Shard(0)])
                setattr(block.mlp.experts, name, torch.nn.Parameter(cut))
        fully_shard(block, mesh=mesh["data"])
    fully_shard(decoder, mesh=mesh["data"])


def expected_part(whole, parameter, mesh):
    """Cut by the tensor group first, then by FSDP along the rows."""
    tensor_rank, data_rank = mesh.get_local_rank("tensor"), mesh.get_local_rank("data")
    placements = dict(zip(parameter.device_mesh.mesh_dim_names, parameter.placements, strict=True))
    if "tensor" in placements and not isinstance(placements["tensor"], Replicate):
        whole = whole.chunk(2, dim=placements["tensor"].dim)[tensor_rank]
    rows = -(-whole.shape[0] // 2)
    return whole[data_rank * rows : (data_rank + 1) * rows]


def _check_parts(rank, directory):
    """One of four processes: two tensor-parallel ones in each of two that FSDP spreads over."""
    dist.init_process_group("fake", rank=rank, world_size=4, store=FakeStore())  # sends no messages
    torch.set_num_threads(1)
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    for name in NAMES:
        with torch.device("meta"):
            part = Decoder(shape(name))
        spread(part, mesh)
        part.to_empty(device="cpu")
        whole = build(shape(name))
        load_weights(part, directory / name)
        assert _cut_parameters(part, whole, mesh) >= 6
        with torch.no_grad():
            for parameter in part.parameters():
                parameter.to_local().fill_(torch.nan)
        initialise(part, 0)
        assert _cut_parameters(part, whole, mesh) >= 6
    dist.destroy_process_group()


def _cut_parameters(part, whole, mesh):
    """How many parameters the tensor group cuts, after checking each against the whole."""
    cut = 0
    for key, parameter in part.named_parameters():
        expected = expected_part(whole.get_parameter(key), parameter, mesh)
        assert torch.equal(parameter.to_local(), expected), key
        cut += "tensor" in parameter.device_mesh.mesh_dim_names
    return cut


def shape(name):
    return replace(preset(name), vocabulary_size=51)  # a number of rows that two do not divide


def test_weights_of_a_spread_decoder_are_the_parts_of_the_whole(tmp_path):
    for name in NAMES:
        write_weights(tmp_path / name, dict(exported(build(shape(name)))), shard_bytes=50_000)
        write_json(tmp_path / name / "config.json", shape(name).to_hf())
    torch.multiprocessing.start_processes(_check_parts, args=(tmp_path,), nprocs=4, start_method="fork")


def test_weights_of_stages_are_those_of_the_whole(tmp_path):
    config = replace(preset("qwen3-moe-nano"), layers=3, tied_embeddings=True)
    whole = build(config)
    write_weights(tmp_path, dict(exported(whole)))
    write_json(tmp_path / "config.json", config.to_hf())
    stages = [Decoder(config, layers=[0, 1], last=False), Decoder(config, layers=[2], first=False)]
    for stage in stages:
        load_weights(stage, tmp_path)
        for name, tensor in stage.state_dict().items():
            key = "model.embed_tokens.weight" if name == "lm_head.weight" else name
            assert torch.equal(tensor, whole.state_dict()[key])
    of_stages = {name: tensor for stage in stages for name, tensor in exported(stage)}
    assert of_stages.keys() == dict(exported(whole)).keys()
    assert sum(len(dict(exported(stage))) for stage in stages) == len(of_stages)  # nothing twice


def test_weights_of_a_decoder_with_wrapped_layers_are_those_of_the_plain_one(tmp_path):
    whole = build(preset("llama-nano"))
    write_weights(tmp_path, dict(exported(whole)))
    write_json(tmp_path / "config.json", whole.config.to_hf())
    for fill in (lambda decoder: load_weights(decoder, tmp_path), lambda decoder: initialise(decoder, 0)):
        wrapped = Decoder(whole.config)
        for number, block in wrapped.model.layers.items():
            wrapped.model.layers[number] = checkpoint_wrapper(block)
        fill(wrapped)
        assert "_checkpoint_wrapped_module" in next(iter(dict(wrapped.model.layers.named_parameters())))
        exports = dict(exported(wrapped))
        assert exports.keys() == dict(exported(whole)).keys()
        assert all(torch.equal(tensor, exports[name]) for name, tensor in exported(whole))


def test_copy_whole_of_an_expert_that_lies_elsewhere_changes_nothing():
    dist.init_process_group("fake", rank=1, world_size=2, store=FakeStore())
    try:
        mesh = init_device_mesh("cpu", (2,))
        parameter = distribute_tensor(torch.zeros(4, 3, 2), mesh, [Shard(0)], src_data_rank=None)
        copy_whole(parameter, torch.ones(3, 2), expert=1)
        assert not parameter.to_local().any()
        copy_whole(parameter, torch.ones(3, 2), expert=2)
        assert parameter.to_local().sum(dim=(1, 2)).tolist() == [6, 0]
    finally:
        dist.destroy_process_group()


def _export(rank, directory):
    dist.init_process_group("gloo", init_method=f"file://{directory}/store", rank=rank, world_size=2)
    torch.set_num_threads(1)
    config = preset("qwen3-moe-nano")
    mesh = init_device_mesh("cpu", (2,))
    decoder = build(config)
    for block in decoder.model.layers.values():
        fully_shard(block, mesh=mesh)
    fully_shard(decoder, mesh=mesh)
    sizes_bytes = {
        name: 4 * torch.Size(shape).numel() for name, shape in stored_shapes(decoder.config).items()
    }
    if rank == 0:
        write_stream(directory / "model", sizes_bytes, exported(decoder), shard_bytes=100_000)
    else:
        list(exported(decoder))
    dist.destroy_process_group()


def test_exported_by_two_processes_is_the_model_that_one_would_write(tmp_path):
    torch.multiprocessing.start_processes(_export, args=(tmp_path,), nprocs=2, start_method="fork")
    write_weights(tmp_path / "one", dict(exported(build(preset("qwen3-moe-nano")))), shard_bytes=100_000)
    files = weight_files(tmp_path / "one")
    assert len(files) > 1
    assert read_headers(tmp_path / "model").keys() == read_headers(tmp_path / "one").keys()
    for file in files:
        assert file.read_bytes() == (tmp_path / "model" / file.name).read_bytes()
        assert list(dict(read_tensors(file)))
