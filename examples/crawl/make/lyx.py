"""Render a LyX manual to HTML pages, one a section, as a site of the manuals would."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

from render import page_html

HEADINGS = {"Title": 1, "Part": 1, "Chapter": 1, "Section": 2, "Subsection": 3,
            "Subsubsection": 4, "Paragraph": 5}  # fmt: skip
ITEMS = {"Itemize": "ul", "Enumerate": "ol", "Description": "ul", "Labeling": "ul"}
SILENT = ("Note", "ERT", "Index", "Argument", "Graphics", "Tabular", "External", "Preview",
          "IPA", "Info", "Phantom", "VSpace", "VERB", "Branch")  # fmt: skip
SPECIAL = {"ldots": "…", "menuseparator": " ▷ ", "endofsentence": ".", "LyX": "LyX",
           "LaTeX": "LaTeX", "LaTeX2e": "LaTeX2ε", "TeX": "TeX", "nobreakdash": "-",
           "breakableslash": "/", "softhyphen": "", "ligaturebreak": ""}  # fmt: skip


class _Reader:
    """Walks the lines of a LyX file; every method stops after the end tag of its own block."""

    def __init__(self, lines: list[str]) -> None:
        self.lines, self.at = lines, 0
        self.asides: list[str] = []

    def next(self) -> str:
        self.at += 1
        return self.lines[self.at - 1]

    def inline(self, end: str) -> str:
        """The text up to the end tag, insets in their places."""
        parts: list[str] = []
        while self.at < len(self.lines):
            line = self.next()
            if line == end:
                break
            if line.startswith("\\begin_inset "):
                parts.append(self.inset(line[13:]))
            elif line.startswith("\\begin_layout"):
                parts.append(self.inline("\\end_layout") + " ")
            elif line.startswith("\\backslash"):
                parts.append("\\")
            elif not line.startswith("\\") or line.startswith("\\SpecialChar"):
                parts.append(_plain(line))
        return "".join(parts)

    def inset(self, kind: str) -> str:
        """What an inset shows in the line it stands in."""
        if kind.startswith("Formula"):
            rest = [kind[8:]]
            while (line := self.next()) != "\\end_inset":
                rest.append(line)
            return f"<i>{html.escape(' '.join(rest).strip())}</i>"
        if kind.startswith("CommandInset"):
            return self.command()
        if kind.startswith(("space", "Newline", "Newpage", "Quotes", "script")):
            text = self.inline("\\end_inset")
            return {"Quo": '"', "spa": " "}.get(kind[:3], text)
        while not self.lines[self.at].startswith(("\\begin_layout", "\\end_inset", "<lyxtabular")):
            self.at += 1  # the inset's own settings
        text = self.inline("\\end_inset")
        if kind.startswith("Foot"):
            self.asides.append(f'<p class="note">{text.strip()}</p>\n')
            return ""
        return "" if kind.startswith(SILENT) else text

    def command(self) -> str:
        """A link, a reference or a citation: its name or its target."""
        fields: dict[str, str] = {}
        while (line := self.next()) != "\\end_inset":
            if match := re.match(r'(\w+)\s+"?(.*?)"?$', line):
                fields.setdefault(*match.groups())
        if fields.get("LatexCommand") == "href":
            target = html.escape(fields.get("target", ""), quote=True)
            return f'<a href="{target}">{html.escape(fields.get("name") or target)}</a>'
        return "※" if fields.get("LatexCommand", "").endswith("ref") else ""


def _plain(line: str) -> str:
    line = re.sub(r"\\SpecialChar (\w+)", lambda m: SPECIAL.get(m.group(1), ""), line)
    return html.escape(line, quote=False)


def _blocks(lines: list[str]) -> Iterator[tuple[str, str]]:
    reader = _Reader(lines)
    while reader.at < len(lines):
        line = reader.next()
        if line.startswith("\\begin_layout "):
            text = reader.inline("\\end_layout").strip()
            if text:
                yield line[14:], text
            for aside in reader.asides:
                yield "Aside", aside
            reader.asides.clear()


def _block_html(name: str, text: str) -> str:
    if name in HEADINGS:
        return f"<h{HEADINGS[name]}>{text}</h{HEADINGS[name]}>\n"
    if name == "Aside":
        return text
    if name in ITEMS:
        return f"<{ITEMS[name]}><li>{text}</li></{ITEMS[name]}>\n"
    return f"<pre>{text}</pre>\n" if "Code" in name else f"<p>{text}</p>\n"


def _merged(page: list[str]) -> str:
    """The page in one piece, items that follow one another in one list, which has a box of its own."""
    body = re.sub(r"</(ul|ol)>\n<\1>", "", "".join(page))
    return re.sub(r"<(ul|ol)>.*?</\1>", r'<div class="itemize">\g<0></div>', body)


def _full(page: list[str], level: int) -> bool:
    """Whether a heading of this level opens a new page: the lower it is, the fuller the page is."""
    return sum(map(len, page)) > {1: 700, 2: 1000, 3: 1400}.get(level, 2000)


def lyx(root: Path, language: str, site: str) -> Iterator[tuple[str, str]]:
    """Pages of all the LyX manuals of a folder, cut at parts, chapters and sections."""
    for file in sorted(root.glob("*.lyx")):
        raw = file.read_text("utf-8")
        body = raw.split("\\begin_body", 1)[-1].split("\n")
        pages: list[list[str]] = [[]]
        names: list[str] = [file.stem]
        for name, text in _blocks(body):
            if name in HEADINGS and _full(pages[-1], HEADINGS[name]):
                pages.append([])
                names.append(re.sub(r"<[^>]+>", "", text))
            pages[-1].append(_block_html(name, text))
        stem = file.stem.lower()
        for i, (name, page) in enumerate(zip(names, pages, strict=True)):
            beside = (f"{stem}-{max(0, i - 1):03}.html", f"{stem}-{min(len(pages) - 1, i + 1):03}.html")
            yield f"{stem}-{i:03}.html", page_html(name, _merged(page), language, site, beside)
