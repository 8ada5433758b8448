"""Block lists: names, matching, sources."""

import gzip
import io
import pickle
import tarfile
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsugiki.corpus.hosts import sources
from tsugiki.corpus.hosts.filter import UrlFilter, is_excluded
from tsugiki.corpus.hosts.lists import HostLists
from tsugiki.corpus.hosts.names import comparable_host, host_of, registered_domain, suffix_list_version
from tsugiki.errors import DependencyError, InputError
from tsugiki.languages import load_pack


def ut1(root, **categories):
    """Folders in UT1's form: category=(domains, urls, usage)."""
    for name, parts in categories.items():
        (root / name).mkdir(parents=True)
        for part, text in zip(("domains", "urls", "usage"), parts, strict=False):
            if text is not None:
                (root / name / part).write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def lists_of(tmp_path, hosts, **options):
    path = tmp_path / "hosts.txt"
    path.write_text("\n".join(hosts), encoding="utf-8")
    return HostLists.from_directory(path, **options)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://www.Example.COM/a", "www.example.com"),
        ("https://user:secret@example.com:8080/x", "example.com"),
        ("//example.com", "example.com"),
        ("example.com/path", "example.com"),
        ("http://example.com.:80", "example.com"),
        ("http://a..b.com/", "a.b.com"),
        ("http://.a.com/", "a.com"),
        ("http://日本語.jp/", "xn--wgv71a119e.jp"),
        ("http://日本語。jp/", "xn--wgv71a119e.jp"),
        ("http://XN--WGV71A119E.JP/", "xn--wgv71a119e.jp"),
        ("http://ex%61mple.com/", "example.com"),
        ("http://under_score.example.com", "under_score.example.com"),
        ("http://192.168.0.1:81/", "192.168.0.1"),
        ("http://[2001:DB8::1]:443/", "2001:db8::1"),
        ("http://[::1/", "::1"),
        ("http://example.com\\evil", "example.com"),
        ("mailto:someone@example.com", None),
        ("http://", None),
        ("http:///path", None),
        ("", None),
        (None, None),
        (17, None),
    ],
)
def test_host_of_odd_urls_gives_one_comparable_form(url, host):
    assert host_of(url) == host


@given(st.one_of(st.text(), st.text().map(lambda text: f"http://{text}/x"), st.none(), st.integers()))
def test_host_of_any_text_is_ascii_without_raising(url):
    host = host_of(url)
    assert host is None or (host.isascii() or ":" in host)
    if host:
        domain = registered_domain(host)
        assert domain is None or f".{host}".endswith(f".{domain}")


def test_host_of_surrogates_and_very_long_names_never_raises():
    assert host_of("http://\ud800.example.com/").endswith(".example.com")
    long = "http://" + "a" * 300 + ".example.com"
    assert host_of(long) == "a" * 300 + ".example.com"
    assert host_of("http://" + "x." * 100_000 + "example.com").endswith(".x.example.com")
    assert len(host_of("http://" + "é" * 100_000 + ".com")) < 5000


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("a.b.co.jp", "b.co.jp"),
        ("co.jp", None),
        ("jp", None),
        ("www.city.kawasaki.jp", "city.kawasaki.jp"),
        ("a.b.kawasaki.jp", "a.b.kawasaki.jp"),
        ("www.example.github.io", "example.github.io"),
        ("github.io", None),
        ("a.b.unknowntld", "b.unknowntld"),
        ("localhost", None),
        ("192.168.0.1", None),
        ("::1", None),
    ],
)
def test_registered_domain_follows_the_public_suffix_list(host, domain):
    assert registered_domain(host) == domain


def test_suffix_list_is_the_shipped_one_and_never_fetched():
    from tsugiki.corpus.hosts.names import _suffixes

    assert suffix_list_version() >= "2024"
    with pytest.raises(DependencyError, match="public suffix list"):
        _suffixes()[0].update_tld_names(fail_silently=True)


def test_category_of_matches_the_host_and_its_parents_up_to_the_registered_domain(tmp_path):
    lists = lists_of(tmp_path, ["Example.com", "sub.other.co.jp", "co.jp", "github.io", "10.0.0.1"])
    hit = ("http://example.com/", "http://www.example.com/x", "http://a.b.example.com:80", "//EXAMPLE.com.")
    assert [lists.category_of(url) for url in hit] == ["custom"] * 4
    missed = ("http://notexample.com/", "http://example.com.jp/", "http://other.co.jp/", "http://a.co.jp/")
    assert [lists.category_of(url) for url in missed] == [None] * 4
    assert lists.category_of("http://x.sub.other.co.jp/") == "custom"
    assert lists.category_of("http://page.github.io/") is None
    assert lists.category_of("http://10.0.0.1/") == "custom"
    assert lists.category_of("http://2.10.0.0.1/") is None
    assert [lists.category_of(url) for url in (None, "", 3, "http://")] == [None] * 4


def test_listed_public_suffix_blocks_only_where_allowed(tmp_path):
    hosts = ["co.jp", "github.io"]
    assert lists_of(tmp_path, hosts).category_of("http://a.co.jp/") is None
    allowed = lists_of(tmp_path, hosts, suffixes=True)
    assert allowed.category_of("http://a.co.jp/") == "custom"
    assert allowed.category_of("http://page.github.io/") == "custom"
    assert allowed.digest != lists_of(tmp_path, hosts).digest


def test_urls_match_by_host_and_whole_parts_of_the_path(tmp_path):
    ut1(tmp_path, adult=("\n", "www.example.com/~User/\nhost.jp/a/b?x=1\nhttps://bare.net/\n"))
    lists = HostLists.from_directory(tmp_path)
    for url in (
        "http://example.com/~user",
        "http://www.example.com/%7Euser/page.html",
        "https://EXAMPLE.com/~USER?q",
        "http://host.jp/a/b?x=1&y=2",
        "http://deep.bare.net/",
    ):
        assert lists.category_of(url) == "adult", url
    for url in ("http://example.com/", "http://example.com/~user2", "http://host.jp/a/b", "http://t/~user"):
        assert lists.category_of(url) is None, url
    assert lists.counts == {"hosts": 1, "urls": 2, "odd_lines": 0}


def test_short_host_whose_name_stands_in_the_scheme_is_split_right(tmp_path):
    ut1(tmp_path, adult=(None, "t.tt/p\n"))
    assert HostLists.from_directory(tmp_path).category_of("http://t.tt/p/q") == "adult"


def test_default_categories_are_swallows_and_only_black_lists(tmp_path):
    ut1(
        tmp_path,
        blog=("blog.example\n",),
        adult=("adult.example\n", None, "# comment\nDEFAULT_TYPE: black\n"),
        shopping=("shop.example\n", None, "black\n"),
        games=("games.example\n", None, "DEFAULT_TYPE: white\n"),
        manga=("manga.example\n",),
    )
    (tmp_path / "porn").symlink_to("adult")
    lists = HostLists.from_directory(tmp_path)
    assert lists.categories == ("adult", "manga", "shopping")
    assert lists.category_of("http://blog.example/") is None
    named = HostLists.from_directory(tmp_path, ["blog", "games"])
    assert named.category_of("http://blog.example/") == "blog"
    assert named.category_of("http://games.example/") == "games"
    with pytest.raises(InputError, match='no category "adlut"') as error:
        HostLists.from_directory(tmp_path, ["adlut"])
    assert "adult" in error.value.hint


def test_odd_lines_are_understood_or_counted_never_fatal(tmp_path):
    lines = [
        b"# comment",
        b"",
        b"  spaced.example  ",
        b"0.0.0.0 hosts-file.example",
        b"commented.example # why",
        b"*.star.example",
        b".dot.example",
        b"http://scheme.example/",
        b"port.example:8080",
        "日本語.jp".encode(),
        b"\xff\xfe\x00bad",
        b"two words here",
        b"x" * 5000 + b"/",
        b"crlf.example\r",
        b"last.example",
    ]
    ut1(tmp_path, adult=(b"\n".join(lines),))
    lists = HostLists.from_directory(tmp_path)
    for name in ("spaced", "hosts-file", "commented", "star", "dot", "scheme", "port", "crlf", "last"):
        assert lists.category_of(f"http://{name}.example/") == "adult", name
    assert lists.category_of("http://xn--wgv71a119e.jp/") == "adult"
    assert lists.counts["odd_lines"] == 2
    assert all("adult/domains" in warning for warning in lists.warnings)


def test_line_longer_than_a_block_is_dropped_and_the_rest_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_CHUNK", 64)
    lists = lists_of(tmp_path, ["first.example", "y" * 500, "after.example"])
    assert lists.category_of("http://first.example") == lists.category_of("http://after.example") == "custom"
    assert lists.counts == {"hosts": 2, "urls": 0, "odd_lines": 1}


def archive(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                tar.addfile(info)
    return path


def test_archives_give_the_same_lists_as_folders_whatever_their_order(tmp_path):
    content = {"adult": b"a.example\nb.example\n", "dating": b"b.example\nc.example\n"}
    folder = ut1(tmp_path / "folder", **{name: (text,) for name, text in content.items()})
    whole = archive(
        tmp_path / "all.tar.gz", {f"blacklists/{name}/domains": text for name, text in content.items()}
    )
    each = tmp_path / "each"
    each.mkdir()
    for name, text in content.items():
        archive(each / f"{name}.tar.gz", {f"{name}/domains": text, f"{name}/urls": b"u.example/x\n"})
    first = HostLists.from_directory(folder)
    assert first.digest == HostLists.from_directory(whole).digest
    both = HostLists.from_paths([whole, each])
    assert both.digest == HostLists.from_paths([each, whole]).digest != first.digest
    assert both.category_of("http://b.example/") == "adult"  # of several the first by name
    assert both.category_of("http://u.example/x/y") == "adult"


def test_archive_with_links_and_foreign_paths_writes_and_reads_nothing_outside(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret.example\n")
    path = archive(
        tmp_path / "evil.tar.gz",
        {
            "adult/domains": b"a.example\n",
            "../adult/domains": b"up.example\n",
            "/adult/domains": b"root.example\n",
            "dating/domains": (tarfile.SYMTYPE, str(secret)),
            "chat/domains": (tarfile.CHRTYPE, ""),
        },
    )
    before = sorted(tmp_path.rglob("*"))
    lists = HostLists.from_directory(path)
    assert sorted(tmp_path.rglob("*")) == before
    assert lists.counts == {"hosts": 1, "urls": 0, "odd_lines": 4}
    assert lists.category_of("http://secret.example/") is None


def test_archive_bomb_cut_archive_and_empty_ones_are_input_errors(tmp_path, monkeypatch):
    good = archive(tmp_path / "good.tar.gz", {"adult/domains": b"a.example\n" * 5000})
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(good.read_bytes()[:60])
    with pytest.raises(InputError, match="damaged"):
        HostLists.from_directory(cut)
    with pytest.raises(InputError, match="holds no block list"):
        HostLists.from_directory(archive(tmp_path / "none.tar.gz", {"README": b"x"}))
    noise = tmp_path / "noise.tar.gz"
    noise.write_bytes(gzip.compress(b"\xff" * 3000, mtime=0))
    with pytest.raises(InputError, match="damaged"):
        HostLists.from_directory(noise)
    monkeypatch.setattr(sources, "MAX_UNPACKED_BYTES", 1000)
    with pytest.raises(InputError, match="unpacks to more than"):
        HostLists.from_directory(good)


def test_missing_and_empty_sources_are_input_errors(tmp_path):
    with pytest.raises(InputError, match="no block list"):
        HostLists.from_directory(tmp_path / "nothing")
    with pytest.raises(InputError, match="holds no block list"):
        HostLists.from_directory(tmp_path)
    with pytest.raises(InputError, match="nothing of the block lists is used"):
        HostLists.from_directory(ut1(tmp_path, blog=("a.example",)))


def test_lists_survive_pickle_and_save_and_keep_their_digest(tmp_path):
    ut1(tmp_path / "lists", adult=("a.example\n", "u.example/x\n"), dating=("d.example\n",))
    lists = HostLists.from_directory(tmp_path / "lists")
    lists.category_of("http://a.example/")
    lists.save(tmp_path / "lists.safetensors")
    for other in (pickle.loads(pickle.dumps(lists)), HostLists.load(tmp_path / "lists.safetensors")):  # noqa: S301
        assert other.digest == lists.digest
        assert other.category_of("http://x.a.example/") == "adult"
        assert other.category_of("http://d.example/") == "dating"
        assert other.category_of("http://u.example/x") == "adult"
    lists.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "lists.safetensors").read_bytes()


@pytest.mark.parametrize("damage", ["empty", "noise", "cut", "foreign", "number", "order"])
def test_load_of_a_damaged_file_is_an_input_error(tmp_path, damage):
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    path = tmp_path / "lists.safetensors"
    lists_of(tmp_path, ["a.example", "b.example"]).save(path)
    with safe_open(path, "numpy") as file:
        facts = file.metadata()
    arrays = load_file(path)
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "noise":
        path.write_bytes(bytes(range(256)))
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-4])
    elif damage == "foreign":
        save_file({"weights": np.zeros(3, np.float32)}, path)
    elif damage == "number":
        save_file({**arrays, "host_categories": arrays["host_categories"] + np.uint8(9)}, path, facts)
    else:
        save_file({**arrays, "host_keys": arrays["host_keys"][::-1].copy()}, path, facts)
    with pytest.raises(InputError, match="host lists"):
        HostLists.load(path)


def test_half_a_million_entries_take_nine_bytes_each_and_answer_fast(tmp_path):
    names = [f"h{i}.example{i % 7}.com" for i in range(500_000)]
    lists = lists_of(tmp_path, names)
    assert lists.host_keys.size == len(names)
    assert lists.host_keys.nbytes + lists.host_categories.nbytes == 9 * len(names)
    urls = [f"http://www.h{i % 2000}.example{i % 7}.com/page/{i}.html" for i in range(50_000)]
    begin = time.perf_counter()
    found = [lists.category_of(url) for url in urls]
    seconds = time.perf_counter() - begin
    assert len(urls) / seconds > 30_000  # 500,000 a second alone on a core; the margin is for a busy machine
    oracle = set(names)
    assert [bool(answer) for answer in found] == [
        url.split("/")[2].removeprefix("www.") in oracle for url in urls
    ]


@given(st.lists(st.from_regex(r"[a-c]{1,2}(\.[a-c]{1,2}){0,3}", fullmatch=True), min_size=1), st.data())
def test_look_up_equals_a_plain_set_of_names(tmp_path_factory, listed, data):
    lists = lists_of(tmp_path_factory.mktemp("lists"), [f"{name}.com" for name in listed])
    host = data.draw(st.from_regex(r"[a-c]{1,2}(\.[a-c]{1,2}){0,3}", fullmatch=True)) + ".com"
    labels = host.split(".")
    parents = {".".join(labels[i:]) for i in range(len(labels) - 1)}
    expected = "custom" if parents & {f"{name}.com" for name in listed} else None
    assert lists.category_of(f"http://{host}/") == expected


def test_excluded_domains_count_whole_labels_and_come_from_the_pack(tmp_path):
    excluded = load_pack("ja").hosts.excluded
    assert excluded == ("wikipedia.org", "5ch.net")
    hosts = ("ja.wikipedia.org", "wikipedia.org", "notwikipedia.org", "wikipedia.org.jp", None)
    assert [is_excluded(comparable_host(host), excluded) for host in hosts] == [
        True,
        True,
        False,
        False,
        False,
    ]
    lists = lists_of(tmp_path, ["wikipedia.org", "bad.example"])
    both = UrlFilter(excluded, lists)
    assert both.reasons("https://ja.m.wikipedia.org/wiki/x") == ["host:excluded", "url:custom"]
    assert both.reasons("http://egg.5ch.net/") == ["host:excluded"]
    assert both.reasons("http://www.bad.example/") == ["url:custom"]
    assert both.reasons("http://good.example/") == both.reasons(None) == []
    assert UrlFilter().reasons("http://ja.wikipedia.org/") == []
    assert pickle.loads(pickle.dumps(both)).digest == both.digest != UrlFilter(excluded).digest  # noqa: S301
