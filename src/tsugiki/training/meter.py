"""How fast a run is, and how much of the devices it uses: what a person sees at every step."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tsugiki.artifacts.durations import about
from tsugiki.models.config import DecoderConfig
from tsugiki.training.compute import peak_memory_bytes
from tsugiki.training.devices import DEVICES, Device

_NAMES = {"A100-SXM4-40": "a100-40gb", "A100": "a100-80gb", "H100": "h100-80gb", "H200": "h200-141gb"}
"""What torch calls a GPU, or its beginning, and what it is called here; the first that fits counts."""


@dataclass(frozen=True)
class Meter:
    """Turns tokens a second into what they mean.

    flops, full_flops: of a token's forward and backward pass, causal and full attention counted. peak:
    floating-point operations a second of one device, None where it is not known.
    """

    processes: int
    flops: float
    full_flops: float
    peak: float | None
    device: torch.device

    def figures(self, tokens_per_second: float) -> dict[str, float]:
        """For a row of metrics.

        mfu: model FLOPs utilisation (PaLM, arXiv 2204.02311, appendix B) with a causal mask counted as the
        half that it needs; mfu_full_attention: as in that paper and in Megatron-LM.
        """
        each = tokens_per_second / self.processes
        found = {"tokens_per_second_per_device": each, "memory_bytes": float(peak_memory_bytes(self.device))}
        if self.peak is not None:
            found["mfu"] = each * self.flops / self.peak
            found["mfu_full_attention"] = each * self.full_flops / self.peak
        return found

    def note(self, loss: float, tokens_per_second: float, tokens_left: float) -> str:
        """The same for the progress line: `loss 2.313, 41,200 tokens/s, MFU 41 %, 3 h 5 min left`."""
        parts = [f"loss {loss:.3f}", f"{tokens_per_second:,.0f} tokens/s"]
        if self.peak is not None:
            parts.append(f"MFU {100 * tokens_per_second / self.processes * self.flops / self.peak:.0f} %")
        if tokens_left:
            parts.append(f"{about(tokens_left / tokens_per_second)} left")
        return ", ".join(parts)


def meter_of(
    shape: DecoderConfig,
    sequence_length: int,
    device: torch.device,
    *,
    processes: int,
    precision: str,
    hardware: str | None,
) -> Meter:
    """The meter of a run; the peak is that of `hardware`, else of the GPU that is here, else not known."""
    known = DEVICES.get(hardware or "") or _device_here(device)
    peak = None
    if known is not None and device.type == "cuda":
        peak = known.float32_flops if precision == "float32" else known.bfloat16_flops
    return Meter(
        processes,
        shape.training_flops_per_token(sequence_length),
        shape.training_flops_per_token(sequence_length, full_attention=True),
        peak,
        device,
    )


def _device_here(device: torch.device) -> Device | None:
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((DEVICES[ours] for theirs, ours in _NAMES.items() if theirs in name), None)
