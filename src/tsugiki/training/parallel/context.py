"""Context parallelism: each process holds a part of every sequence and gathers the keys and values of all.

Sequences are cut into 2c pieces, and process r takes pieces r and 2c - 1 - r: under a causal mask the early
pieces have few keys and the late ones many, so every process has the same work (the "zig-zag" order of ring
attention). Gathering keys and values, rather than sending them round a ring, is Llama 3's choice (arXiv
2407.21783, section 3.3.2): with grouped queries they are small, and any mask works.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from tsugiki.models.attention import DocumentLayout
from tsugiki.models.varlen_attention import Kernel, Segments, attend_segments, in_one_row, is_for_kernel
from tsugiki.training.parallel.collectives import gather

_KEYS_TIME = 2  # of (B, K, T, H)


def places_of(rank: int, degree: int, length: int) -> Tensor:
    """Which of `length` positions process `rank` of `degree` holds, in order; int64 (length / degree)."""
    pieces = torch.arange(length).view(2 * degree, -1)
    return pieces[[rank, 2 * degree - 1 - rank]].flatten()


class Reach(NamedTuple):
    """The keys that the queries of some segments see, for a kernel.

    keys_E: which keys, segment after segment, of all rows' gathered keys in one row. A key is in two segments
    at most: of the early piece, and of the late one.
    """

    segments: Segments
    keys_E: Tensor


@dataclass(frozen=True)
class SequencePart:
    """This process's part of some rows, with what attention has to know of the whole rows.

    places_Q: the positions of the part's tokens in the rows. order_T: for each position, its place among
    the gathered keys. positions_BQ, document_BT: see `DocumentLayout`; document_BT numbers the documents of
    the whole rows.
    """

    group: dist.ProcessGroup
    places_Q: Tensor
    order_T: Tensor
    positions_BQ: Tensor
    document_BT: Tensor | None
    on_host: tuple[Tensor, Tensor, Tensor | None]
    """places_Q, order_T, and where documents start (B, T), in the host's memory."""
    _reaches: dict[tuple[int, int | None], Reach] = field(default_factory=dict)

    @classmethod
    def of(
        cls, group: dist.ProcessGroup, length: int, document_ids_BT: Tensor | None, device: torch.device
    ) -> SequencePart:
        """The part of this process of rows of `length` tokens."""
        degree, rank = dist.get_world_size(group), dist.get_rank(group)
        gathered_T = torch.cat([places_of(other, degree, length) for other in range(degree)])
        known = (places_of(rank, degree, length), torch.argsort(gathered_T))
        places_Q, order_T = (x.to(device, non_blocking=True) for x in known)
        if document_ids_BT is None:
            return cls(group, places_Q, order_T, places_Q[None], None, (*known, None))
        layout = DocumentLayout.from_ids(document_ids_BT, device)
        documents_BT = layout.starts_BT.cumsum(dim=1)
        positions_BQ = layout.positions_BT[:, places_Q]
        return cls(
            group, places_Q, order_T, positions_BQ, documents_BT, (*known, layout.known_starts_BT.cpu())
        )

    def reach(self, rows: int, window: int | None) -> Reach:
        """What the part's queries see of so many rows, made once for all layers."""
        if (rows, window) not in self._reaches:
            places_Q, order_T, starts_BT = self.on_host
            if starts_BT is None:
                starts_BT = torch.zeros(rows, len(order_T), dtype=torch.bool)
                starts_BT[:, 0] = True
            self._reaches[rows, window] = reach_of(
                places_Q, order_T, starts_BT, window=window, device=self.places_Q.device
            )
        return self._reaches[rows, window]

    @cached_property
    def mask_BQT(self) -> Tensor:  # noqa: N802
        """True where a token of the part may see a token of the row; (1 or B, 1, Q, T)."""
        keys_T = torch.arange(len(self.order_T), device=self.places_Q.device)
        seen_BQT = (keys_T <= self.places_Q[:, None])[None]
        if self.document_BT is not None:
            own_BQ = self.document_BT[:, self.places_Q]
            seen_BQT = seen_BQT & (own_BQ[:, :, None] == self.document_BT[:, None, :])
        return seen_BQT[:, None]

    def window_mask(self, window: int) -> Tensor:
        """`mask_BQT`, and no further back than `window` tokens, the token itself included."""
        keys_T = torch.arange(len(self.order_T), device=self.places_Q.device)
        return self.mask_BQT & (keys_T > self.places_Q[:, None] - window)


def reach_of(
    places_Q: Tensor, order_T: Tensor, starts_BT: Tensor, *, window: int | None, device: torch.device
) -> Reach:
    """Segments are the runs of neighbouring places within a document; all tensors given lie on the host."""
    length = starts_BT.shape[1]
    begins_BQ = starts_BT[:, places_Q]
    begins_BQ[:, 0] = True
    begins_BQ[:, 1:] |= places_Q.diff() != 1
    firsts = begins_BQ.flatten().nonzero()[:, 0]
    queries = torch.cat((firsts, torch.tensor([begins_BQ.numel()]))).diff()
    row, first = firsts // len(places_Q), places_Q[firsts % len(places_Q)]
    start_places_BT = torch.where(starts_BT, torch.arange(length), 0).cummax(dim=1).values
    lowest = start_places_BT[row, first]
    if window is not None:
        lowest = lowest.maximum(first - window + 1)
    keys = first + queries - lowest
    within_E = torch.arange(int(keys.sum())) - (keys.cumsum(0) - keys).repeat_interleave(keys)
    seen_E = order_T[lowest.repeat_interleave(keys) + within_E] + (row * length).repeat_interleave(keys)
    return Reach(Segments.of(queries.tolist(), keys.tolist(), device), seen_E.to(device, non_blocking=True))


def attend_across(
    q_BNQH: Tensor,
    k_BKQH: Tensor,
    v_BKQH: Tensor,
    part: SequencePart,
    window: int | None = None,
    *,
    kernel: Kernel | None = None,
) -> Tensor:
    """Attention of this process's queries to whole rows, (B, N, Q, H); replaces `Attention.attend`.

    kernel: see `models.varlen_attention`; without one, a mask of Q by T.
    """
    if kernel is not None and is_for_kernel(q_BNQH):
        reach = part.reach(len(q_BNQH), window)
        seen_EKH, values_EKH = (
            in_one_row(gather(x, _KEYS_TIME, part.group)).index_select(0, reach.keys_E)
            for x in (k_BKQH, v_BKQH)
        )
        return attend_segments(q_BNQH, seen_EKH, values_EKH, reach.segments, kernel=kernel, window=window)
    k_BKTH, v_BKTH = (
        gather(x, _KEYS_TIME, part.group).index_select(_KEYS_TIME, part.order_T) for x in (k_BKQH, v_BKQH)
    )
    mask_BQT = part.mask_BQT if window is None else part.window_mask(window)
    groups = q_BNQH.shape[1] // k_BKTH.shape[1]
    return F.scaled_dot_product_attention(q_BNQH, k_BKTH, v_BKTH, attn_mask=mask_BQT, enable_gqa=groups > 1)
