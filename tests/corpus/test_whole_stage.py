"""Every part of the stage, on real files and servers: lists, items, earlier corpora, other languages."""

import functools
import hashlib
import http.server
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tsugiki.artifacts.contract import Inputs, open_workspace
from tsugiki.artifacts.documents import iterate_documents
from tsugiki.corpus import stage
from tsugiki.corpus.stage import Config
from tsugiki.errors import DataError, InputError

LANGUAGES = Path(stage.__file__).parents[1] / "languages"


def execute(root, files=(), inputs=(), **options):
    config = Config.model_validate({"source": "crawl", "language": "ja", **options})
    out = open_workspace(root)
    try:
        given = {"crawl": tuple(files), **dict(inputs)} if files else dict(inputs)
        return stage.run(config, Inputs(given), out)
    finally:
        out.metrics.close()
        for handler in out.log.handlers:
            handler.close()


def contents(root):
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for part in ("documents", "rejected", "hosts.parquet")
        for path in sorted([root / part, *(root / part).rglob("*")])
        if path.is_file()
    }


def reasons_of(root):
    return {row["url"]: row["rejected_by"] for row in iterate_documents(root, part="rejected")}


@pytest.fixture
def write(tmp_path, warc, page):
    """Write a WARC file of (host, text) pages; its path."""

    def write(name, pages):
        records = [
            warc.record(page(text), url=f"http://{host}/{number}")
            for number, (host, text) in enumerate(pages)
        ]
        return warc.file(tmp_path / name, records)

    return write


def test_host_whose_pages_hold_expressions_is_blocked_with_a_sample(tmp_path, write, japanese):
    bad = japanese(3).replace("です。", "エッチです。", 1)
    file = write("a.warc.gz", [("good.jp", japanese(1)), ("bad.jp", japanese(2)), ("bad.jp", bad)])
    outcome = execute(tmp_path / "out", [file])
    assert outcome.counts["documents"] == 1
    assert set(map(tuple, reasons_of(tmp_path / "out").values())) == {("host:ng_share>0.005",)}
    (blocked,) = outcome.facts["host_filter"]["blocked"]
    assert (blocked["host"], blocked["documents"], blocked["ng_documents"]) == ("bad.jp", 2, 1)
    assert {sample["matched"] for sample in blocked["appeal"]} == {"エッチ", None}
    kept = execute(tmp_path / "more", [file], hosts={"minimum_documents": 3})
    assert kept.counts["documents"] == 3


def test_cluster_whose_best_lies_on_a_blocked_host_keeps_the_next(tmp_path, warc, page, japanese):
    texts = [
        japanese(1),
        japanese(1).replace("です。", "です！", 1),
        japanese(2).replace("です。", "エッチです。", 1),
    ]
    hosts, dates = ("good.jp", "bad.jp", "bad.jp"), ("2025", "2026", "2026")
    records = [
        warc.record(page(text), url=f"http://{host}/{i}", date=f"{date}-01-01T00:00:00Z")
        for i, (text, host, date) in enumerate(zip(texts, hosts, dates, strict=True))
    ]
    outcome = execute(tmp_path / "out", [warc.file(tmp_path / "a.warc.gz", records)])
    (kept,) = iterate_documents(tmp_path / "out")
    assert kept["url"] == "http://good.jp/0"
    assert (kept["cluster_size"], kept["weight"]) == (2, 2)
    assert outcome.facts["funnel"][-2:] == [
        {"step": "after near-duplicates", "documents": 2, "characters": None},
        {"step": "after host filter", "documents": 1, "characters": len(kept["text"])},
    ]
    assert reasons_of(tmp_path / "out")["http://bad.jp/1"] == ["near_duplicate", "host:ng_share>0.005"]


def test_all_hosts_blocked_is_a_data_error_that_says_so(tmp_path, write, japanese):
    file = write("a.warc.gz", [("bad.jp", japanese(3).replace("です。", "エッチです。", 1))])
    with pytest.raises(DataError, match=r"every host is blocked, by host:ng_share>0.005 \(1 hosts\)"):
        execute(tmp_path / "out", [file])


def test_block_lists_and_excluded_domains_reject_by_url(tmp_path, write, japanese):
    lists = tmp_path / "blacklists"
    (lists / "adult").mkdir(parents=True)
    (lists / "adult" / "domains").write_text("adult.example.jp\n")
    pages = [
        ("www.adult.example.jp", japanese(1)),
        ("ja.wikipedia.org", japanese(2)),
        ("fine.jp", japanese(3)),
    ]
    execute(
        tmp_path / "out",
        [write("a.warc.gz", pages)],
        {"lists": (lists,)},
        hosts={"lists": "lists"},
    )
    assert sorted(reasons_of(tmp_path / "out").values()) == [["host:excluded"], ["url:adult"]]


def test_document_with_a_benchmark_item_is_rejected_and_the_item_named(tmp_path, write, japanese):
    question = "次の文章を読んで、この装置の電源を入れる手順として正しいものを選びなさい。"
    items = tmp_path / "items.jsonl"
    items.write_text(json.dumps({"id": "q7", "question": question}, ensure_ascii=False) + "\n")
    spaced = " ".join(question[i : i + 9] for i in range(0, len(question), 9))
    hidden = japanese(1).replace("です。", f"です。{spaced}", 1)
    file = write("a.warc.gz", [("a.jp", hidden), ("b.jp", japanese(2))])
    given = {"items": (items,)}
    outcome = execute(tmp_path / "out", [file], given, decontaminate={"items": ["items"]})
    assert reasons_of(tmp_path / "out") == {"http://a.jp/0": ["contaminated"]}
    assert outcome.facts["contamination"]["hits"] == [{"item": "items.jsonl#q7", "documents": 1}]
    counted = {"items": ["items"], "reject": False}
    assert execute(tmp_path / "two", [file], given, decontaminate=counted).counts["documents"] == 2


def test_later_corpus_leaves_out_what_an_earlier_one_holds(tmp_path, write, japanese):
    old = write("old.warc.gz", [("a.jp", japanese(1)), ("a.jp", japanese(2))])
    execute(tmp_path / "old", [old], near_duplicates={"index": True})
    shutil.rmtree(tmp_path / "old" / "work")
    copy = japanese(1).replace("です。", "です！", 1)
    new = write("new.warc.gz", [("b.jp", copy), ("b.jp", japanese(3))])
    given = {"earlier": (tmp_path / "old",)}
    outcome = execute(tmp_path / "new", [new], given, near_duplicates={"against": ["earlier"]})
    known = {row["url"]: row["id"] for row in iterate_documents(tmp_path / "old")}
    (rejected,) = iterate_documents(tmp_path / "new", part="rejected")
    assert (rejected["rejected_by"], rejected["cluster"]) == (["near_duplicate"], known["http://a.jp/0"])
    assert outcome.facts["near_duplicates"]["with_older"] == 1
    with pytest.raises(InputError, match="rows = 20 where this run has 10"):
        execute(tmp_path / "x", [new], given, near_duplicates={"against": ["earlier"], "rows": 10})


def test_verified_near_duplicates_are_joined_only_above_the_threshold(tmp_path, write, japanese):
    near = japanese(1).replace("です。", "です！", 1)
    file = write("a.warc.gz", [("a.jp", japanese(1)), ("a.jp", near), ("a.jp", japanese(2))])
    loose = execute(tmp_path / "loose", [file], near_duplicates={"verify": 0.8})
    strict = execute(tmp_path / "strict", [file], near_duplicates={"verify": 1.0})
    assert (loose.counts["documents"], strict.counts["documents"]) == (2, 3)
    assert loose.facts["near_duplicates"]["verified"] == {"threshold": 0.8, "pairs": 1, "confirmed": 1}


def test_cleaning_changes_the_text_and_is_counted(tmp_path, write, japanese):
    body = japanese(1) + "\nお問い合わせは taro.yamada@mail.tarou.co.jp までお願いします。"
    outcome = execute(tmp_path / "out", [write("a.warc.gz", [("a.jp", body)])])
    (row,) = iterate_documents(tmp_path / "out")
    assert "taro.yamada" not in row["text"]
    assert outcome.facts["cleaning"]["counts"]["mail"] == 1
    off = execute(tmp_path / "off", [tmp_path / "a.warc.gz"], cleanup={"personal_data": False})
    assert off.facts["cleaning"]["counts"].get("mail") is None


def test_language_that_is_only_a_folder_makes_a_corpus(tmp_path, write, japanese):
    pack = tmp_path / "packs" / "jx"
    shutil.copytree(LANGUAGES / "ja", pack)
    text = (pack / "pack.toml").read_text().replace('code = "ja"', 'code = "jx"')
    (pack / "pack.toml").write_text(text)
    file = write("a.warc.gz", [("a.jp", japanese(1))])
    packs = [str(tmp_path / "packs")]
    assert execute(tmp_path / "out", [file], language="jx", language_packs=packs).counts["documents"] == 1


def test_rule_set_of_the_pack_is_chosen_by_name_and_an_unknown_one_refused(tmp_path, write, japanese):
    file = write("a.warc.gz", [("a.jp", japanese(1))])
    execute(tmp_path / "out", [file], rules="swallow_v2")
    with pytest.raises(InputError, match="swallow_v3"):
        execute(tmp_path / "two", [file], rules="swallow_v3")


def test_files_behind_http_give_the_same_documents_and_are_deleted(tmp_path, write, japanese):
    file = write("a.warc.gz", [("a.jp", japanese(1)), ("b.jp", japanese(2))])
    served = tmp_path / "served" / "crawl-data"
    served.mkdir(parents=True)
    shutil.copy(file, served)
    (tmp_path / "served" / "warc.paths").write_text("crawl-data/a.warc.gz\n")
    handler = functools.partial(QuietHandler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        execute(tmp_path / "web", source=f"{address}/crawl-data/a.warc.gz")
        execute(tmp_path / "listed", source=f"{address}/warc.paths")
        server.shutdown()
    execute(tmp_path / "here", [file])
    assert contents(tmp_path / "web") == contents(tmp_path / "here") == contents(tmp_path / "listed")
    assert not list((tmp_path / "web" / "work").rglob("*.gz"))


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_plan_by_a_measured_sample_scales_to_snapshots(tmp_path, write, japanese):
    write("a.warc.gz", [(f"h{i}.jp", japanese(i)) for i in range(8)])
    command = [sys.executable, "-m", "tsugiki", "corpus", str(tmp_path / "sample"), "--language", "ja"]
    subprocess.run([*command, "--source", str(tmp_path / "a.warc.gz")], check=True, capture_output=True)
    options = {"source": "s3://x/*.warc.gz", "language": "ja"}
    expected = {"sample": str(tmp_path / "sample"), "snapshots": 2}
    found = stage.estimate(Config.model_validate({**options, "expected": expected}), {})
    assert found.counts["documents"] == pytest.approx(2 * 2.64e9)  # every page of this sample is kept
    assert found.facts["core_hours"] > 0
    assert found.disk_bytes > 1e12
    with pytest.raises(InputError, match="no finished corpus"):
        stage.estimate(Config.model_validate({**options, "expected": {"sample": str(tmp_path)}}), {})


@pytest.mark.slow
def test_ray_gives_the_same_bytes_as_this_process(tmp_path, write, japanese):
    """Units, bands, hosts and parts on a local cluster; in another process, as Daft keeps its runner."""
    files = [write(f"{n}.warc.gz", [("a.jp", japanese(n)), ("b.jp", japanese(n % 2))]) for n in range(4)]
    first = execute(tmp_path / "here", files, heldout=0.3)
    code = (
        "import sys, json; from pathlib import Path\n"
        "from tsugiki.artifacts.contract import Inputs, open_workspace\n"
        "from tsugiki.corpus import engine, stage\n"
        "engine.SMALL_DOCUMENTS = 0\n"
        "config = stage.Config(source='crawl', language='ja', engine='ray', workers=2, heldout=0.3)\n"
        "files = tuple(map(Path, sys.argv[2:]))\n"
        "found = stage.run(config, Inputs({'crawl': files}), open_workspace(Path(sys.argv[1])))\n"
        "Path(sys.argv[1], 'facts.json').write_text(json.dumps(found.facts))\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "ray"), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    facts = tmp_path / "ray" / "facts.json"
    assert facts.exists(), done.stderr[-2000:]
    assert contents(tmp_path / "ray") == contents(tmp_path / "here")
    assert json.loads(facts.read_text()) == json.loads(json.dumps(first.facts))
