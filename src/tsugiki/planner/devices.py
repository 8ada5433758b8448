"""What accelerators and the nodes around them can do, and what an hour costs: data sheets and measurements.

A user's own devices come from a TOML file with the same names (`read_devices`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from tsugiki.errors import InputError, did_you_mean

GIB = 2**30


@dataclass(frozen=True)
class Accelerator:
    """One device in its node. Bytes, seconds, FLOP/s, bytes/s; bandwidths are those of one direction.

    memory_bytes: the nominal size counted in GiB: cards sold as 40, 80 and 94 GB show about 39.5, 79.2 and
    93.1 GiB to a program, and an H200, sold as 141 GB (NVIDIA, H200 data sheet), has the 143,771 MiB (140.4
    GiB) that nvidia-smi shows: the "GB" of the data sheets are GiB here, not 10^9 bytes. peak_flops:
    bfloat16, dense, by the data sheet. reached_flops, reached_float8_flops: the most that a matrix product
    has been measured to reach. attention_share: of the peak, by flash attention forward and backward. node:
    devices that NVLink connects. link_bandwidth: of one device within the node; network_bandwidth: of one
    device's share of the node's network. dollars_per_hour: of one device. watts: of one device and its share
    of the node.
    """

    name: str
    memory_bytes: float
    peak_flops: float
    reached_flops: float
    reached_float8_flops: float | None
    attention_share: float
    memory_bandwidth: float
    node: int
    link_bandwidth: float
    network_bandwidth: float
    dollars_per_hour: float
    watts: float


# Peaks, HBM and NVLink: NVIDIA's data sheets. Reached: best shape of mamf-finder.py (stas00/ml-engineering,
# compute/accelerator/README.md, 2025; B200: insights/when-to-upgrade-gpus); 94 GB as 80 GB. Attention:
# FlashAttention-2 on A100, 50-73 % of the peak (arXiv 2307.08691); on Hopper between FlashAttention-2's
# 35 % and FlashAttention-3's 75 % forward (arXiv 2407.08608); B200 as Hopper. Network: one NIC a GPU of
# 200 Gbit/s (A100) or 400 Gbit/s, as DGX nodes have it. Watts: the DGX node's largest draw by its GPUs (6.5,
# 10.2 and 14.3 kW by 8). Dollars: on-demand prices of mid-size clouds in 2025, by judgement; set your own.
_A100 = Accelerator("a100-80gb", 80 * GIB, 312e12, 271.2e12, None, 0.6, 2.0e12, 8, 300e9, 25e9, 1.79, 812.0)
_H100 = Accelerator(
    "h100-80gb", 80 * GIB, 989e12, 794.5e12, 1402.6e12, 0.5, 3.35e12, 8, 450e9, 50e9, 2.99, 1275.0
)
ACCELERATORS: Mapping[str, Accelerator] = {
    one.name: one
    for one in (
        replace(
            _A100,
            name="a100-40gb",
            memory_bytes=40 * GIB,
            memory_bandwidth=1.555e12,
            dollars_per_hour=1.29,
        ),
        _A100,
        _H100,
        replace(_H100, name="h100-94gb", memory_bytes=94 * GIB),
        replace(
            _H100,
            name="h200-141gb",
            memory_bytes=141 * GIB,
            memory_bandwidth=4.8e12,
            reached_float8_flops=1453.4e12,
            dollars_per_hour=3.49,
        ),
        Accelerator(
            "b200-180gb", 180 * GIB, 2250e12, 1745e12, 3432.5e12, 0.5, 8.0e12, 8, 900e9, 50e9, 4.99, 1790.0
        ),
    )
}


def accelerator(name: str, known: Mapping[str, Accelerator] = ACCELERATORS) -> Accelerator:
    """The device of that name; raises InputError for one that is not known."""
    if name not in known:
        raise InputError(
            f'there is no device "{name}"', hint=f"use {', '.join(known)}, or describe it in --devices FILE"
        )
    return known[name]


def read_devices(path: Path) -> Mapping[str, Accelerator]:
    """The devices of a TOML file, beside those that are known.

    One table a device; `like` names the device that fills what is not given:

        [our-h100]
        like = "h100-80gb"
        node = 4
        network_bandwidth = 25e9
        dollars_per_hour = 2.10

    Raises InputError for a file that can't be read, and for keys or values that make no sense.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(
            f"{path} can't be read as TOML: {error}", hint="see `tsugiki planner --help`"
        ) from error
    found = dict(ACCELERATORS)
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise InputError(
                f"{path}: {name} stands outside of a device's table", hint="begin each device with [NAME]"
            )
        found[name] = _device(path, name, table, found)
    return found


def _device(path: Path, name: str, table: Mapping[str, Any], known: Mapping[str, Accelerator]) -> Accelerator:
    names = [field.name for field in fields(Accelerator) if field.name != "name"]
    for key, value in table.items():
        if key != "like" and key not in names:
            raise InputError(f'{path}: [{name}] has an unknown key "{key}"', hint=did_you_mean(key, names))
        wrong = isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf")
        if key != "like" and wrong:
            raise InputError(
                f"{path}: [{name}] {key} is {value!r}; it has to be a positive number", hint="mend that line"
            )
    given = {key: value for key, value in table.items() if key != "like"}
    if "like" in table:
        return replace(accelerator(str(table["like"]), known), name=name, **given)
    missing = [key for key in names if key not in given and key != "reached_float8_flops"]
    if missing:
        raise InputError(
            f"{path}: [{name}] does not say {', '.join(missing)}",
            hint='give them, or `like = "h100-80gb"` to take them from a device that is known',
        )
    return Accelerator(name=name, **{"reached_float8_flops": None, **given})
