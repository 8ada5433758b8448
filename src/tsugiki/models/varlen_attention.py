"""Attention over packed documents and windows on a GPU, by torch's kernel for sequences of varying length.

The kernel (`torch.nn.attention.varlen.varlen_attn`, FlashAttention 2, Dao 2023, arXiv 2307.08691) takes all
tokens of a batch in one row, and where each document ends in it. It computes the scores within documents and
windows only, and keeps memory linear in the length, where a mask computes and holds all T² of them.

It is never trusted unseen: `fault_of` sends a small batch through it, forward and backward, and compares with
attention under a mask. What was found is for whoever trains to say.

Shapes as in `tsugiki.models.decoder`: B batch, T time, N query heads, K key-value heads, H head dimension;
S = B · T queries in one row, E keys in one row, D segments.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

if TYPE_CHECKING:
    from tsugiki.models.config import DecoderConfig
    from tsugiki.models.decoder import Attention, Decoder

LARGEST_HEAD, HEAD_MULTIPLE = 256, 8
"""Head dimensions that FlashAttention 2 has kernels for: multiples of 8 up to 256."""

DTYPES = (torch.bfloat16, torch.float16)
"""Numbers that it computes with."""

_SAMPLE = (1, 2, 3, 130, 64, 1, 55, 200, 4, 52)
"""Tokens of the check's documents: some shorter than a window, some longer than the kernel's tiles of 64 and
128 tokens, ends inside of tiles and at their borders."""

_SAMPLE_ENDS = (1, 1, 3, 100, 64, 1, 7, 129, 2, 1)
"""How many of them are queries, where a part of a sequence asks (context parallelism)."""

_SAMPLE_WINDOW = 5

_NAMES = ("outputs", "gradients of queries", "gradients of keys", "gradients of values")

_TOLERANCE, _FLOOR = 4.0, 2e-3
"""The kernel may be this many times as far from float32 as attention under a mask in the same precision is
(its own tests allow 2 to 3, of outputs and gradients), and this part of the largest number besides. A key too
many or too few in a document of up to five tokens is ten times that."""


@dataclass(frozen=True)
class Segments:
    """Runs of queries in a row, each with the run of keys that its last query sees to the end.

    A query sees the keys of its segment up to its own place, counted from the end of both: where there are
    more keys than queries, the first query sees those that are too many, too.

    query_ends, key_ends: (D + 1) int32 from 0, where each segment ends. longest_query, longest_key: tokens
    of the longest segment, as Python's numbers: nothing waits for the device.
    """

    query_ends: Tensor
    key_ends: Tensor
    longest_query: int
    longest_key: int

    @classmethod
    def of(cls, queries: Sequence[int], keys: Sequence[int], device: torch.device) -> Segments:
        """Of so many queries, and at least as many keys, each."""
        query_ends = _ends(queries, device)
        key_ends = query_ends if keys == queries else _ends(keys, device)
        return cls(query_ends, key_ends, max(queries), max(keys))


def _ends(lengths: Sequence[int], device: torch.device) -> Tensor:
    ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    return ends.to(device, non_blocking=True)


@lru_cache(maxsize=16)
def whole_rows(rows: int, length: int, device: torch.device) -> Segments:
    """Every row a segment."""
    with torch.inference_mode(mode=False):  # what is made there can't be kept for a backward pass
        return Segments.of([length] * rows, [length] * rows, device)


Kernel = Callable[[Tensor, Tensor, Tensor, Segments, int | None], Tensor]
"""From queries (S, N, H), keys and values (E, K, H), segments and window to (S, N, H)."""


def torchs_kernel() -> Kernel | None:
    """`varlen_attn` as torch 2.11 to 2.13 have it; None where torch has none with windows.

    2.11 takes fewer key-value heads than query heads without being told (`enable_gqa` came with 2.12, and
    only switches a check of theirs off).
    """
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    known = inspect.signature(varlen_attn).parameters
    if "window_size" not in known:
        return None
    grouped: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in known else {}

    def kernel(q_SNH: Tensor, k_EKH: Tensor, v_EKH: Tensor, segments: Segments, window: int | None) -> Tensor:
        back = -1 if window is None or window >= segments.longest_key else window - 1
        return varlen_attn(  # type: ignore[return-value]  # a pair only where more is asked for
            *(q_SNH, k_EKH, v_EKH, segments.query_ends, segments.key_ends),
            *(segments.longest_query, segments.longest_key),
            window_size=(back, 0),
            **grouped,
        )

    return kernel


def is_for_kernel(x: Tensor) -> bool:
    """Whether the kernel can take such queries: on a GPU, of 16 bits (or cast to them by autocast)."""
    return (
        x.device.type == "cuda"
        and _computed_dtype(x) in DTYPES
        and x.shape[-1] <= LARGEST_HEAD
        and x.shape[-1] % HEAD_MULTIPLE == 0
    )


def _computed_dtype(x: Tensor) -> torch.dtype:
    """The type that torch's own attention would compute in: autocast knows it, and not the kernel here."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def in_one_row(x_BNTH: Tensor) -> Tensor:
    """Rows one after the other, (B · T, N, H)."""
    return x_BNTH.transpose(1, 2).flatten(0, 1)


def attend_segments(
    q_BNTH: Tensor,
    k_EKH: Tensor,
    v_EKH: Tensor,
    segments: Segments,
    *,
    kernel: Kernel,
    window: int | None,
) -> Tensor:
    """Attention of rows, one after the other, to the keys of their segments, (B, N, T, H)."""
    batch, heads, _, width = q_BNTH.shape
    dtype = _computed_dtype(q_BNTH)
    q_SNH = in_one_row(q_BNTH)
    out_SNH = kernel(q_SNH.to(dtype), k_EKH.to(dtype), v_EKH.to(dtype), segments, window)
    return out_SNH.view(batch, -1, heads, width).transpose(1, 2)


def attend_by_kernel(decoders: Iterable[Decoder], kernel: Kernel) -> None:
    """Let all layers attend within documents and windows by a kernel that `fault_of` found none in."""
    for layer in _layers(decoders):
        layer.attend = partial(layer.attend, kernel=kernel)


def _layers(decoders: Iterable[Decoder]) -> Iterator[Attention]:
    from tsugiki.models.decoder import Attention

    for decoder in decoders:
        yield from (module for module in decoder.modules() if isinstance(module, Attention))


def fault_of(kernel: Kernel | None, config: DecoderConfig, device: torch.device, dtype: torch.dtype) -> str:
    """Why a kernel can't be used for a model on a device; empty where it can.

    dtype: of the products. The kernel has to agree with attention under a mask, outputs and gradients, on
    documents, on their last parts alone (with all keys), and on windows where the model has any.
    """
    if kernel is None:
        return f"torch {torch.__version__} has no such kernel"
    if dtype not in DTYPES:
        return f"it computes in bfloat16 and float16, not in {str(dtype).removeprefix('torch.')}"
    if config.head_dim > LARGEST_HEAD or config.head_dim % HEAD_MULTIPLE:
        return (
            f"it has heads of {HEAD_MULTIPLE}, {2 * HEAD_MULTIPLE} ... {LARGEST_HEAD}, not {config.head_dim}"
        )
    windows = (None,) if config.sliding_window is None else (None, _SAMPLE_WINDOW)
    heads = (2 * config.heads // config.kv_heads, 2, config.head_dim)
    for queries, keys in ((_SAMPLE, _SAMPLE), (_SAMPLE_ENDS, _SAMPLE)):
        for window in windows:
            try:
                sample = _Sample.draw(queries, keys, heads, window, device)
                fault = sample.fault(kernel, dtype)
            except Exception as error:  # noqa: BLE001 (whatever it is, there is another way)
                fault = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            if fault:
                return f"{fault} (documents{'' if window is None else f', window {window}'})"
    return ""


@dataclass(frozen=True)
class _Sample:
    """A small batch of segments, with the gradient of the output, in float32."""

    queries: Sequence[int]
    keys: Sequence[int]
    window: int | None
    q_SNH: Tensor
    k_EKH: Tensor
    v_EKH: Tensor
    grad_SNH: Tensor

    @classmethod
    def draw(
        cls,
        queries: Sequence[int],
        keys: Sequence[int],
        heads: tuple[int, int, int],
        window: int | None,
        device: torch.device,
    ) -> _Sample:
        """heads: of queries, of keys, and their dimension."""
        generator = torch.Generator().manual_seed(1)
        shapes = [(sum(queries), heads[0]), (sum(keys), heads[1]), (sum(keys), heads[1])]
        drawn = [
            torch.randn(*shape, heads[2], generator=generator).to(device) for shape in (*shapes, shapes[0])
        ]
        return cls(queries, keys, window, *drawn)

    def fault(self, kernel: Kernel, dtype: torch.dtype) -> str:
        """What the kernel gets wrong; empty where nothing."""
        segments = Segments.of(self.queries, self.keys, self.q_SNH.device)
        exact = self._passed(self._masked, torch.float32)
        masked = self._passed(self._masked, dtype)
        found = self._passed(lambda q, k, v: kernel(q, k, v, segments, self.window), dtype)
        for name, x, rounded, true in zip(_NAMES, found, masked, exact, strict=True):
            off, allowed = float((x - true).abs().max()), float((rounded - true).abs().max())
            allowed = _TOLERANCE * allowed + _FLOOR * float(true.abs().max())
            if not off <= allowed:  # NaN too
                return f"its {name} differ by {off:.2g}; {allowed:.2g} is allowed"
        return ""

    def _passed(self, way: Callable[[Tensor, Tensor, Tensor], Tensor], dtype: torch.dtype) -> list[Tensor]:
        """Output and gradients of queries, keys and values, in float32."""
        given = [x.to(dtype).requires_grad_() for x in (self.q_SNH, self.k_EKH, self.v_EKH)]
        device = self.q_SNH.device.type
        with torch.enable_grad(), torch.autocast(device, enabled=False):
            out = way(*given)
            gradients = torch.autograd.grad(out, given, self.grad_SNH.to(dtype))
        return [x.detach().float() for x in (out, *gradients)]

    def _masked(self, q_SNH: Tensor, k_EKH: Tensor, v_EKH: Tensor) -> Tensor:
        mask_SE = mask_of(self.queries, self.keys, self.window).to(q_SNH.device)
        q_1NSH, k_1KEH, v_1KEH = (x.transpose(0, 1)[None] for x in (q_SNH, k_EKH, v_EKH))
        out_1NSH = F.scaled_dot_product_attention(
            q_1NSH, k_1KEH, v_1KEH, attn_mask=mask_SE, enable_gqa=q_SNH.shape[1] > k_EKH.shape[1]
        )
        return out_1NSH[0].transpose(0, 1)


def mask_of(queries: Sequence[int], keys: Sequence[int], window: int | None) -> Tensor:
    """True where a query (S) may see a key (E), by the definition of `Segments`."""
    query_segment_S, query_place_S = _places(queries, keys)
    key_segment_E, key_place_E = _places(keys, keys)
    back_SE = query_place_S[:, None] - key_place_E
    seen_SE = (query_segment_S[:, None] == key_segment_E) & (back_SE >= 0)
    return seen_SE if window is None else seen_SE & (back_SE < window)


def _places(lengths: Sequence[int], whole: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Each token's segment, and its place there where it holds the last `lengths` of `whole` tokens."""
    segment = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    place = [torch.arange(all_ - own, all_) for own, all_ in zip(lengths, whole, strict=True)]
    return segment, torch.cat(place)
