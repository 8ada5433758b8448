"""Render documentation that is shipped as XML (Mallard, DocBook), LyX or fragments to HTML.

The web shows such documents rendered (help.gnome.org and the like); these renderers
do the same with the standard library: they keep the words and the block structure.
"""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

BLOCKS = {
    "p": "p", "para": "p", "simpara": "p", "title": "h2", "subtitle": "h3",
    "list": "ul", "itemizedlist": "ul", "orderedlist": "ol", "steps": "ol", "procedure": "ol",
    "item": "li", "listitem": "li", "step": "li", "variablelist": "dl", "terms": "dl",
    "term": "dt", "note": "aside", "tip": "aside", "caution": "aside", "important": "aside",
    "warning": "aside", "example": "div", "informalexample": "div", "screen": "pre",
    "programlisting": "pre", "code": "pre", "table": "table", "informaltable": "table",
    "tr": "tr", "row": "tr", "td": "td", "th": "th", "entry": "td", "section": "section",
    "synopsis": "div", "listing": "div", "quote": "blockquote", "comment": "div",
    "chapter": "div", "appendix": "div", "highlights": "div", "formalpara": "div",
    "tbody": "tbody", "thead": "thead", "tgroup": "tbody", "varlistentry": "div",
    "page": "div", "glossentry": "div", "glossterm": "dt", "glossdef": "dd",
}  # fmt: skip
INLINE = {"em": "em", "emphasis": "em", "key": "kbd", "keycap": "kbd", "cmd": "code",
          "command": "code", "filename": "code", "file": "code", "gui": "b", "guilabel": "b",
          "guibutton": "b", "guimenu": "b", "guimenuitem": "b"}  # fmt: skip
SKIPPED = {"info", "indexterm", "media", "mediaobject", "inlinemediaobject", "figure",
           "screenshot", "graphic", "anchor", "colspec", "remark", "desc", "include"}  # fmt: skip
MENUS = {"guiseq": " ▸ ", "menuchoice": " ▸ ", "keyseq": "+", "keycombo": "+"}
XML_ID = "{http://www.w3.org/XML/1998/namespace}id"
SECTIONS = {"section", "sect1", "sect2", "sect3"}
SHORTEST_UNIT = 1200
GROUPING = {"div", "section", "aside", "ul", "ol", "dl", "table", "tr", "tbody", "thead",
            "blockquote"}  # fmt: skip


def page_html(title: str, body: str, language: str, site: str, beside: tuple[str, str]) -> str:
    """A whole page: head, navigation bar, body, footer."""
    before, after = beside
    bar = f'<a href="{before}">&lt;&lt;</a> <a href="/">{site}</a> <a href="{after}">&gt;&gt;</a>'
    return (
        f'<!DOCTYPE html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{html.escape(title)} - {site}</title>\n"
        f'<link rel="stylesheet" href="/style.css">\n</head>\n<body>\n'
        f'<header><nav class="bar">{bar}</nav></header>\n'
        f'<main>\n<article>\n{body}\n</article>\n</main>\n<footer><p class="bar">{bar}</p></footer>\n'
        "</body>\n</html>\n"
    )


def _local(tag: object) -> str:
    return tag.rsplit("}", 1)[-1] if isinstance(tag, str) else ""


def _heading(level: int, content: str) -> str:
    return f"<h{min(level, 6)}>{content.strip()}</h{min(level, 6)}>\n"


def element_html(node: ET.Element, titles: dict[str, str], level: int = 1) -> str:
    """HTML of one element of a Mallard or DocBook document, without its tail."""
    name = _local(node.tag)
    if name == "info":
        title = [child for child in node if _local(child.tag) == "title"]
        is_docbook = title and title[0].get("type") is None and "docbook" in str(node.tag)
        return _heading(level, "".join(title[0].itertext())) if is_docbook else ""
    if not name or name in SKIPPED:
        return ""
    deeper = level + (name in {"section", "sect1", "sect2", "sect3", "sect4"})
    parts = [html.escape(node.text or "")]
    for child in node:
        parts += [element_html(child, titles, deeper), html.escape(child.tail or "")]
    return _wrap(node, name, parts, titles, level)


def _wrap(node: ET.Element, name: str, parts: list[str], titles: dict[str, str], level: int) -> str:
    content = "".join(parts)
    if name in {"link", "xref"} and not content.strip():
        target = node.get("xref") or node.get("linkend") or node.get("href") or ""
        return html.escape(titles.get(target.split("#")[-1], target))
    if name in MENUS:
        return MENUS[name].join(p.strip() for p in parts if p.strip())
    if name == "title":
        return _heading(level, content)
    if name in INLINE:
        return f"<{INLINE[name]}>{content}</{INLINE[name]}>"
    if name not in BLOCKS or (name == "code" and "\n" not in content):
        return content
    tag = BLOCKS[name]
    if tag in GROUPING:
        content = "".join(p if "<" in p else p.strip() for p in parts)
    elif tag != "pre":
        content = fold(content)
    whole = f"<{tag}>{content}</{tag}>\n"
    return f'<div class="itemizedlist">{whole}</div>' if tag in {"ul", "ol", "dl"} else whole


def fold(text: str) -> str:
    """Fold line breaks: to nothing between two Japanese or Chinese characters, else to a space."""
    text = re.sub(r"(?<=[\u3000-\u9fff\uff00-\uffef])\s*\n\s*(?=[\u3000-\u9fff\uff00-\uffef])", "", text)
    return re.sub(r"\s*\n\s*", " ", text).strip()


def _parse(path: Path) -> ET.Element:
    text = re.sub(r"<!DOCTYPE.*?(\[.*?\])?\s*>", "", path.read_text("utf-8"), count=1, flags=re.DOTALL)
    text = re.sub(r"&(?!amp;|lt;|gt;|quot;|apos;|#)([\w.-]+);", r"\1", text)
    used = set(re.findall(r"(?:</?|\s)([a-z]+):[a-z]+(?=[\s=>])", text))
    missing = [p for p in sorted(used) if p not in {"xml", "xmlns"} and f"xmlns:{p}=" not in text]
    declared = "".join(f' xmlns:{p}="urn:{p}"' for p in missing)
    text = re.sub(r"<(\w+)(?=[\s>])", rf"<\1{declared}", text, count=1)
    return ET.fromstring(text)  # noqa: S314 - files of Debian packages


def _titles(root: ET.Element) -> Iterator[tuple[str, str]]:
    for node in root.iter():
        key = node.get("id") or node.get(XML_ID)
        found = next((n for n in node.iter() if _local(n.tag) == "title"), None)
        if key and found is not None:
            yield key, "".join(found.itertext()).strip()


def mallard(root: Path, language: str, site: str) -> Iterator[tuple[str, str]]:
    """Pages of a Mallard document: one a `.page` file."""
    files = sorted(root.glob("*.page"))
    parsed = [(f.stem, _parse(f)) for f in files]
    titles = {k: v for _, tree in parsed for k, v in _titles(tree)}
    for i, (stem, tree) in enumerate(parsed):
        beside = (f"{parsed[i - 1][0]}.html", f"{parsed[(i + 1) % len(parsed)][0]}.html")
        body = element_html(tree, titles)
        yield f"{stem}.html", page_html(titles.get(stem, stem), body, language, site, beside)


def _cut(node: ET.Element, units: list[ET.Element]) -> None:
    """Cut the sections of an element off, as units of their own where they are long enough."""
    units.append(node)
    for child in [n for n in node if _local(n.tag) in SECTIONS]:
        if len("".join(child.itertext())) >= SHORTEST_UNIT:
            node.remove(child)
            _cut(child, units)


def docbook(root: Path, language: str, site: str) -> Iterator[tuple[str, str]]:
    """Pages of a DocBook manual: one a section of some length."""
    parsed = [_parse(f) for f in sorted(root.glob("*.xml")) if f.stem != "legal"]
    titles = {k: v for tree in parsed for k, v in _titles(tree)}
    nodes: list[ET.Element] = []
    for tree in parsed:
        _cut(tree, nodes)
    units = [(n.get("id") or n.get(XML_ID) or f"unit-{i}", n) for i, n in enumerate(nodes)]
    for i, (key, node) in enumerate(units):
        beside = (f"{units[i - 1][0]}.html", f"{units[(i + 1) % len(units)][0]}.html")
        body = element_html(node, titles, 0)
        yield f"{key}.html", page_html(titles.get(key, key), body, language, site, beside)


def fragments(root: Path, language: str, site: str, allowed: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """Stellarium's sky cultures: HTML fragments, those whose `info.ini` names an allowed licence."""
    for file in sorted(root.glob(f"*/description.{language}.utf8")):
        licence = re.search(
            r"^license\s*=\s*(.*)$", (file.parent / "info.ini").read_text("utf-8"), re.MULTILINE
        )
        if not licence or not allowed.search(licence.group(1)):
            continue
        body = re.sub(r"<img[^>]*>", "", file.read_text("utf-8"))
        title = re.search(r"<h1>(.*?)</h1>", body)
        name = title.group(1) if title else file.parent.name
        body += f'<p class="licence">{html.escape(licence.group(1))}</p>'
        yield f"{file.parent.name}.html", page_html(name, body, language, site, ("/", "/"))
