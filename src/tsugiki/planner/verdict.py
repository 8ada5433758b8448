"""Three bands: safe, probe, refuse.

Measured meaning (arXiv 2411.06465): of 454 runs on A100 and H100, none whose counted tensors (states and
activations) were estimated at 80 % of the device's memory or less ran out of it; the rest of the memory goes
to temporary buffers, communicators and the allocator's fragmentation. Between 80 and 90 % some layouts run
and some don't: try one for a few steps. Of the measured runs that come with the package (`measured.py`) none
above 86 % ran.
"""

from __future__ import annotations

from typing import Literal

from tsugiki.planner.memory import StageMemory

Verdict = Literal["safe", "probe", "refuse"]

SAFE_SHARE = 0.8
PROBE_SHARE = 0.9


def verdict(stage: StageMemory, memory_bytes: float) -> Verdict:
    """Whether a stage will fit: by its counted tensors, and by all its parts, which have to fit."""
    share = stage.counted / memory_bytes
    if share > PROBE_SHARE or stage.total > memory_bytes:
        return "refuse"
    return "safe" if share <= SAFE_SHARE else "probe"
