"""A Llama-family decoder in plain PyTorch, with Hugging Face's parameter names.

Shapes: B batch, T time, D model width, F feed-forward width, N query heads, K key-value heads, H head
dimension, V vocabulary. Computations follow transformers' LlamaForCausalLM, which the tests hold it against.
"""

from __future__ import annotations

import hashlib
import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tsugiki.models.attention import DocumentLayout, KeyValueCache, attend
from tsugiki.models.config import DecoderConfig


class Linear(nn.Linear):
    """A matrix without bias. It holds NaN until weights are loaded or `initialise` is called."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def reset_parameters(self) -> None:
        """Draw nothing: the global random state stays as it is, and forgotten weights show at once."""
        nn.init.constant_(self.weight, math.nan)


class Embedding(nn.Embedding):
    """A table of rows. It holds NaN until weights are loaded or `initialise` is called."""

    def reset_parameters(self) -> None:
        """As `Linear.reset_parameters`."""
        nn.init.constant_(self.weight, math.nan)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) · weight (Zhang and Sennrich 2019), the division in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Shape in = shape out."""
        if x_BTD.dtype == torch.float32:
            return F.rms_norm(x_BTD, self.weight.shape, self.weight, self.eps)
        normed_BTD = F.rms_norm(x_BTD.float(), self.weight.shape, None, self.eps)
        return self.weight * normed_BTD.to(x_BTD.dtype)


class Attention(nn.Module):
    """Causal grouped-query attention with rotary positions."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q_proj = Linear(config.hidden_size, queries)
        self.k_proj = Linear(config.hidden_size, keys)
        self.v_proj = Linear(config.hidden_size, keys)
        self.o_proj = Linear(queries, config.hidden_size)

    def forward(
        self,
        x_BTD: Tensor,
        rotation: tuple[Tensor, Tensor],
        layout: DocumentLayout | None,
        cache: KeyValueCache | None,
        layer: int,
    ) -> Tensor:
        """Attention's contribution to the residual stream, (B, T, D)."""
        shape = (*x_BTD.shape[:2], -1, self.head_dim)
        q_BNTH = rotate(self.q_proj(x_BTD).view(shape).transpose(1, 2), *rotation)
        k_BKTH = rotate(self.k_proj(x_BTD).view(shape).transpose(1, 2), *rotation)
        v_BKTH = self.v_proj(x_BTD).view(shape).transpose(1, 2)
        if cache is not None:
            k_BKTH, v_BKTH = cache.extend(layer, k_BKTH, v_BKTH)
        out_BNTH = attend(q_BNTH, k_BKTH, v_BKTH, layout)
        return self.o_proj(out_BNTH.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) · up(x)) (Shazeer 2020)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The feed-forward block's contribution to the residual stream, (B, T, D)."""
        return self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))


class Block(nn.Module):
    """One layer: attention and feed-forward, each behind its norm and added to the residual stream."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.input_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(
        self,
        x_BTD: Tensor,
        rotation: tuple[Tensor, Tensor],
        layout: DocumentLayout | None,
        cache: KeyValueCache | None,
    ) -> Tensor:
        """The residual stream after this layer, (B, T, D)."""
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), rotation, layout, cache, self.layer)
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))


class Backbone(nn.Module):
    """Everything below the output head; named `model` in the weights."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocabulary_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)


class Decoder(nn.Module):
    """A causal language model. New ones hold NaN: call `initialise`, or load weights (`load_decoder`)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Backbone(config)
        if not config.tied_embeddings:
            self.lm_head = Linear(config.hidden_size, config.vocabulary_size)

    @property
    def head_weight_VD(self) -> Tensor:  # noqa: N802
        """The matrix of the output head; the input embedding itself where the two are tied."""
        return self.model.embed_tokens.weight if self.config.tied_embeddings else self.lm_head.weight

    def hidden(
        self,
        ids_BT: Tensor,
        *,
        document_ids_BT: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """The residual stream after the final norm, (B, T, D).

        ids_BT: token ids (int64 or int32). document_ids_BT: a new document starts wherever the value differs
        from the one before it in its row; tokens never attend across documents, and positions restart at
        each. cache: keys and values of the tokens before `ids_BT`; extended in place; not together with
        document ids.
        """
        layout = None if document_ids_BT is None else DocumentLayout.from_ids(document_ids_BT)
        x_BTD = self.model.embed_tokens(ids_BT)
        if layout is not None:
            positions = layout.positions_BT
        else:
            start = 0 if cache is None else cache.length
            positions = torch.arange(start, start + ids_BT.shape[1], device=ids_BT.device)[None]
        rotation = rotary(self.config, positions, x_BTD.dtype)
        for block in self.model.layers:
            x_BTD = block(x_BTD, rotation, layout, cache)
        if cache is not None:
            cache.advance(ids_BT.shape[1])
        return self.model.norm(x_BTD)

    def head(self, x_BTD: Tensor) -> Tensor:
        """Logits (..., V) of `hidden`'s output (..., D)."""
        return F.linear(x_BTD, self.head_weight_VD)

    def forward(self, ids_BT: Tensor, *, document_ids_BT: Tensor | None = None) -> Tensor:
        """Logits (B, T, V); the arguments are those of `hidden`."""
        return self.head(self.hidden(ids_BT, document_ids_BT=document_ids_BT))


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


@torch.no_grad()
def initialise(decoder: Decoder, seed: int) -> None:
    """Draw all weights, in place: the same seed gives the same bits, whatever else was drawn before.

    Matrices and embeddings are normal with std `config.initializer_std` (Llama's `initializer_range`); the
    matrices that write into the residual stream (o_proj, down_proj) are divided by sqrt(2 · layers), so that
    its variance does not grow with depth (GPT-2, Radford et al. 2019, section 2.3); norms are 1. Every
    parameter has a generator of its own, seeded by `seed` and its name, so a sharded or reordered model
    draws the same.
    """
    residual = 1.0 / math.sqrt(2 * decoder.config.layers)
    for name, parameter in decoder.named_parameters():
        if name.endswith("norm.weight"):
            parameter.fill_(1.0)
            continue
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        scale = residual if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
        drawn = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(drawn * (decoder.config.initializer_std * scale))
