"""Rotary position embedding: pairs of a head's numbers are turned by angles that grow with the position.

Shapes as in `tsugiki.models.decoder`: B batch, T time, N heads, H head dimension.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tsugiki.models.config import DecoderConfig


def rotary_frequencies(config: DecoderConfig, device: torch.device) -> Tensor:
    """Radians per position of each rotated pair, (H/2), float32.

    theta^(-2i/H) (Su et al. 2021), stretched as Llama 3.1 does where `rope_scaling` is set (transformers'
    `_compute_llama3_parameters`). Computed anew for each forward pass rather than kept as a buffer, so
    casting a model to bfloat16 can't round them.
    """
    half_H = torch.arange(0, config.head_dim, 2, dtype=torch.int64, device=device).float()
    frequencies_H = 1.0 / (config.rope_theta ** (half_H / config.head_dim))
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies_H
    rotations_H = scaling.original_max_position_embeddings * frequencies_H / (2 * math.pi)
    span = scaling.high_freq_factor - scaling.low_freq_factor
    smooth_H = ((rotations_H - scaling.low_freq_factor) / span).clamp(0, 1)
    return (1 - smooth_H) * frequencies_H / scaling.factor + smooth_H * frequencies_H


def rotary(config: DecoderConfig, positions_BT: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position's angles, each (B, 1, T, H): computed in float32, cast to `dtype`."""
    frequencies_H = rotary_frequencies(config, positions_BT.device)
    angles_BTH = positions_BT[..., None].float() * frequencies_H
    angles_B1TH = torch.cat((angles_BTH, angles_BTH), dim=-1)[:, None]
    return angles_B1TH.cos().to(dtype), angles_B1TH.sin().to(dtype)


def rotate(x_BNTH: Tensor, cos_B1TH: Tensor, sin_B1TH: Tensor) -> Tensor:
    """Rotate the pairs (i, i + H/2) of each head: Hugging Face's layout of the rotary embedding."""
    first, second = x_BNTH.chunk(2, dim=-1)
    return x_BNTH * cos_B1TH + torch.cat((-second, first), dim=-1) * sin_B1TH
