"""Host names in one form, and where a site begins.

Hosts are compared in lower-case ASCII (IDNA; labels that IDNA refuses are punycode as they are), without
port, user, brackets, outer dots and empty labels. Nothing here raises on what a crawl holds, and nothing asks
the network: the public suffix list is the one that the package `tld` ships (it comes with trafilatura).
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote

from tsugiki.errors import DependencyError

MAX_HOST_CHARACTERS = 1024
"""DNS allows 253; of what is longer the end counts, where the registered domain stands."""

_LABEL_CHARACTERS = 63

_AUTHORITY = re.compile(r"\s*(?:[A-Za-z][A-Za-z0-9+.\-]*:)?//([^/?#\\]*)")
_BARE = re.compile(r"\s*((?:[^\s/?#@:\\.]+\.)+[^\s/?#@:\\.]+\.?(?::\d+)?)(?=[/?#]|\s*$)")
_PLAIN = re.compile(r"[a-z0-9\-_]+(?:\.[a-z0-9\-_]+)*")
_PORT = re.compile(r":\d*$")
_DOTS = str.maketrans("。．｡", "...")  # what IDNA takes for a dot (RFC 3490, section 3.1)
_HOSTS_REMEMBERED = 1 << 16


def split_url(url: object) -> tuple[str, str]:
    """(what stands between `//` and the path, what follows), as written; `example.com/x` will do, too."""
    if not isinstance(url, str):
        return "", ""
    found = _AUTHORITY.match(url) or _BARE.match(url)
    return (found[1], url[found.end(1) :]) if found else ("", "")


def host_of(url: object) -> str | None:
    """The host of a URL in comparable form; None where there is none."""
    return comparable_host(split_url(url)[0])


def comparable_host(authority: object) -> str | None:
    """A host name (user and port may stand around it) in the form that all comparisons use.

    None for what is no string or holds no name.
    """
    if not isinstance(authority, str):
        return None
    host = authority.rpartition("@")[2].strip().lower()
    if _PLAIN.fullmatch(host) and len(host) <= MAX_HOST_CHARACTERS:
        return host
    if host.startswith("["):
        inside = host[1:].partition("]")[0]
        return inside if inside.isascii() and inside else None  # an IPv6 address
    host = _PORT.sub("", host)
    if host.count(":") > 1:  # an IPv6 address without its brackets
        return host
    if "%" in host:
        host = unquote(host, errors="replace").lower()
    labels = host[-MAX_HOST_CHARACTERS:].translate(_DOTS).split(".")
    if len(host) > MAX_HOST_CHARACTERS and len(labels) > 1:
        del labels[0]  # a piece of one
    return ".".join(_ascii_label(label.strip()) for label in labels if label.strip()) or None


def _ascii_label(label: str) -> str:
    """IDNA 2003, whose tables are those of Unicode 3.2 and thus the same in every Python."""
    if label.isascii():
        return label
    if len(label) > _LABEL_CHARACTERS:  # no domain name; and punycode takes quadratic time
        return label.encode("unicode_escape").decode("ascii").lower()
    try:
        return label.encode("idna").decode("ascii").lower()
    except UnicodeError:
        bare = label.encode("utf-8", "replace").decode("utf-8")
        return "xn--" + bare.encode("punycode").decode("ascii").lower()


def is_address(host: str) -> bool:
    """Whether a host is an IP address, or ends in a number as one does; it has no parent domains."""
    return ":" in host or host.rpartition(".")[2].isdigit()


@lru_cache(maxsize=_HOSTS_REMEMBERED)
def registered_domain(host: str) -> str | None:
    """The public suffix and one label more: `a.b.co.jp` -> `b.co.jp`.

    host: in comparable form. None where the host is itself a public suffix (`co.jp`, but also `github.io`:
    the private section of the list counts, since each name below it is a site of its own) or an address.
    A top-level domain that the list doesn't know is a suffix, as the list's rule `*` says.
    """
    if is_address(host):
        return None
    parser, process = _suffixes()
    found = process(SplitResult("http", host, "", "", ""), fail_silently=True, parser_class=parser)
    labels, place = found[0], found[1]
    if labels is None:
        labels = host.split(".")
        place = len(labels) - 1 or -1
    return None if place < 0 else ".".join(labels[place - 1 :])


def site_of(host: str) -> str:
    """The registered domain, or the host itself where it has none."""
    return registered_domain(host) or host


def suffix_list_version() -> str:
    """The date of the public suffix list in use, for the record; empty where it doesn't say."""
    import tld

    path = Path(tld.__file__).parent / _suffixes()[0].local_path
    with path.open(encoding="utf-8") as file:
        head = file.read(4096)
    found = re.search(r"// VERSION: (\S+)", head)
    return found[1] if found else ""


@cache
def _suffixes() -> tuple[Any, Any]:
    """The parser of the shipped list, kept from fetching another one, and the function that asks it."""
    from tld.utils import MozillaTLDSourceParser, process_url

    class ShippedList(MozillaTLDSourceParser):
        """`tld` would download the list where its file is missing; a corpus run must not."""

        uid = "tsugiki-shipped"

        @classmethod
        def update_tld_names(cls, fail_silently: bool = False) -> bool:  # noqa: ARG003, FBT001, FBT002 (its signature)
            raise DependencyError(
                "the public suffix list of the package `tld` is missing",
                hint="install it again: pip install --force-reinstall tld",
            )

    return ShippedList, process_url
