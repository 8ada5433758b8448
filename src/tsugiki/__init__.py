"""Tsugiki grafts a language onto an open large language model.

The package is laid out along the way a language takes: `corpus` -> `vocabulary` ->
`dataset` -> `training` -> `evaluation` -> `report`, joined by `workflow` and started from `cli`.
"""

__version__ = "0.1.0"
