"""The types of a Config's fields, as a person writes them. Light: the help of every stage needs it."""

from __future__ import annotations

import types
import typing
from typing import Any


def type_name(annotation: Any) -> str:
    """A type as a person writes it: `int`, `str | None`, `dict[str, float]`, `"cosine" | "constant"`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is type(None):
        return "none"
    if origin is typing.Annotated:
        return type_name(arguments[0])
    if origin is typing.Literal:
        return " | ".join(str(argument) for argument in arguments)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(type_name(argument) for argument in arguments)
    if arguments:
        inner = ", ".join("..." if argument is ... else type_name(argument) for argument in arguments)
        return f"{origin.__name__}[{inner}]"
    return str(getattr(annotation, "__name__", annotation))
