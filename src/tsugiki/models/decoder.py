"""Llama, Mistral, Qwen2, Qwen3 and the mixtures Mixtral, Qwen2-MoE and Qwen3-MoE in plain PyTorch.

Parameters have Hugging Face's names.

Shapes: B batch, T time, D model width, F feed-forward width, N query heads, K key-value heads, H head
dimension, V vocabulary. Computations follow transformers' modeling code, which the tests hold it against.

No module reads a global size where it could hold a part: heads come from the projections' outputs, experts
from their matrices, and a `Decoder` may hold some of the layers only.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tsugiki.errors import InputError
from tsugiki.models.attention import DocumentLayout, KeyValueCache, attend
from tsugiki.models.config import DecoderConfig
from tsugiki.models.layers import Embedding, FeedForward, Linear, RMSNorm
from tsugiki.models.moe import Routing, SparseFeedForward
from tsugiki.models.names import stored_pieces
from tsugiki.models.products import linear
from tsugiki.models.rotary import rotary, rotate
from tsugiki.models.sharding import copy_whole, named_parameters


class Attention(nn.Module):
    """Causal grouped-query attention with rotary positions; biases, norms and window are the family's."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        self.window = config.window(layer)
        queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
        biases = config.features.qkv_biases
        self.q_proj = Linear(config.hidden_size, queries, bias=biases)
        self.k_proj = Linear(config.hidden_size, keys, bias=biases)
        self.v_proj = Linear(config.hidden_size, keys, bias=biases)
        self.o_proj = Linear(queries, config.hidden_size)
        norms = config.features.qk_norms
        self.q_norm = RMSNorm(config.head_dim, config.norm_eps) if norms else None
        self.k_norm = RMSNorm(config.head_dim, config.norm_eps) if norms else None
        self.attend = attend  # replaced where the sequence lies on several devices

    def forward(
        self,
        x_BTD: Tensor,
        rotation: tuple[Tensor, Tensor],
        layout: DocumentLayout | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Attention's contribution to the residual stream, (B, T, D)."""
        q_BTNH, k_BTKH, v_BTKH = (
            heads_BTE.view(*heads_BTE.shape[:-1], -1, self.head_dim)
            for heads_BTE in (self.q_proj(x_BTD), self.k_proj(x_BTD), self.v_proj(x_BTD))
        )
        if self.q_norm is not None and self.k_norm is not None:
            q_BTNH, k_BTKH = self.q_norm(q_BTNH), self.k_norm(k_BTKH)
        q_BNTH = rotate(q_BTNH.transpose(1, 2), *rotation)
        k_BKTH = rotate(k_BTKH.transpose(1, 2), *rotation)
        v_BKTH = v_BTKH.transpose(1, 2)
        out_BNTH = (
            self.attend(q_BNTH, k_BKTH, v_BKTH, layout, self.window)
            if cache is None
            else cache.attention(self.layer, q_BNTH, k_BKTH, v_BKTH, self.window)
        )
        return self.o_proj(out_BNTH.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """One layer: attention and feed-forward, each behind its norm and added to the residual stream."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp: FeedForward | SparseFeedForward = (
            SparseFeedForward(config.hidden_size, config.moe)
            if config.moe is not None and config.is_sparse(layer)
            else FeedForward(config.hidden_size, config.intermediate_size)
        )

    def forward(
        self,
        x_BTD: Tensor,
        rotation: tuple[Tensor, Tensor],
        layout: DocumentLayout | None = None,
        cache: KeyValueCache | None = None,
    ) -> tuple[Tensor, Routing | None]:
        """The residual stream after this layer, (B, T, D), and how its tokens were routed, if they were."""
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), rotation, layout, cache)
        y = self.mlp(self.post_attention_layernorm(x_BTD))
        y_BTD, routing = (y, None) if isinstance(y, Tensor) else y
        return x_BTD + y_BTD, routing


class Backbone(nn.Module):
    """Everything below the output head; named `model` in the weights. Layers are keyed by their number."""

    def __init__(self, config: DecoderConfig, layers: Iterable[int], *, first: bool, last: bool) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocabulary_size, config.hidden_size) if first else None
        self.layers = nn.ModuleDict({str(layer): Block(config, layer) for layer in layers})
        self.norm = RMSNorm(config.hidden_size, config.norm_eps) if last else None


class Decoder(nn.Module):
    """A causal language model. New ones hold NaN: call `initialise`, or load weights (`load_decoder`).

    layers: the numbers of those that this decoder holds, all of them unless given. first, last: it holds
    the embedding, and the final norm and the head. A pipeline stage is a decoder with some layers; the last
    one of several has a head of its own where embeddings are tied, whose gradient has to be added to the
    embedding's.
    """

    def __init__(
        self,
        config: DecoderConfig,
        *,
        layers: Iterable[int] | None = None,
        first: bool = True,
        last: bool = True,
    ) -> None:
        super().__init__()
        self.config = config
        held = range(config.layers) if layers is None else layers
        self.model = Backbone(config, held, first=first, last=last)
        shared = config.tied_embeddings and first
        self.lm_head = Linear(config.hidden_size, config.vocabulary_size) if last and not shared else None

    @property
    def head_weight_VD(self) -> Tensor:  # noqa: N802
        """The matrix of the output head; the input embedding itself where the two are tied.

        Raises InputError in a part without the head.
        """
        holder = self.model.embed_tokens if self.lm_head is None else self.lm_head
        if holder is None or self.model.norm is None:
            raise InputError("this part of a decoder has no output head", hint="ask the part with last=True")
        return holder.weight

    def embed(self, ids_BT: Tensor) -> Tensor:
        """The residual stream below the first layer, (B, T, D), of token ids (int64 or int32).

        A part without an embedding takes that stream itself, and returns it as it is.
        """
        if self.model.embed_tokens is None:
            return ids_BT
        x_BTD = self.model.embed_tokens(ids_BT)
        return x_BTD if self.config.embedding_scale == 1 else x_BTD * self.config.embedding_scale

    def blocks(
        self,
        x_BTD: Tensor,
        positions_BT: Tensor,
        *,
        layout: DocumentLayout | None = None,
        cache: KeyValueCache | None = None,
        routings: list[Routing] | None = None,
    ) -> Tensor:
        """The residual stream after all layers that are here, (B, T, D).

        positions_BT: of the tokens whose keys and values are computed here, (B, T) or (1, T); `x_BTD` may
        hold a part of them only (sequence parallelism). routings: see `hidden`.
        """
        rotation = rotary(self.config, positions_BT, x_BTD.dtype)
        for block in self.model.layers.values():
            x_BTD, routing = block(x_BTD, rotation, layout, cache)
            if routings is not None and routing is not None:
                routings.append(routing)
        return x_BTD

    def hidden(
        self,
        ids_BT: Tensor,
        *,
        document_ids_BT: Tensor | None = None,
        cache: KeyValueCache | None = None,
        routings: list[Routing] | None = None,
    ) -> Tensor:
        """The residual stream after the final norm, (B, T, D): embed, blocks, norm, as far as they are here.

        ids_BT: token ids (int64 or int32), or what `embed` takes. document_ids_BT: a new document starts
        wherever the value differs from the one before it in its row; tokens never attend across documents,
        and positions restart at each; best in the host's memory (`DocumentLayout.from_ids`). cache: keys and
        values of the tokens before `ids_BT`; extended in place; not together with document ids. routings: a
        list that takes the routing of each sparse layer, in order.
        """
        layout = None
        if document_ids_BT is not None:
            layout = DocumentLayout.from_ids(document_ids_BT, ids_BT.device)
        if layout is not None:
            positions_BT = layout.positions_BT
        else:
            start = 0 if cache is None else cache.length
            positions_BT = torch.arange(start, start + ids_BT.shape[1], device=ids_BT.device)[None]
        x_BTD = self.blocks(self.embed(ids_BT), positions_BT, layout=layout, cache=cache, routings=routings)
        if cache is not None:
            cache.advance(ids_BT.shape[1])
        return x_BTD if self.model.norm is None else self.model.norm(x_BTD)

    def head(self, x_BTD: Tensor) -> Tensor:
        """Logits (..., V) of `hidden`'s output (..., D)."""
        return linear(x_BTD, self.head_weight_VD)

    def forward(
        self,
        ids_BT: Tensor,
        *,
        document_ids_BT: Tensor | None = None,
        routings: list[Routing] | None = None,
    ) -> Tensor:
        """Logits (B, T, V), or the residual stream of a part without a head; arguments as of `hidden`."""
        x_BTD = self.hidden(ids_BT, document_ids_BT=document_ids_BT, routings=routings)
        return x_BTD if self.model.norm is None else self.head(x_BTD)


@torch.no_grad()
def initialise(decoder: Decoder, seed: int) -> None:
    """Draw all weights, in place: the same seed gives the same bits, whatever else was drawn before.

    Matrices and embeddings are normal with std `config.initializer_std` (Llama's `initializer_range`); the
    matrices that write into the residual stream (o_proj, down_proj) are divided by sqrt(2 · layers), so that
    its variance does not grow with depth (GPT-2, Radford et al. 2019, section 2.3); norms are 1, biases 0.
    `config.spike_no_more` gives a shape with a smaller std and a scaled embedding.

    Every tensor of the model's files has a generator of its own, seeded by `seed` and its name, so a part of
    a model, or one whose parameters are DTensors, draws the same; each process draws whole tensors, and keeps
    its own shards.
    """
    config, parameters = decoder.config, named_parameters(decoder)
    residual = 1.0 / math.sqrt(2 * config.layers)
    for stored, (piece,) in stored_pieces(config, parameters).items():
        name, parameter = piece.name, parameters[piece.name]
        if name.endswith(("norm.weight", ".bias")):
            parameter.fill_(1.0 if name.endswith("norm.weight") else 0.0)
            continue
        digest = hashlib.sha256(f"{seed}:{stored}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        writes = name.endswith(("o_proj.weight", "down_proj.weight", "down_proj"))
        shape = parameter.shape if piece.expert is None else parameter.shape[1:]
        drawn = torch.randn(shape, generator=generator)
        copy_whole(parameter, drawn * (config.initializer_std * (residual if writes else 1.0)), piece.expert)
