"""Named fields of WARC and HTTP headers, looked up without parsing the others (RFC 9112 §5, WARC 1.1 §4)."""

from __future__ import annotations


class Fields:
    """A header as bytes: a first line, then `Name: value` lines. Names are found in any case."""

    __slots__ = ("_head", "_lower")

    def __init__(self, head: bytes) -> None:
        self._head = head
        self._lower = head.lower()

    def get(self, name: bytes) -> bytes:
        """The first field of that name (given in lower case), without the spaces around it; b"" if none."""
        mark = b"\n" + name
        at = self._lower.find(mark)
        while at >= 0:
            start = at + len(mark)
            end = self._head.find(b"\n", start)
            value = self._head[start : end if end >= 0 else None].strip()
            if value[:1] == b":":
                return value[1:].lstrip()
            at = self._lower.find(mark, start)  # the name was the beginning of a longer one
        return b""
