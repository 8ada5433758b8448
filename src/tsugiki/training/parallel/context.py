"""Context parallelism: each process holds a part of every sequence and gathers the keys and values of all.

Sequences are cut into 2c pieces, and process r takes pieces r and 2c - 1 - r: under a causal mask the early
pieces have few keys and the late ones many, so every process has the same work (the "zig-zag" order of ring
attention). Gathering keys and values, rather than sending them round a ring, is Llama 3's choice (arXiv
2407.21783, section 3.3.2): with grouped queries they are small, and any mask works.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from tsugiki.models.attention import DocumentLayout
from tsugiki.training.parallel.collectives import gather

_KEYS_TIME = 2  # of (B, K, T, H)


def places_of(rank: int, degree: int, length: int) -> Tensor:
    """Which of `length` positions process `rank` of `degree` holds, in order; int64 (length / degree)."""
    pieces = torch.arange(length).view(2 * degree, -1)
    return pieces[[rank, 2 * degree - 1 - rank]].flatten()


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

    @classmethod
    def of(
        cls, group: dist.ProcessGroup, length: int, document_ids_BT: Tensor | None, device: torch.device
    ) -> SequencePart:
        """The part of this process of rows of `length` tokens."""
        degree, rank = dist.get_world_size(group), dist.get_rank(group)
        gathered_T = torch.cat([places_of(other, degree, length) for other in range(degree)])
        order_T = torch.argsort(gathered_T).to(device)
        places_Q = places_of(rank, degree, length).to(device)
        if document_ids_BT is None:
            return cls(group, places_Q, order_T, places_Q[None], None)
        layout = DocumentLayout.from_ids(document_ids_BT)
        documents_BT = layout.starts_BT.cumsum(dim=1)
        return cls(group, places_Q, order_T, layout.positions_BT[:, places_Q], documents_BT)

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


def attend_across(
    q_BNQH: Tensor,
    k_BKQH: Tensor,
    v_BKQH: Tensor,
    part: SequencePart,
    window: int | None = None,
) -> Tensor:
    """Attention of this process's queries to whole rows, (B, N, Q, H); replaces `Attention.attend`."""
    k_BKTH, v_BKTH = (
        gather(x, _KEYS_TIME, part.group).index_select(_KEYS_TIME, part.order_T) for x in (k_BKQH, v_BKQH)
    )
    mask_BQT = part.mask_BQT if window is None else part.window_mask(window)
    groups = q_BNQH.shape[1] // k_BKTH.shape[1]
    return F.scaled_dot_product_attention(q_BNQH, k_BKTH, v_BKTH, attn_mask=mask_BQT, enable_gqa=groups > 1)
