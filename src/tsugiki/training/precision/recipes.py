"""Float8 recipes by name, the matrices that they cover, and what is known of their speed. No torch here.

A recipe says how the operands of the three products of a linear layer are rounded to 8 bits:

    y = x w^T         grad_x = grad_y w         grad_w = grad_y^T x

float8-tensorwise: one scale a tensor, x and w in E4M3, grad_y in E5M2. float8-rowwise: a scale for each row
or column along the sum, powers of two, E4M3 for all. float8-rowwise-gw-hp: as that, but grad_w in bfloat16
("grad weight in high precision") and one scale for w in grad_x; the most accurate of the three. They are
torchao's recipes (torchao.float8, `Float8LinearRecipeName`), and torchao computes them.

Embedding, head, norms, routers, chosen experts and attention itself (the products of queries with keys and
with values) are never in float8 (a shared expert's matrices are, as a dense layer's); nor are the layers
that `float8_high_layers` names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from tsugiki.errors import Problem
from tsugiki.models.config import DecoderConfig

if TYPE_CHECKING:
    from tsugiki.training.stage import Config

Precision = Literal["float32", "bfloat16", "float8-tensorwise", "float8-rowwise", "float8-rowwise-gw-hp"]

TORCHAO_NAMES: Mapping[str, str] = {
    "float8-tensorwise": "tensorwise",
    "float8-rowwise": "rowwise",
    "float8-rowwise-gw-hp": "rowwise_with_gw_hp",
}

MULTIPLE = 16
"""`torch._scaled_mm` on a GPU wants sums and outputs of a multiple of so many numbers. A CPU does not, so it
is asked here, for all."""

NAMED = 3
"""So many matrices are named in a message, and the others counted."""


def is_float8(precision: str) -> bool:
    """Whether this is one of the float8 recipes."""
    return precision in TORCHAO_NAMES


def our_name(given: object) -> object:
    """The name of a precision here, where torchao's name of a recipe is given; else what is given."""
    for ours, theirs in TORCHAO_NAMES.items():
        if given in {theirs, theirs.replace("_", "-"), f"float8-{theirs}", f"float8_{theirs}"}:
            return ours
    return given


@dataclass(frozen=True)
class Matrix:
    """A matrix of a layer: its module in the decoder, and its size.

    cut: what tensor parallelism cuts, "outputs" or "inputs".
    """

    name: str
    outputs: int
    inputs: int
    cut: Literal["outputs", "inputs"]

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return self.outputs * self.inputs

    def is_small(self, precision: str) -> bool:
        """Whether float8 is expected to be slower than bfloat16: the rounding costs more than it saves.

        Thresholds: torchao's `_auto_filter_for_recipe`, from its measurements on H100 (K inputs, N outputs).
        It has none for rowwise_with_gw_hp; rowwise's are taken.
        """
        n, k = self.outputs, self.inputs
        if precision == "float8-tensorwise":
            return k <= 4096 and n <= 1024  # noqa: PLR2004 (see above)
        return n <= 2048 or k <= 1024 or (n <= 4096 and k <= 2048)  # noqa: PLR2004 (see above)


@dataclass(frozen=True)
class Selection:
    """The matrices of the layers: those in float8, and those that stay in bfloat16.

    high: of the layers kept high. small: too small for float8 to pay. experts: numbers of the experts that a
    token goes through.
    """

    float8: tuple[Matrix, ...]
    high: tuple[Matrix, ...]
    small: tuple[Matrix, ...]
    experts: int

    @property
    def share(self) -> float:
        """The share of the multiplications of the layers' matrices that are in float8."""
        numbers = sum(matrix.numbers for matrix in self.float8)
        others = sum(matrix.numbers for matrix in (*self.high, *self.small)) + self.experts
        return numbers / max(1, numbers + others)


def matrices_of(shape: DecoderConfig, layer: int) -> tuple[Matrix, ...]:
    """The matrices of one layer, a shared expert's among them; chosen experts, routers and gates left out."""
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    width = shape.hidden_size
    attention, mlp = f"model.layers.{layer}.self_attn", f"model.layers.{layer}.mlp"
    found = [
        Matrix(f"{attention}.q_proj", queries, width, "outputs"),
        Matrix(f"{attention}.k_proj", keys, width, "outputs"),
        Matrix(f"{attention}.v_proj", keys, width, "outputs"),
        Matrix(f"{attention}.o_proj", width, queries, "inputs"),
    ]
    inner = shape.intermediate_size
    if shape.moe is not None and shape.is_sparse(layer):
        mlp, inner = f"{mlp}.shared_expert", shape.moe.shared_size
    if inner:
        found += [
            Matrix(f"{mlp}.gate_proj", inner, width, "outputs"),
            Matrix(f"{mlp}.up_proj", inner, width, "outputs"),
            Matrix(f"{mlp}.down_proj", width, inner, "inputs"),
        ]
    return tuple(found)


def selection(config: Config, shape: DecoderConfig) -> Selection:
    """Which matrices the recipe puts in float8; the same in every layout."""
    chosen: list[Matrix] = []
    high: list[Matrix] = []
    small: list[Matrix] = []
    ends = config.float8_high_layers
    experts = 0
    for layer in range(shape.layers):
        kept_high = layer < ends.first or layer >= shape.layers - ends.last
        for matrix in matrices_of(shape, layer):
            if kept_high:
                high.append(matrix)
            elif config.float8_skip_small and matrix.is_small(config.precision):
                small.append(matrix)
            else:
                chosen.append(matrix)
        if shape.moe is not None and shape.is_sparse(layer):
            one = 3 * shape.hidden_size * shape.moe.intermediate_size
            experts += shape.moe.experts_per_token * one
    return Selection(tuple(chosen), tuple(high), tuple(small), experts)


def float8_problems(config: Config, shape: DecoderConfig, rows: int) -> Iterator[Problem]:
    """Every way in which a float8 recipe does not fit the model or the layout; rows: of a micro-batch."""
    if not is_float8(config.precision):
        return
    if find_spec("torchao") is None:
        yield Problem(
            f"precision: {config.precision} needs the package torchao, which is not installed",
            "pip install 'tsugiki[float8]', or use precision: bfloat16",
            "precision",
            "here",
        )
    chosen = selection(config, shape)
    if not chosen.float8:
        yield Problem(
            f"precision is {config.precision}, but no matrix of the {shape.layers} layers is left for it: "
            f"{len(chosen.high)} are in layers kept high, {len(chosen.small)} are too small for it to pay",
            "lower float8_high_layers, set float8_skip_small: false, or use precision: bfloat16",
            "precision",
        )
    yield from _size_problems(config, chosen)
    tokens = rows * config.sequence_length // config.parallel.context
    if config.precision != "float8-rowwise-gw-hp" and tokens % MULTIPLE:
        yield Problem(
            f"{config.precision} sums gradients over the {tokens} tokens of a micro-batch, which are no "
            f"multiple of {MULTIPLE}",
            f"choose a sequence_length that is a multiple of {MULTIPLE}, or precision: float8-rowwise-gw-hp",
            "precision",
        )
    small = [matrix for matrix in chosen.float8 if matrix.is_small(config.precision)]
    if small:
        yield Problem(
            f"{_named(small)} so small that float8 is expected to be slower than bfloat16 there (torchao's "
            "thresholds, measured on H100)",
            "set float8_skip_small: true to leave them in bfloat16, or use precision: bfloat16",
            "precision",
            "warning",
        )
    if chosen.experts:
        yield Problem(
            f"experts stay in bfloat16: {100 * chosen.share:.0f} % of the layers' multiplications are in "
            "float8",
            "use precision: bfloat16 for a mixture of experts",
            "precision",
            "warning",
        )


def _size_problems(config: Config, chosen: Selection) -> Iterator[Problem]:
    """Sizes that the GPU's float8 products refuse, in the matrices or in the parts that processes hold."""
    degree = config.parallel.tensor
    for what in ("outputs", "inputs"):
        odd = [matrix for matrix in chosen.float8 if _part(matrix, what, degree) % MULTIPLE]
        if odd:
            sizes = sorted({_part(matrix, what, degree) for matrix in odd})
            where = f" in each of {degree} processes" if degree > 1 else ""
            yield Problem(
                f"float8 products want multiples of {MULTIPLE}; {_named(odd)} of "
                f"{', '.join(map(str, sizes))} {what}{where}",
                "use precision: bfloat16, lower parallel.tensor, or keep those layers high with "
                "float8_high_layers",
                "precision",
            )


def _part(matrix: Matrix, what: str, degree: int) -> int:
    size = matrix.outputs if what == "outputs" else matrix.inputs
    return size // degree if matrix.cut == what else size


def _named(matrices: list[Matrix]) -> str:
    names = [matrix.name.removeprefix("model.") for matrix in matrices[:NAMED]]
    more = len(matrices) - len(names)
    return ", ".join(names) + (f" and {more} more are" if more else " are" if len(names) > 1 else " is")


@dataclass(frozen=True)
class Measured:
    """Tokens a second of Llama 3 8B on 8 devices (batch 1, sequence 8192, torch.compile, FSDP2).

    float8_gather: FSDP gathered the weights in float8, which Tsugiki does not.
    Source: pytorch/ao 36027d82d (2026-08-21), docs/source/workflows/training.md.
    """

    hardware: str
    precision: str
    bfloat16: float
    float8: float
    float8_gather: bool = False

    @property
    def gain(self) -> float:
        """How many times as fast as bfloat16."""
        return self.float8 / self.bfloat16


MEASURED = (
    Measured("h100", "float8-tensorwise", 6150.0, 7689.5, float8_gather=True),
    Measured("h100", "float8-rowwise", 6150.0, 6768.0),
    Measured("mi300x", "float8-tensorwise", 5376.5, 6166.0, float8_gather=True),
    Measured("mi300x", "float8-rowwise-gw-hp", 5376.5, 6100.0),
    Measured("mi300x", "float8-rowwise", 5376.5, 5891.0),
)

EMULATION: Mapping[str, float] = {
    "float8-tensorwise": 87 / 258,
    "float8-rowwise": 87 / 303,
    "float8-rowwise-gw-hp": 87 / 303,
}
"""Speed of the emulation on a CPU as a share of bfloat16's: milliseconds a step of a tiny language model (2
cores, torchao 0.18.0; rowwise-gw-hp was not measured, rowwise's is taken)."""


def speed_against_bfloat16(config: Config, shape: DecoderConfig, hardware: str) -> float:
    """How many times as fast as bfloat16 a recipe is expected to be.

    On an accelerator the gain of rowwise on H100 (1.10), the only one measured there with weights gathered in
    bfloat16 as they are here, times the share of the layers' products that are in float8. Tensorwise should
    do no worse (1.25 with float8 gathers). All were measured with torch.compile, which makes one kernel of
    the rounding, so without `compile: true` this is the bright side.
    """
    if not is_float8(config.precision):
        return 1.0
    if hardware == "cpu":
        return EMULATION[config.precision]
    gains = [one.gain for one in MEASURED if one.hardware == "h100" and not one.float8_gather]
    return 1 + (min(gains) - 1) * selection(config, shape).share
