"""The draws of Drop-Upcycling's released code, one stream for the whole model, in its order.

conversions/drop_upcycling.py and noise_upcycling.py at 481747d: the routers of all layers first; then for
each layer and expert a permutation of the neurons, and for gate, down and up in this order a set of neurons
and their new weights. Other than the paper, each matrix has a set of its own, and mean and deviation are
computed in the weights' own precision.

The released checkpoints came from a stream that had been used before: transformers 4.42.4 drew all weights of
a new Mixtral from it, which were overwritten afterwards. That is not repeated here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from tsugiki.models.config import DecoderConfig
from tsugiki.upcycling.config import Config
from tsugiki.upcycling.draws import chosen_count, router_rows
from tsugiki.upcycling.experts import NEURON_DIMENSION

ORDER = ("gate_proj", "down_proj", "up_proj")
"""The code calls them w1, w2 and w3."""


def released_routers(config: Config, shape: DecoderConfig, stream: torch.Generator) -> list[Tensor]:
    """The routers of all layers, (E, D) each in float32."""
    return [
        router_rows(config.router, config.num_experts, shape.hidden_size, stream) for _ in range(shape.layers)
    ]


def released_experts(
    config: Config, dense: Mapping[str, Tensor], stream: torch.Generator
) -> Iterator[tuple[int, str, Tensor]]:
    """Expert, matrix and its weights, for all experts of a layer. dense: the layer's three matrices."""
    width = dense["gate_proj"].shape[0]
    for expert in range(config.num_experts):
        order = torch.randperm(width, generator=stream)
        for matrix in ORDER:
            dimension = NEURON_DIMENSION[matrix]
            shuffled = dense[matrix].index_select(dimension, order)
            chosen = torch.randperm(width, generator=stream)[: chosen_count(width, config.ratio)]
            part = shuffled.index_select(dimension, chosen)
            if config.method == "noise":
                drawn = torch.normal(0.0, config.noise_std, part.shape, generator=stream).to(part.dtype)
                shuffled.index_copy_(dimension, chosen, part + drawn)
            elif len(chosen):
                mean, std = part.mean().item(), part.std().item()
                drawn = torch.normal(mean, std, part.shape, generator=stream)
                shuffled.index_copy_(dimension, chosen, drawn.to(part.dtype))
            yield expert, matrix, shuffled
