"""What planning assumes of devices: peak speed, memory, and the share of the peak that training reaches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tsugiki.planner.devices import ACCELERATORS, GIB

__all__ = ["DEFAULT_ACCELERATOR", "DEVICES", "GIB", "Device"]


@dataclass(frozen=True)
class Device:
    """One device.

    bfloat16_flops, float32_flops: peak floating-point operations a second, dense.
    utilisation: the share of the peak that training at a sensible layout reaches (MFU).
    memory_bytes: None where the machine that plans is meant (its own memory is looked at by the workflow).
    float8: it multiplies float8 numbers.
    """

    bfloat16_flops: float
    float32_flops: float
    utilisation: float
    memory_bytes: float | None
    float8: bool = False


def _trained_on(name: str) -> Device:
    """What the planner knows of an accelerator; float32 on tensor cores is TF32, at half the peak."""
    one = ACCELERATORS[name]
    float8 = one.reached_float8_flops is not None
    return Device(one.peak_flops, one.peak_flops / 2, 0.4, one.memory_bytes, float8=float8)


DEVICES: Mapping[str, Device] = {
    # One core with AMX multiplies float32 matrices at 0.14-0.17 TFLOP/s. A training step of llama-mini
    # (2.8 M parameters, sequence 256) reached 0.098 and, in bfloat16, 0.106 TFLOP/s of CPU time: its matrices
    # are too small for the 1.1-1.27 TFLOP/s that bfloat16 has here, so that is set from what was reached.
    "cpu": Device(bfloat16_flops=0.165e12, float32_flops=0.15e12, utilisation=0.65, memory_bytes=None),
    # Utilisation: Swallow reached 43, 46 and 51 % with 7B, 13B and 70B on A100-40GB (134, 143 and 158
    # TFLOP/s of 312).
    "a100-40gb": _trained_on("a100-40gb"),
    "a100-80gb": _trained_on("a100-80gb"),
    "h100-80gb": _trained_on("h100-80gb"),
    "h200-141gb": _trained_on("h200-141gb"),
}

DEFAULT_ACCELERATOR = "h100-80gb"
