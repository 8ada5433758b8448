"""Products of float8 operands by torchao, in the place of `models.products.linear`.

No module is swapped: a `Linear` computes through its attribute `multiply`, and that is what changes. So
weights stay the same Parameter objects, FSDP's and tensor parallelism's hooks stay where they are, and going
back to bfloat16 in the middle of a run is one assignment a matrix.

Operands are bfloat16 in every layout: activations and weights are rounded to it first (FSDP gathers weights
in it), then to float8. Where a product is emulated, the rounded operands are multiplied in float32, which is
exact but for the order of the sums. torchao emulates each recipe with its own scales; `torchtitan` replaces
the recipe by tensorwise where it emulates (components/quantization/float8.py), this does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tsugiki.errors import DependencyError, InputError
from tsugiki.models.decoder import Decoder
from tsugiki.models.layers import Linear
from tsugiki.models.products import linear
from tsugiki.models.quiet import quiet
from tsugiki.training.precision.recipes import TORCHAO_NAMES, is_float8, selection
from tsugiki.training.precision.watch import Float8Report, Gauge, report_of, stacked

if TYPE_CHECKING:
    from tsugiki.models.config import DecoderConfig
    from tsugiki.training.stage import Config

FLOAT8_CAPABILITY = (8, 9)
"""Compute capability from which NVIDIA GPUs multiply float8 (Ada; Hopper is 9.0, A100 is 8.0)."""


class Float8Product:
    """x w^T + b with operands in float8, and both gradients; called as `models.products.linear` is.

    config, products: torchao's `Float8LinearConfig`, and its words for the three products.
    """

    def __init__(self, config: Any, products: Any) -> None:
        self.config = config
        self.products = products
        self.gauge: Gauge | None = None
        """Where the next forward and backward pass are measured; None most of the time."""

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        from torchao.float8.float8_linear import matmul_with_hp_or_float8_args

        if torch.is_inference_mode_enabled():  # whose views torchao's tensors don't know
            with torch.inference_mode(mode=False), torch.no_grad():
                return self(x, weight, bias)
        with torch.autocast(x.device.type, enabled=False):
            x_SI, w_OI = x.bfloat16().flatten(0, -2), weight.bfloat16()
            if self.config.emulate:  # products kept in bfloat16 (grad_w of gw-hp) are slow on most CPUs
                x_SI, w_OI = x_SI.float(), w_OI.float()
            y_SO = matmul_with_hp_or_float8_args.apply(x_SI, w_OI.t(), self.products, self.config)
            if self.gauge is not None:
                gauge, self.gauge = self.gauge, None
                gauge.take(self, x_SI, w_OI, y_SO)
            y = y_SO.bfloat16().unflatten(0, x.shape[:-1])
            return y if bias is None else y + bias.to(y.dtype)


class Float8:
    """The matrices of the decoders here that are in float8, and the recipe that is in force.

    names: those of all processes, in the order of the figures. held: those of this one.
    """

    def __init__(self, precision: str, names: tuple[str, ...], held: dict[str, Linear]) -> None:
        self.precision = precision
        self._names = names
        self._held = held
        self._gauges: dict[str, Gauge] = {}
        self._watching = False

    def fall_back(self) -> bool:
        """bfloat16 from the next product on; False where that is in force already."""
        if not is_float8(self.precision):
            return False
        for module in self._held.values():
            module.multiply = linear
        self.precision = "bfloat16"
        self._gauges, self._watching = {}, False
        return True

    def watch(self) -> None:
        """Measure the next forward and backward pass of every matrix; nothing after `fall_back`."""
        self._watching = is_float8(self.precision)
        for name, module in self._held.items():
            if isinstance(module.multiply, Float8Product):
                module.multiply.gauge = self._gauges[name] = Gauge()

    def report(
        self, device: torch.device, of_all: Callable[[Tensor, Tensor], None] = lambda *_: None
    ) -> Float8Report | None:
        """What was found since `watch`; None where that was not called (in all processes alike).

        of_all: adds up the first tensor of `watch.stacked` over all processes, and takes the largest of the
        second, in place.
        """
        if not self._watching:
            return None
        gauges, self._gauges, self._watching = self._gauges, {}, False
        sums, maxima = stacked(gauges, self._names, device)
        of_all(sums, maxima)
        return report_of(self._names, sums, maxima)


def use_float8(
    config: Config, shape: DecoderConfig, decoders: Iterable[Decoder], device: torch.device
) -> Float8 | None:
    """Put the chosen matrices of the decoders here into float8, in place; None for the other precisions.

    Called before layers are wrapped (their names are looked up). Raises DependencyError without torchao,
    InputError on a GPU without float8.
    """
    if not is_float8(config.precision):
        return None
    recipe, products = recipe_of(config.precision, emulate=emulates(config.float8_products, device))
    names = tuple(matrix.name for matrix in selection(config, shape).float8)
    wanted, held = set(names), {}
    for decoder in decoders:
        for name, module in decoder.named_modules():
            if name in wanted and isinstance(module, Linear):
                module.multiply = Float8Product(recipe, products)
                held[name] = module
    return Float8(config.precision, names, held)


def manner(products: str, device: torch.device) -> str:
    """How float8 numbers are multiplied, for log and manifest; raises as `emulates` does."""
    return "emulated" if emulates(products, device) else "exact"


def emulates(products: str, device: torch.device) -> bool:
    """Whether products are emulated: unless told, on a CPU (its own float8 products are 1000 times slower).

    Raises InputError where a GPU is to multiply float8 and can't.
    """
    if products == "emulated" or (products == "auto" and device.type == "cpu"):
        return True
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < FLOAT8_CAPABILITY:
        raise InputError(
            f"{torch.cuda.get_device_name(device)} can't multiply float8; that needs NVIDIA's compute "
            f"capability {'.'.join(map(str, FLOAT8_CAPABILITY))}",
            hint="use precision: bfloat16",
        )
    return False


@cache
def recipe_of(precision: str, *, emulate: bool) -> tuple[Any, Any]:
    """The configuration of a recipe in torchao's words, and of its three products.

    Raises DependencyError without torchao.
    """
    torchao = _torchao(precision)
    recipe = replace(torchao.Float8LinearConfig.from_recipe_name(TORCHAO_NAMES[precision]), emulate=emulate)
    with torch.device("meta"):
        example = torchao.float8_linear.Float8Linear(16, 16, bias=False, config=recipe)
    return recipe, example.linear_mm_config


def _torchao(precision: str) -> Any:
    with quiet():
        try:
            import torchao.float8
            import torchao.float8.float8_linear
        except ImportError as error:
            raise DependencyError(
                f"precision: {precision} needs the package torchao, which can't be imported ({error})",
                hint="pip install 'tsugiki[float8]', or use precision: bfloat16",
            ) from error
    return torchao.float8
