"""Bytes that the planner can't know of: those of a process on a CPU, of chunks of logits, of checkpoints."""

from __future__ import annotations

from tsugiki.models.config import DecoderConfig

MIB = 2**20

PROCESS_BYTES = 700 * MIB
"""torch, pyarrow and tokenizers loaded, and what the tokeniser leaves behind, before any model (resident set
on a CPU: the demo's base model peaked at 931 MiB in all)."""

KEPT_MEMORY = 1.6
"""What a process on a CPU comes to hold of each byte in use (`artifacts.processes.memory_kept`). Measured
with a model of 6.8 M parameters, the process itself apart: 1.61 at 8 x 512 tokens, 1.62 at 8 x 2,048, 1.67 at
4 x 4,096."""

LOGIT_ELEMENTS = {"cpu": 2**21, "cuda": 2**26}
"""Logits held at once. On a CPU a chunk should stay near the caches (8 MiB of float32 was the fastest of
0.5 to 16 Mi numbers for V = 6144, 1.3 to 2 times torch's own way); a GPU wants matrices with many rows."""


def held_on_cpu(bytes_in_use: float) -> float:
    """What a process on a CPU holds at the most in use, `PROCESS_BYTES` included in both."""
    return PROCESS_BYTES + KEPT_MEMORY * (bytes_in_use - PROCESS_BYTES)


def checkpoint_bytes(shape: DecoderConfig) -> float:
    """One checkpoint: weights and two moments in float32."""
    return 12.0 * shape.parameters
