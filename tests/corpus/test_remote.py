"""Addresses of every kind, against files, a web server and an S3 server on loopback."""

import functools
import gzip
import re
import threading
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from urllib.parse import parse_qs, unquote, urlsplit

import fsspec
import pytest

from tsugiki.corpus.remote import (
    RemoteFile,
    check_names,
    expand,
    filesystem,
    join,
    local_copy,
    name_of,
    open_file,
    read_listing,
    read_range,
    size_of,
)
from tsugiki.corpus.transfer import Policy, Transfer
from tsugiki.corpus.transfer_answers import GaveUpError, HttpStatusError
from tsugiki.errors import DependencyError, InputError


@pytest.fixture
def transfer():
    with Transfer(Policy(attempts=2, first_wait_seconds=0.01, timeout_seconds=5)) as transfer:
        yield transfer


def serve(handler):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=lambda: server.serve_forever(0.01), daemon=True).start()
    return server


@pytest.fixture
def web(tmp_path):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    root = tmp_path / "web"
    root.mkdir()
    server = serve(functools.partial(Quiet, directory=root))
    yield root, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


class S3(BaseHTTPRequestHandler):
    """Enough of Amazon's protocol to read: HEAD and GET of objects with ranges, ListObjectsV2."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes
    objects = MappingProxyType(
        {
            "crawl/a-1.warc.gz": b"first" * 1000,
            "crawl/a-2.warc.gz": b"second" * 1000,
            "other/b.txt": b"x",
        }
    )

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query:
            self.listing(query.get("prefix", [""])[0], query.get("delimiter", [""])[0])
        else:
            self.answer(body=True)

    def answer(self, *, body):
        bucket, _, key = unquote(urlsplit(self.path).path).lstrip("/").partition("/")
        data = self.objects.get(key) if key else b""
        if bucket != "bucket" or data is None:
            return self.send(404, b"", body=body)
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span is None:
            return self.send(200, data, body=body)
        first, last = int(span[1]), min(int(span[2] or len(data) - 1), len(data) - 1)
        range_ = f"bytes {first}-{last}/{len(data)}"
        return self.send(206, data[first : last + 1], {"Content-Range": range_}, body=body)

    def listing(self, prefix, delimiter):
        keys = [key for key in self.objects if key.startswith(prefix)]
        folders = {
            prefix + key[len(prefix) :].partition(delimiter)[0] + delimiter
            for key in keys
            if delimiter and delimiter in key[len(prefix) :]
        }
        keys = [key for key in keys if not any(key.startswith(folder) for folder in folders)]
        rows = "".join(
            f"<Contents><Key>{key}</Key><Size>{len(self.objects[key])}</Size>"
            '<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>"e"</ETag></Contents>'
            for key in sorted(keys)
        )
        rows += "".join(
            f"<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>" for folder in sorted(folders)
        )
        text = (
            '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>bucket</Name><Prefix>{prefix}</Prefix><KeyCount>{len(keys)}</KeyCount>"
            f"<IsTruncated>false</IsTruncated>{rows}</ListBucketResult>"
        )
        self.send(200, text.encode(), {"Content-Type": "application/xml"}, body=True)

    def send(self, status, data, headers=(), *, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


@pytest.fixture
def bucket(monkeypatch):
    """An address below which the objects of `S3` lie."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server = serve(S3)
    yield f"?scheme=http&region=us-east-1&endpoint_override=127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def names(files):
    return [file.name for file in files]


def test_local_paths_and_globs_are_sorted_by_name_with_sizes(tmp_path, transfer):
    for folder, name in (("b", "one.warc"), ("a", "two.warc"), ("a", "[odd].warc")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_bytes(b"12345")
    files = expand(str(tmp_path / "**" / "*.warc"), transfer)
    assert names(files) == ["[odd].warc", "one.warc", "two.warc"]
    assert {file.bytes for file in files} == {5}
    assert names(expand(str(tmp_path / "a" / "[odd].warc"), transfer)) == ["[odd].warc"]
    with pytest.raises(InputError, match="stands for no file"):
        expand(str(tmp_path / "*.nothing"), transfer)


def test_two_files_of_one_name_are_refused():
    files = [RemoteFile("https://a.test/x/p.warc.gz"), RemoteFile("https://b.test/p.warc.gz")]
    with pytest.raises(InputError, match=r"two files are named p\.warc\.gz"):
        check_names(files)
    assert check_names([files[0], files[0]]) == [files[0]]


def test_web_address_is_asked_for_its_size(web, transfer):
    root, url = web
    (root / "a b.warc.gz").write_bytes(b"1234567")
    assert expand(f"{url}a%20b.warc.gz", transfer) == [RemoteFile(f"{url}a%20b.warc.gz", 7)]
    with pytest.raises(HttpStatusError, match="status 404"):
        expand(f"{url}missing.warc.gz", transfer)


def test_listing_on_the_web_is_relative_to_its_server(web, transfer):
    root, url = web
    folder = root / "mirror" / "crawl-data" / "CC-MAIN-2026-47"
    folder.mkdir(parents=True)
    lines = [
        "crawl-data/CC-MAIN-2026-47/segments/1/warc/CC-MAIN-1-00001.warc.gz",
        "",
        "cc-index/part-0.parquet",
    ]
    (folder / "warc.paths.gz").write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    found = expand(f"{url}mirror/crawl-data/CC-MAIN-2026-47/warc.paths.gz", transfer)
    assert [file.address for file in found] == [f"{url}mirror/{lines[0]}", f"{url}mirror/{lines[2]}"]


def test_listing_at_hand_is_relative_to_common_crawl_or_to_itself(tmp_path, transfer):
    path = tmp_path / "warc.paths"
    path.write_text(
        "crawl-data/X/a.warc.gz\n# no file\nhttps://b.test/b.warc.gz\n/abs/c.warc.gz\nsub/d.warc.gz\n"
    )
    assert read_listing(str(path), transfer) == [
        "https://data.commoncrawl.org/crawl-data/X/a.warc.gz",
        "https://b.test/b.warc.gz",
        "/abs/c.warc.gz",
        f"{tmp_path}/sub/d.warc.gz",
    ]
    assert read_listing(str(path), transfer, "s3://mirror/")[0] == "s3://mirror/crawl-data/X/a.warc.gz"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff\xfe\x00", "not UTF-8"),
        (gzip.compress(b"a/b.warc.gz\n" * 1000, mtime=0)[:-9], "damaged gzip"),
        (b"../../etc/passwd", "is no path below"),
        (b"a/\x1b[2J.warc.gz", "is no path below"),
        (b"folder/\\x.gz", "does not end in a file's name"),
        (b"\n\n", "stands for no file"),
    ],
)
def test_broken_listing_is_refused(tmp_path, transfer, data, words):
    (tmp_path / "warc.paths.gz").write_bytes(data)
    with pytest.raises(InputError, match=words):
        expand(str(tmp_path / "warc.paths.gz"), transfer)


@pytest.mark.parametrize("name", ["", "..", "a%2Fb", "a%00b", "%2E%2E", "a%5Cb"])
def test_names_that_would_leave_the_folder_are_refused(name):
    with pytest.raises(InputError, match="file's name"):
        name_of(f"https://host.test/dir/{name}")


def test_join_stays_below_the_base():
    assert join("https://h/", "a/b") == "https://h/a/b" == join("https://h", "a/b")
    for path in ("/a", "a/../b", "https://x/y", "a b"):
        with pytest.raises(InputError):
            join("https://h/", path)


def test_local_copy_brings_the_file_and_takes_it_away(web, transfer, tmp_path):
    root, url = web
    (root / "x.warc.gz").write_bytes(b"content")
    with local_copy(f"{url}x.warc.gz", tmp_path / "work", transfer) as path:
        assert (path.name, path.read_bytes()) == ("x.warc.gz", b"content")
    assert list((tmp_path / "work").iterdir()) == []
    with pytest.raises(ZeroDivisionError), local_copy(f"{url}x.warc.gz", tmp_path / "work", transfer):
        raise ZeroDivisionError
    assert list((tmp_path / "work").iterdir()) == []


def test_local_copy_of_a_local_file_is_the_file_itself_and_stays(tmp_path, transfer):
    (tmp_path / "x.warc").write_bytes(b"mine")
    with local_copy(str(tmp_path / "x.warc"), tmp_path / "work", transfer) as path:
        assert path == tmp_path / "x.warc"
    assert path.read_bytes() == b"mine"


def test_local_copy_left_by_a_killed_worker_is_used_if_whole(web, transfer, tmp_path):
    root, url = web
    (root / "x.warc.gz").write_bytes(b"content")
    (tmp_path / "x.warc.gz").write_bytes(b"CONTENT")  # as long: taken for what it is
    with local_copy(f"{url}x.warc.gz", tmp_path, transfer) as path:
        assert path.read_bytes() == b"CONTENT"
    (tmp_path / "x.warc.gz").write_bytes(b"cont")
    with local_copy(f"{url}x.warc.gz", tmp_path, transfer) as path:
        assert path.read_bytes() == b"content"


@pytest.fixture
def memory():
    store = fsspec.filesystem("memory")
    for name in ("one.warc.gz", "two.warc.gz"):
        store.pipe_file(f"/crawl/{name}", name.encode() * 100)
    yield "memory://crawl/"
    store.rm("/crawl", recursive=True)


def check_store(address, suffix, transfer, tmp_path, first, data):
    """Globs, sizes, ranges, reading and copies of an object store."""
    files = expand(address + "*.warc.gz" + suffix, transfer)
    assert len(files) == 2
    assert files[0].name == first
    assert files[0].bytes == len(data)
    one = files[0].address
    assert expand(one, transfer) == files[:1]
    assert size_of(one, transfer) == len(data)
    assert read_range(one, 3, 20, transfer) == data[3:23]
    with open_file(one, transfer) as file:
        file.seek(-10, 2)
        assert file.read() == data[-10:]
    with pytest.raises(HttpStatusError) as caught:
        read_range(one, len(data) - 5, 10, transfer)
    assert caught.value.status == 416
    with local_copy(one, tmp_path, transfer) as path:
        assert path.name == first
        assert path.read_bytes() == data
    assert not path.exists()
    with pytest.raises(HttpStatusError) as caught:
        read_range(one.replace(first, "missing.gz"), 0, 10, transfer)
    assert caught.value.status == 404


def test_fsspec_store_is_read_like_any_other(memory, transfer, tmp_path):
    check_store(memory, "", transfer, tmp_path, "one.warc.gz", b"one.warc.gz" * 100)


def test_fsspec_address_of_local_files_keeps_its_absolute_path(transfer, tmp_path):
    for name in ("one.warc.gz", "two.warc.gz"):
        (tmp_path / name).write_bytes(name.encode() * 100)
    check_store(f"file://{tmp_path}/", "", transfer, tmp_path / "work", "one.warc.gz", b"one.warc.gz" * 100)


def test_s3_is_read_without_a_package_beside_pyarrow(bucket, transfer, tmp_path):
    data = S3.objects["crawl/a-1.warc.gz"]
    check_store("s3://bucket/crawl/", bucket, transfer, tmp_path, "a-1.warc.gz", data)


def test_missing_package_and_unknown_scheme_are_named(transfer):
    with pytest.raises(DependencyError, match="dropbox"):
        filesystem("dropbox://x/y")
    with pytest.raises(InputError, match="nonsense:// addresses are unknown"):
        expand("nonsense://x/y", transfer)


def test_server_that_is_gone_is_an_error_with_the_address(transfer):
    with pytest.raises(GaveUpError, match=r"127\.0\.0\.1:9/x\.warc\.gz"):
        expand("http://127.0.0.1:9/x.warc.gz", transfer)
