"""The report: one self-contained HTML file, made from the artifacts of a run directory and nothing else.

    run.json, recipe.yaml, <stage>/manifest.json, <stage>/metrics.jsonl, <stage>/comparison.json
      -> sections (plain view models) + figures (SVG) -> templates -> report.html

No clock, no host and no absolute path enters it, so deleting the file and calling again gives the same bytes.
"""

from tsugiki.report.page import REPORT, render, write_report

__all__ = ["REPORT", "render", "write_report"]
