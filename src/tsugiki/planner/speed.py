"""Seconds of one optimizer step, from what devices and links can do; no constant is fitted by default.

Ring costs: an all-gather or a reduce-scatter of V bytes over n processes takes (n - 1)/n V/B, an all-reduce
twice that, with B the bandwidth of one direction. A group that reaches beyond its node shares the network of
all its processes there. Processes lie in Megatron's order: tensor innermost, then context, data, pipeline.

Symbols: b micro-batch, s sequence, t tensor, c context, p pipeline, m micro-batches, V chunks, D = d c.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tsugiki.planner.activations import element_bytes
from tsugiki.planner.devices import Accelerator
from tsugiki.planner.kernels import Kernels
from tsugiki.planner.layout import Layout, Workload
from tsugiki.planner.parameters import StageParameters, stage_parameters


@dataclass(frozen=True)
class Tuning:
    """What is reached of a device's figures. `calibrate.py` fits the first five to a user's runs.

    products: of `reached_flops`, by the matrices of training; the best shape of a benchmark is not theirs.
    With 0.7 the predictions for Swallow's 7B, 13B and 70B (arXiv 2404.17790: 134, 143 and 158 TFLOP/s of
    A100-40GB at TP2 PP2, TP2 PP4 and TP8 PP8) are 1.22, 1.11 and 0.92 of what was measured; it sets the level
    of all predictions, and hardly their order. memory: of the memory
    bandwidth, by element-wise kernels. links, network: of the bandwidth, by collectives (0.65 and 0.9:
    Calculon's NVLink and InfiniBand, calculon/llm). ring_bytes: of memory traffic for each element of the
    queries in each further step of ring attention: forward, partial outputs are read, scaled and added (8);
    backward, halves of q, out and its gradient are copied (3), flash attention makes its float32 gradient of
    q anew (14) and dq is added up (4). link_latency, network_latency: seconds of one message, and
    busy_links, busy_network: the share of overlapped communication that slows computation (Calculon).
    """

    products: float = 0.7
    memory: float = 0.9
    links: float = 0.65
    network: float = 0.9
    ring_bytes: float = 28.0
    link_latency: float = 1e-5
    network_latency: float = 2e-5
    busy_links: float = 0.15
    busy_network: float = 0.02


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step of the slowest process, by what they go to.

    products, attention, elementwise, gradients (adding up weight gradients), head: computation of all
    micro-batches. tensor, context, expert, pipeline, weights (gathering them: FSDP): communication that
    computation waits for. bubble: the pipeline fills and empties. data: gradients and weights exchanged once
    a step, as far as nothing hides it. optimizer: its pass over the states.
    """

    products: float
    attention: float
    elementwise: float
    gradients: float
    head: float
    tensor: float
    context: float
    expert: float
    pipeline: float
    weights: float
    bubble: float
    data: float
    optimizer: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return sum(vars(self).values())


SIZES = ((1e9, 0.6), (16e9, 0.9), (128e9, 0.95))
"""Operations of one matrix product, and the share of the reachable speed that it gets (Calculon's H100)."""


def size_share(operations: float) -> float:
    """The share of the reachable speed that a matrix product of so many operations gets; log-linear."""
    (low, share), *others = SIZES
    for high, next_share in others:
        if operations <= high:
            position = math.log(max(operations, low) / low) / math.log(high / low)
            return share + (next_share - share) * position
        low, share = high, next_share
    return share


@dataclass(frozen=True)
class Bench:
    """A workload in a layout on a device: everything that the costs below look at."""

    workload: Workload
    layout: Layout
    kernels: Kernels
    device: Accelerator
    tuning: Tuning

    @property
    def tokens(self) -> float:
        """Tokens of a micro-batch on one process, before tensor parallelism: b s / c."""
        return self.layout.tokens(self.workload)

    def within(self, count: int, stride: int) -> bool:
        """Whether a group of `count` processes, `stride` apart, lies in one node."""
        return count * stride <= self.device.node

    def bandwidth(self, count: int, stride: int, *, ring: bool = True) -> float:
        """Bytes a second of one direction for each process of such a group.

        ring: a collective, which uses the network of all its processes on a node; else from one to the next.
        """
        links = self.device.link_bandwidth * self.tuning.links
        if self.within(count, stride):
            return links
        together = max(1, self.device.node // stride) if ring else 1
        return min(links, self.device.network_bandwidth * self.tuning.network * together)

    def latency(self, count: int, stride: int) -> float:
        """Seconds of a message in such a group."""
        within = self.within(count, stride)
        return self.tuning.link_latency if within else self.tuning.network_latency

    def busy(self, count: int, stride: int) -> float:
        """The share of hidden communication that still slows computation."""
        return self.tuning.busy_links if self.within(count, stride) else self.tuning.busy_network

    def product_seconds(self, rows: float, inner: float, columns: float) -> float:
        """A matrix product in the workload's precision, or reading and writing it, whichever takes longer."""
        precision, device = self.workload.precision, self.device
        reached = device.reached_flops
        if precision == "float8":
            reached = device.reached_float8_flops or reached
        if precision == "float32":
            reached /= 2  # TF32 tensor cores have half the speed of bfloat16
        operations = 2.0 * rows * inner * columns
        moved = element_bytes(self.workload) * (rows * inner + inner * columns + rows * columns)
        computed = operations / (reached * self.tuning.products * size_share(operations))
        return max(computed, self.memory_seconds(moved))

    def memory_seconds(self, moved: float) -> float:
        """Moving so many bytes to or from the device's memory."""
        return moved / (self.device.memory_bandwidth * self.tuning.memory)


def step_time(
    workload: Workload,
    layout: Layout,
    kernels: Kernels,
    device: Accelerator,
    tuning: Tuning | None = None,
) -> StepTime:
    """Seconds of one optimizer step. The layout has to be legal (`layout_problems`)."""
    bench = Bench(workload, layout, kernels, device, tuning or Tuning())
    count = layout.micro_batches(workload)
    layers = workload.model.layers / layout.pipeline
    sparse = workload.sparse_before[-1] / workload.model.layers
    busiest = stage_parameters(workload, layout, layout.pipeline - 1)
    passes = 4 if layout.recompute == "full" else 3
    attention = _attention(bench)
    one = {
        "products": layers * _products(bench, sparse) * passes,
        "attention": layers * attention * (passes + 0.5),
        "elementwise": layers * _elementwise(bench, sparse) * (passes if layout.recompute == "none" else 4),
        "gradients": bench.memory_seconds(2 * _gradient_bytes(bench) * (busiest.matrices + busiest.root)),
        "head": _head(bench),
        "tensor": layers * _tensor(bench, sparse),
        "context": layers * _context(bench, attention),
        "expert": layers * sparse * _expert(bench),
        "pipeline": _pipeline(bench),
    }
    computing = one["products"] + one["attention"] + one["elementwise"]
    one["weights"] = _gathering(bench, busiest, computing)
    slowest = sum(one.values())
    mean = slowest - one["head"] * (1 - 1 / layout.pipeline)
    return StepTime(
        **{name: count * seconds for name, seconds in one.items()},
        bubble=(layout.pipeline - 1) * mean / layout.chunks,
        data=_exchange(bench, busiest, slowest),
        optimizer=bench.memory_seconds(28.0 * _shard(bench, busiest)),
    )


def _products(bench: Bench, sparse: float) -> float:
    """The forward matrix products of one layer, in seconds; `sparse`: share of the layers with experts."""
    model, layout, tokens = bench.workload.model, bench.layout, bench.tokens
    width, queries = model.hidden_size, model.heads * model.head_dim
    joint = queries + 2 * model.kv_heads * model.head_dim
    tensor = layout.tensor
    found = bench.product_seconds(tokens, width, joint / tensor)
    found += bench.product_seconds(tokens, queries / tensor, width)
    if sparse < 1:
        inner = model.intermediate_size / tensor
        dense = bench.product_seconds(tokens, width, 2 * inner)
        found += (1 - sparse) * (dense + bench.product_seconds(tokens, inner, width))
    if model.moe is not None:
        cut, local = layout.experts_tensor, model.moe.experts / layout.expert
        inner = model.moe.intermediate_size / cut
        rows = tokens / tensor * model.moe.experts_per_token * cut * bench.kernels.routing_imbalance
        up = bench.product_seconds(rows / local, width, 2 * inner)
        down = bench.product_seconds(rows / local, inner, width)
        found += sparse * (local * (up + down) + bench.product_seconds(tokens / tensor, width, local))
        shared = model.moe.shared_size / tensor
        if shared:
            found += sparse * bench.product_seconds(tokens, width, 2 * shared)
            found += sparse * bench.product_seconds(tokens, shared, width)
    return found


def _attention(bench: Bench) -> float:
    """The forward core of attention of one layer: 4 a H operations for each pair of a token and a key.

    A causal token has s / 2 keys on average; a window of W < s leaves W - W² / 2s. Backward is 2.5 times as
    much: flash attention computes the scores again.
    """
    workload, model = bench.workload, bench.workload.model
    length = workload.sequence_length
    windows = [min(model.window(layer) or length, length) for layer in range(model.layers)]
    keys = sum(window - window**2 / (2 * length) for window in windows) / model.layers
    operations = 4.0 * model.heads * model.head_dim * keys * bench.tokens / bench.layout.tensor
    return operations / (bench.device.peak_flops * bench.device.attention_share)


def _elementwise(bench: Bench, sparse: float) -> float:
    """Norms, residual sums, rotary embedding and SwiGLU of one layer, forward; reads and writes of memory.

    In elements of a token: norms 4h, sums 6h, rotation 2 (a + k) H, SwiGLU 3f; of experts also the copies of
    tokens that go and come, 4 q h; of a shared expert its gate's product and the sum, 5 h.
    """
    model = bench.workload.model
    width = (1 - sparse) * model.intermediate_size
    moved = 0.0
    if model.moe is not None:
        width += sparse * model.moe.experts_per_token * model.moe.intermediate_size
        width += sparse * model.moe.shared_size
        moved = sparse * 4 * model.moe.experts_per_token * model.hidden_size
        moved += sparse * 5 * bool(model.moe.shared_size) * model.hidden_size
    moved += 10 * model.hidden_size + 2 * (model.heads + model.kv_heads) * model.head_dim + 3 * width
    return bench.memory_seconds(moved * element_bytes(bench.workload) * bench.tokens / bench.layout.tensor)


def _gradient_bytes(bench: Bench) -> float:
    return 4.0 if bench.kernels.master_weights else float(bench.workload.gradient_bytes)


def _head(bench: Bench) -> float:
    """Output head and cross entropy of a micro-batch: three products, and 16 bytes moved for each logit."""
    model, tensor = bench.workload.model, bench.layout.tensor
    columns = model.vocabulary_size / tensor
    products = 3 * bench.product_seconds(bench.tokens, model.hidden_size, columns)
    return products + bench.memory_seconds(16.0 * bench.tokens * columns)


def _tensor(bench: Bench, sparse: float) -> float:
    """Tensor and sequence parallelism of one layer: all-gathers and reduce-scatters of 2 (s/c) b h bytes.

    Two of each forward and four of them backward are waited for; the backward pass gathers the inputs of two
    products again and scatters their gradients while others are computed (Megatron). Full recomputation
    repeats the forward ones. Experts that are cut exchange q copies of their tokens. A shared expert's tokens
    are gathered and scattered as a dense feed-forward's.
    """
    layout, model = bench.layout, bench.workload.model
    count, size = layout.tensor, element_bytes(bench.workload)
    found = 0.0
    if count > 1:
        volume = bench.tokens * model.hidden_size * size
        once = (count - 1) / count * volume / bench.bandwidth(count, 1) + bench.latency(count, 1)
        waited = 6 + 4 * (layout.recompute == "full")
        without = sparse if model.moe is None or not model.moe.shared_size else 0.0
        found = once * (waited + 4 * bench.busy(count, 1)) * (1 - without / 2)
    cut = layout.experts_tensor
    if model.moe is not None and cut > 1:
        volume = bench.tokens / count * model.moe.experts_per_token * cut * model.hidden_size * size
        once = (cut - 1) / cut * volume / bench.bandwidth(cut, 1) + bench.latency(cut, 1)
        found += sparse * 4 * once
    return found


def _context(bench: Bench, attention: float) -> float:
    """Ring attention of one layer: c - 1 further steps, whose keys and values come while others are computed.

    A chunk of keys and values is 4 (s/c) b k H / t bytes; backward their gradients travel too, twice as much.
    """
    layout, model = bench.layout, bench.workload.model
    count, stride = layout.context, layout.tensor
    if count == 1:
        return 0.0
    keys = max(1.0, model.kv_heads / layout.tensor) * model.head_dim
    chunk = 2 * element_bytes(bench.workload) * bench.tokens * keys
    sent = 3 * (count - 1) * chunk / bench.bandwidth(count, stride, ring=False)
    hidden = 3.5 * attention * (count - 1) / count
    waited = max(0.0, sent - hidden) + bench.busy(count, stride) * min(sent, hidden)
    queries = model.heads * model.head_dim * bench.tokens / layout.tensor
    steps = (count - 1) * bench.memory_seconds(bench.tuning.ring_bytes * queries)
    return waited + steps + 3 * (count - 1) * bench.latency(count, stride)


def _expert(bench: Bench) -> float:
    """Dispatch and return of tokens in a sparse layer, there and back: 4 all-to-alls of q s b h / (c t).

    The half that crosses the border of a node goes at the network's speed, all of it where none is within.
    """
    layout, model = bench.layout, bench.workload.model
    count, stride = layout.expert, layout.experts_tensor
    if count == 1 or model.moe is None:
        return 0.0
    volume = bench.tokens / layout.tensor * model.moe.experts_per_token * model.hidden_size
    volume *= element_bytes(bench.workload) * bench.kernels.routing_imbalance
    inside = min(count, max(1, bench.device.node // stride))
    links = bench.device.link_bandwidth * bench.tuning.links
    network = bench.device.network_bandwidth * bench.tuning.network
    once = volume * ((inside - 1) / count / links + (count - inside) / count / network)
    return 4 * (once + bench.latency(count, stride))


def _pipeline(bench: Bench) -> float:
    """Streams that a stage passes on for each micro-batch: one forward, one backward, V times as often."""
    layout = bench.layout
    count, stride = layout.pipeline, layout.world // layout.pipeline
    if count == 1:
        return 0.0
    size = element_bytes(bench.workload) * bench.workload.model.hidden_size / layout.tensor
    once = bench.tokens * size / bench.bandwidth(count, stride, ring=False) + bench.latency(count, stride)
    return 2 * layout.chunks * once


def _shard(bench: Bench, parameters: StageParameters) -> float:
    """Parameters of one process's share of the optimizer."""
    if bench.layout.sharding == "none":
        return parameters.total
    layout = bench.layout
    return parameters.dense / layout.sharing + parameters.experts / layout.experts_sharing


def _gathering(bench: Bench, parameters: StageParameters, computing: float) -> float:
    """FSDP: weights gathered forward and backward of every micro-batch, while other layers are computed.

    Gradients are shared out after each micro-batch too, unless they add up whole (`Kernels.whole_gradients`;
    then, and for the last micro-batch, `_exchange` counts them).
    """
    layout = bench.layout
    count = layout.sharing
    if layout.sharding != "weights" or count == 1 or layout.pipeline > 1:
        return 0.0
    size = element_bytes(bench.workload)
    volume = size * (parameters.dense - parameters.root) * (count - 1) / count
    shared = layout.experts_sharing
    volume += size * parameters.experts * (shared - 1) / shared
    scattered = 0.0 if bench.kernels.whole_gradients else 4.0 / size
    taken = (2 + scattered) * volume / bench.bandwidth(count, layout.tensor)
    return max(0.0, taken - computing) + bench.busy(count, layout.tensor) * min(taken, computing)


def _exchange(bench: Bench, parameters: StageParameters, micro_batch: float) -> float:
    """Gradients and weights once a step, over D = d c processes.

    The last micro-batch's backward pass (two thirds of it) hides gradients, the first forward pass the
    weights; without sharding gradients are all-reduced and weights stay.
    """
    layout = bench.layout
    count, stride = layout.data * layout.context, layout.tensor
    if count == 1:
        return 0.0
    volume = parameters.dense * (count - 1) / count
    experts = max(1, count * layout.tensor // (layout.expert * layout.experts_tensor))
    volume += parameters.experts * (experts - 1) / experts
    bandwidth = bench.bandwidth(count, stride)
    gradients = _gradient_bytes(bench) * volume / bandwidth
    weights = element_bytes(bench.workload) * volume / bandwidth
    if layout.sharding == "none":
        gradients, weights = 2 * gradients, 0.0
    if layout.sharding == "weights" and layout.pipeline == 1:
        weights = 0.0
    exposed = max(0.0, gradients - micro_batch * 2 / 3) + max(0.0, weights - micro_batch / 3)
    return exposed + bench.busy(count, stride) * (gradients + weights - exposed)


def model_flops(workload: Workload, *, legacy: bool = False) -> float:
    """Operations of one step that the model needs, recomputation left out.

    By default causal attention is counted as it is (`DecoderConfig.training_flops_per_token`); legacy: in
    full, as Megatron-LM did and most papers report: 12 a H s more per token and layer, half of which is real.
    """
    each = workload.model.training_flops_per_token(workload.sequence_length, full_attention=legacy)
    return each * workload.step_tokens


def parts(time: StepTime) -> Iterator[tuple[str, float]]:
    """Every part by name, in seconds."""
    yield from vars(time).items()
