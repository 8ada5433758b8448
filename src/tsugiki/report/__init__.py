"""The report: one self-contained HTML file, made from the artifacts of a run directory and nothing else.

    run.json, recipe.yaml, <stage>/manifest.json, <stage>/metrics.jsonl, <stage>/comparison.json
      -> sections (plain view models) + figures (SVG) -> templates -> report.html

No clock, no host and no absolute path enters it, so deleting the file and calling again gives the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tsugiki.report.page import REPORT, render, write_report

__all__ = ["REPORT", "render", "write_report"]


def __getattr__(name: str) -> Any:
    """What `page` has, loaded when it is asked for: commands that only format text don't wait for numpy."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tsugiki.report import page

    return getattr(page, name)
