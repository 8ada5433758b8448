"""What planning assumes of devices: peak speed, memory, and the share of the peak that training reaches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

GIB = 2**30


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


DEVICES: Mapping[str, Device] = {
    # One core with AMX multiplies float32 matrices at 0.14-0.17 TFLOP/s. A training step of llama-mini
    # (2.8 M parameters, sequence 256) reached 0.098 and, in bfloat16, 0.106 TFLOP/s of CPU time: its matrices
    # are too small for the 1.1-1.27 TFLOP/s that bfloat16 has here, so that is set from what was reached.
    "cpu": Device(bfloat16_flops=0.165e12, float32_flops=0.15e12, utilisation=0.65, memory_bytes=None),
    # Peaks: NVIDIA's data sheets, dense, no sparsity; float32 on tensor cores is TF32. Utilisation: Swallow
    # reached 43, 46 and 51 % with 7B, 13B and 70B on A100-40GB (134, 143 and 158 TFLOP/s of 312).
    "a100-40gb": Device(312e12, 156e12, 0.4, 40 * GIB),
    "a100-80gb": Device(312e12, 156e12, 0.4, 80 * GIB),
    "h100-80gb": Device(989e12, 494.5e12, 0.4, 80 * GIB, float8=True),
    "h200-141gb": Device(989e12, 494.5e12, 0.4, 141e9, float8=True),
}

DEFAULT_ACCELERATOR = "h100-80gb"
