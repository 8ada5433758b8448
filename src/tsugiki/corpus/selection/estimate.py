"""What a planned selection will take: asked of the server in a few small requests."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tsugiki.corpus.remote import join, size_of
from tsugiki.corpus.selection.ask import Ask
from tsugiki.corpus.selection.plan import Plan
from tsugiki.corpus.transfer import Transfer
from tsugiki.errors import InputError, StageError

_ASSUMED_BYTES_PER_SECOND = 20e6
_ENOUGH_BYTES = 8 << 20
"""Less than this read of the index says nothing of the line's speed."""


@dataclass(frozen=True)
class Estimate:
    """Seconds for fetching the records, and what they rest on."""

    seconds: float
    seconds_per_request: float
    """Measured on HEAD requests for some of the WARC files."""
    bytes_per_second: float
    measured: bool
    """Whether the speed was measured while the index was read; else it is assumed."""
    bytes_of_whole_warc_files: int | None
    scaled_records: int
    """Records of the whole index, where only some of its files were read."""


def estimate(plan: Plan, ask: Ask, transfer: Transfer) -> Estimate:
    """Time by the slower of two: requests one after another on each connection, or bytes over the line."""
    read = transfer.traffic.bytes
    measured = read >= _ENOUGH_BYTES and transfer.traffic.seconds > 0
    rate = read / transfer.traffic.seconds * ask.connections if measured else _ASSUMED_BYTES_PER_SECOND
    started = time.monotonic()
    whole = whole_bytes(plan, ask, transfer)
    latency = (time.monotonic() - started) / max(1, len(plan.files))
    seconds = max(plan.requests * latency / ask.connections, plan.bytes_fetched / rate)
    scaled = plan.records * plan.index_files_known // max(1, plan.index_files)
    return Estimate(seconds, latency, rate, measured, whole, scaled)


def whole_bytes(plan: Plan, ask: Ask, transfer: Transfer) -> int | None:
    """The size of all WARC files that are touched: from that of up to 32; None if it can't be told."""
    try:
        sizes = [size_of(join(ask.base, file), transfer) for file in plan.files]
    except (InputError, StageError):
        return None
    return sum(sizes) * plan.warc_files // len(sizes) if sizes else None
