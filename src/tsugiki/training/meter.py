"""How fast a run is, and how much of the devices it uses: what a person sees at every step."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import torch

from tsugiki.artifacts.durations import about
from tsugiki.models.config import DecoderConfig
from tsugiki.training.compute import peak_memory_bytes
from tsugiki.training.devices import DEVICES, GIB, Device

_NAMES = {
    "A100-SXM4-40": "a100-40gb",
    "A100": "a100-80gb",
    "H100 PCIe": None,
    "H100 NVL": None,
    "H100": "h100-80gb",
    "H200 NVL": None,
    "H200": "h200-141gb",
}
"""What torch calls a GPU, or a part of it, and what it is called here; the first that fits counts. None: a
slower sibling whose peak is not in `DEVICES`."""

PACE_STEPS = 1000
"""Steps that the time left is reckoned from: enough for checkpoints and measurements to count as they come,
few enough to notice when a run becomes slower."""


@dataclass
class Pace:
    """Seconds by the wall that this process takes for a step, whatever they are spent on.

    Measurements, checkpoints and steps that are made again count too; its first step, which also sets things
    up, only while there is no other.
    """

    _marks: deque[float] = field(default_factory=lambda: deque(maxlen=PACE_STEPS + 1))
    _first: float = 0.0

    def tick(self, begun: float, ended: float) -> None:
        """A step is done; times in seconds of one clock."""
        if not self._marks:
            self._first = ended - begun
        self._marks.append(ended)

    @property
    def seconds_per_step(self) -> float:
        """0 before the first tick."""
        if len(self._marks) < 2:  # noqa: PLR2004 - one mark bounds no step
            return self._first
        return (self._marks[-1] - self._marks[0]) / (len(self._marks) - 1)


@dataclass(frozen=True)
class Meter:
    """Turns tokens a second into what they mean.

    flops, full_flops: of a token's forward and backward pass, causal and full attention counted; what is
    computed again to save memory is not counted. peak: floating-point operations a second of one device, None
    where it is not known; that of bfloat16 for the float8 recipes too, so that they compare.
    """

    processes: int
    flops: float
    full_flops: float
    peak: float | None
    device: torch.device
    pace: Pace = field(default_factory=Pace)

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

    def note(self, loss: float, tokens_per_second: float, steps_left: int) -> str:
        """The same for the progress line, what matters most first: a narrow terminal cuts its end off.

        `loss 2.313, 3.1 h left, 41,200 tokens/s, 5,150 a device, MFU 41 % (full attention 46 %), 61.2 GiB`.
        """
        figures = self.figures(tokens_per_second)
        parts = [f"loss {loss:.3f}"]
        if steps_left:
            parts.append(f"{about(steps_left * self.pace.seconds_per_step)} left")
        parts.append(f"{tokens_per_second:,.0f} tokens/s")
        if self.processes > 1:
            parts.append(f"{figures['tokens_per_second_per_device']:,.0f} a device")
        if self.peak is not None:
            causal, full = (100 * figures[name] for name in ("mfu", "mfu_full_attention"))
            parts.append(f"MFU {causal:.0f} % (full attention {full:.0f} %)")
        parts.append(f"{figures['memory_bytes'] / GIB:.1f} GiB")
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
    """The meter of a run; the peak is that of the GPU that is here, else of `hardware`, else not known."""
    known = _device_here(device) or DEVICES.get(hardware or "")
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
    return device_called(torch.cuda.get_device_name(device))


def device_called(name: str) -> Device | None:
    """The device that torch calls so; None where its peak is not known."""
    ours = next((ours for theirs, ours in _NAMES.items() if theirs in name), None)
    return None if ours is None else DEVICES[ours]
