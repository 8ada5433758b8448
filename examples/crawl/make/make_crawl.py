"""Make the sample crawl: Debian documentation packages, served on loopback, crawled by wget.

    python examples/crawl/make/make_crawl.py --out examples/crawl

The pages and their defects are the same on every run with the same package versions;
record ids and dates are not, since wget draws them.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import choose
import defects
import origins
import packages
import serve
import warcs
from defects import Answer
from sites import SITES, Site

LARGE = 20_000  # bytes; a member of this size leaves much to cut
COLUMNS = ("url", "warc", "host", "language", "encoding", "http_charset", "meta_charset", "kind",
           "of", "similarity", "status", "note")  # fmt: skip
WGET = ("wget", "--recursive", "--level=1", "--no-parent", "--no-directories", "--delete-after",
        "--no-verbose", "--tries=1", "--timeout=20", "--no-warc-keep-log", "--no-hsts",
        "--user-agent=tsugiki-sample-crawler/1.0", "-e", "robots=on", "-e", "use_proxy=yes")  # fmt: skip


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the WARC files and truth.csv")
    parser.add_argument("--work", type=Path, help="folder for downloads (default: a temporary one)")
    parser.add_argument("--files", type=int, default=9, help="number of WARC files (default: 9)")
    return parser.parse_args()


def _site_answers(work: Path, numbered: tuple[int, Site]) -> dict[str, list[Answer]]:
    """All answers of a site, by host (a mirror has a host of its own)."""
    number, site = numbered
    by_host: dict[str, list[Answer]] = {}
    pages = choose.choose(site, work / "trees" / site.package)
    made = [(page, defects.answer(site, page)) for page in pages]
    everything = [a for page, one in made for a in (one, *defects.copies(site, page, one))]
    everything += defects.oddities(site, [a for _, a in made], number)
    for one in everything:
        by_host.setdefault(one.url.split("/")[2], []).append(one)
    for host, answers in by_host.items():
        answers.append(defects.listing(site, host, answers))
    return by_host


def gather(work: Path) -> dict[str, list[Answer]]:
    """The answers of all hosts."""
    hosts: dict[str, list[Answer]] = {}
    with ProcessPoolExecutor() as pool:
        for site, found in zip(SITES, pool.map(partial(_site_answers, work), enumerate(SITES)), strict=True):
            hosts.update(found)
            print(f"  {site.host}: {sum(len(v) for v in found.values())} URLs", flush=True)
    return hosts


def _crawl_host(folder: Path, port: int, host: str) -> Path:
    base = folder / host
    base.mkdir(parents=True)
    proxy = ("-e", f"http_proxy=http://127.0.0.1:{port}/")
    names = ("--warc-file=crawl", "--directory-prefix=files")  # relative: wget notes them in warcinfo
    command = [*WGET, *proxy, *names, f"http://{host}/"]
    ran = subprocess.run(command, cwd=base, capture_output=True, text=True, check=False)
    if ran.returncode not in (0, 8):  # 8: the server answered an error, as it does for pages that are gone
        raise packages.MakeError(
            f"wget failed on {host} ({ran.returncode}): {ran.stderr[-400:]} Hint: look at {base}."
        )
    return base / "crawl.warc.gz"


def crawl(hosts: dict[str, list[Answer]], folder: Path) -> list[warcs.Record]:
    """Crawl every host with wget through the proxy; the records in a fixed, mixed order."""
    server = serve.serve({a.url: a for answers in hosts.values() for a in answers})
    try:
        with ThreadPoolExecutor(4) as pool:
            files = list(pool.map(partial(_crawl_host, folder, server.server_address[1]), sorted(hosts)))
    finally:
        server.shutdown()
    found = [r for file in files for r in warcs.records(file)]
    first = next(r for r in found if r.kind == b"warcinfo")
    unique = {r.url: r for r in found if r.kind in warcs.WANTED and r.url.startswith("http")}
    return [first, *sorted(unique.values(), key=lambda r: choose.rank(r.url))]


def _truth(record: warcs.Record, known: dict[str, Answer]) -> Answer:
    missing = Answer(record.url, b"", kind="not-found", encoding="ascii", status=404)
    return known.get(record.url, missing)


def _damage(groups: list[list[warcs.Record]], known: dict[str, Answer]) -> None:
    """Break the HTTP part of one record in three of the files, and note it."""
    for number in range(3):
        group = groups[number + 1]
        at = next(i for i, r in enumerate(group) if _sound(known.get(r.url)))
        known[group[at].url] = replace(known[group[at].url], kind="broken-http",
            note=("bad status line", "Content-Length too large", "malformed headers")[number])  # fmt: skip
        group[at] = warcs.broken(group[at], number)


def _sound(answer: Answer | None) -> bool:
    return answer is not None and answer.kind == "page" and not answer.note and answer.language == "ja"


def _last(group: list[warcs.Record], known: dict[str, Answer]) -> None:
    """Move a sound page to the end of the file whose last member is to be cut."""
    at = next(i for i, r in enumerate(group) if _sound(known.get(r.url)) and len(r.raw) > LARGE)
    group.append(group.pop(at))
    url = group[-1].url
    known[url] = replace(known[url], kind="truncated", note="gzip member cut in the middle")


def write(found: list[warcs.Record], hosts: dict[str, list[Answer]], out: Path, files: int) -> None:
    """Write the WARC files and the truth about them, aside, then rename."""
    known = {a.url: a for answers in hosts.values() for a in answers}
    info, rest = found[0], found[1:]
    groups = warcs.regroup(rest, files)
    _damage(groups, known)
    _last(groups[-1], known)
    rows = []
    for number, group in enumerate(groups):
        name = f"sample-{number:03}.warc.gz"
        data = b"".join(r.packed() for r in (info, *group))
        _replace(out / name, warcs.truncated(data) if number == files - 1 else data)
        rows += [_row(name, record, _truth(record, known)) for record in group]
    aside = out / "truth.csv.part"
    with aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([COLUMNS, *sorted(rows)])
    aside.replace(out / "truth.csv")


def _row(name: str, record: warcs.Record, a: Answer) -> tuple[object, ...]:
    return (record.url, name, record.url.split("/")[2], a.language, a.encoding, a.http_charset,
            a.meta_charset, a.kind, a.of, a.similarity, a.status, a.note)  # fmt: skip


def _replace(path: Path, data: bytes) -> None:
    aside = path.with_name(path.name + ".part")
    aside.write_bytes(data)
    aside.replace(path)


def make(out: Path, work: Path, files: int) -> None:
    """Everything, in order."""
    packages.need("apt-get", "dpkg-deb", "wget")
    print("downloading packages", flush=True)
    versions = packages.fetch(sorted({s.package for s in SITES}), work)
    print("choosing pages", flush=True)
    hosts = gather(work)
    print(f"crawling {len(hosts)} hosts", flush=True)
    shutil.rmtree(work / "crawl", ignore_errors=True)
    found = crawl(hosts, work / "crawl")
    out.mkdir(parents=True, exist_ok=True)
    write(found, hosts, out, files)
    origins.write(out, versions)
    size = sum(f.stat().st_size for f in out.glob("*.warc.gz"))
    print(f"wrote {len(found)} records, {size / 1e6:.2f} MB")


def main() -> int:
    """Make the crawl; a failure is one line with a hint."""
    options = arguments()
    try:
        if options.work:
            make(options.out, options.work.resolve(), options.files)
        else:
            with tempfile.TemporaryDirectory() as work:
                make(options.out, Path(work), options.files)
    except packages.MakeError as error:
        print(f"make_crawl: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
