"""What is random: which neurons are drawn anew, and the seeds of what replaces them.

Every draw has a seed of its own, made of the stage's seed and of what it is for. So neither the order in
which experts are made, nor the number of threads, nor what was done before a kill changes any of them.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

from tsugiki.upcycling.config import Config, RouterStart

_UNIFORM_STD = 12**-0.5
"""The standard deviation of a uniform number in [0, 1): 0.2886751."""


def seed_of(seed: int, *purpose: str | int) -> int:
    """A 64-bit seed for one purpose, such as ("layer", 3, "expert", 5, "up_proj")."""
    words = ":".join(str(word) for word in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "little")


def generator_of(seed: int, *purpose: str | int) -> torch.Generator:
    """A generator seeded by `seed_of` (its highest bit left out: torch's seeds are signed)."""
    return torch.Generator().manual_seed(seed_of(seed, *purpose) >> 1)


def chosen_count(width: int, ratio: float) -> int:
    """How many of `width` neurons are changed: floor(ratio · width), in float64 as the paper's code."""
    return int(width * ratio)


def chosen_neurons(config: Config, layer: int, expert: int, matrix: str, width: int) -> Tensor:
    """Which neurons of an expert's matrix are changed, rising (int64), drawn without replacement.

    The same for all three matrices of an expert, or, without `shared_indices`, a set for each.
    """
    if config.method not in {"drop", "noise"}:
        return torch.empty(0, dtype=torch.int64)
    purpose = ("layer", layer, "expert", expert, "neurons" if config.shared_indices else f"neurons {matrix}")
    count = chosen_count(width, config.ratio)
    return torch.randperm(width, generator=generator_of(config.seed, *purpose))[:count].sort().values


def router_rows(
    start: RouterStart, experts: int, width: int, generator: torch.Generator, *, alike: int = 1
) -> Tensor:
    """A router's weights, (experts, width) in float32.

    start: the five ways of Drop-Upcycling's code, under which torch_rand_002 is our rand-mean0-0.02. alike:
    so many rows in succession are the same; experts that are slices of one copy are then chosen together
    (the virtual groups of arXiv 2410.07524).
    """
    shape = (experts // alike, width)
    if start.startswith("normal"):
        std = 0.02 if start == "normal-0.02" else _UNIFORM_STD
        rows = torch.normal(0.0, std, shape, generator=generator)
    else:
        rows = torch.rand(shape, generator=generator)
        if start != "rand":
            rows = rows - rows.mean()
        if start == "rand-mean0-0.02":
            rows = rows * 0.02 * math.sqrt(12)
    return rows.repeat_interleave(alike, dim=0)
