"""Write what lies beside the WARC files: where every page comes from, and under which licence."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

from sites import SITES

COLUMNS = (
    "host",
    "package",
    "version",
    "language",
    "pages",
    "re_encoded",
    "licence",
    "copyright",
    "rendered",
)
NOTICES = Path(__file__).parent / "notices.md"


def _rows(truth: Path, versions: dict[str, str]) -> list[tuple[str, ...]]:
    pages: Counter[str] = Counter()
    altered: Counter[str] = Counter()
    with truth.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            host = row["host"].removeprefix("mirror.").removeprefix("archive.")
            pages[host] += row["language"] != ""
            altered[host] += row["language"] != "" and row["encoding"] != "utf-8"
    return [
        (s.host, s.package, versions[s.package], s.language, str(pages[s.host]), str(altered[s.host]),
         s.licence, s.holder, "" if s.kind == "html" else s.kind)
        for s in SITES
    ]  # fmt: skip


def _replace(path: Path, text: str) -> None:
    aside = path.with_name(path.name + ".part")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def write(out: Path, versions: dict[str, str]) -> None:
    """Write `origins.csv`, one row a site, and `ORIGINS.md`, the same for readers, with the notices."""
    rows = _rows(out / "truth.csv", versions)
    aside = out / "origins.csv.part"
    with aside.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    aside.replace(out / "origins.csv")
    table = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    table += ["| " + " | ".join(cells) + " |" for cells in rows]
    _replace(out / "ORIGINS.md", NOTICES.read_text(encoding="utf-8").replace("@TABLE@", "\n".join(table)))
