"""What other thresholds would keep: against a plain count over all documents, and every wrong question."""

import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tsugiki.artifacts.documents import documents_schema, write_documents
from tsugiki.artifacts.identity import identity_of
from tsugiki.artifacts.manifest import Manifest, content_files, write_manifest
from tsugiki.commands.corpus_sweep import sweep as command
from tsugiki.corpus.histograms import Histograms, bin_edges
from tsugiki.corpus.inspection.artifact import open_corpus
from tsugiki.corpus.inspection.quantiles import LEVELS, quantiles
from tsugiki.corpus.inspection.scenarios import (
    parse_setting,
    rule_set_scenario,
    scenarios_of,
    without_each_rule,
)
from tsugiki.corpus.inspection.sweep import sweep
from tsugiki.corpus.rules import rules_of
from tsugiki.errors import InputError
from tsugiki.languages import load_pack

FEATURES = {
    "letters": pa.int64(),
    "hiragana_share": pa.float64(),
    "katakana_share": pa.float64(),
    "sentence_length_mean": pa.float64(),
    "kanji_share": pa.float64(),
}
RULES = ("letters", "hiragana_share", "katakana_share", "sentence_length_mean")


@pytest.fixture
def pack(monkeypatch):
    """The Japanese pack with four of its rules."""
    whole = load_pack("ja")
    small = whole.model_copy(
        update={
            "rules": {name: whole.rules[name] for name in RULES},
            "rule_sets": {"lax": {"letters": whole.rules["letters"]}},
        }
    )
    monkeypatch.setattr("tsugiki.corpus.inspection.artifact.load_pack", lambda *_: small)
    return small


def document(number, rng):
    """A random document with the reasons that the pipeline would store."""
    row = {
        "id": f"{number:04x}",
        "url": f"http://h{number % 5}.example/{number}",
        "text": f"文{number}",
        "cluster_size": 1,
        "rejected_by": [],
        "letters": rng.choice([399, 400, 401, 900, 6000]),
        "hiragana_share": rng.choice([0.1, 0.2, 0.22, 0.3, 0.4]),
        "katakana_share": rng.choice([0.1, 0.2, 0.5, 0.6]),
        "sentence_length_mean": rng.choice([19.0, 20.0, 40.0, 90.0, 91.0]),
        "kanji_share": rng.random(),
    }
    if rng.random() < 0.1:
        row |= dict.fromkeys(FEATURES)
        return {**row, "rejected_by": ["language"]}
    bounds = {"letters": (400, None), "hiragana_share": (0.2, None)}
    bounds |= {"katakana_share": (None, 0.5), "sentence_length_mean": (20, 90)}
    reasons = []
    for name, (low, high) in bounds.items():
        reasons += [f"{name}<{low:g}"] if low is not None and row[name] < low else []
        reasons += [f"{name}>{high:g}"] if high is not None and row[name] > high else []
    if not reasons and rng.random() < 0.2:
        return {**row, "rejected_by": ["near_duplicate"], "cluster_size": 3}
    if not reasons and rng.random() < 0.2:
        row["cluster_size"] = 3
    if rng.random() < 0.1:
        reasons.append("url:adult" if reasons else "cleaned:letters<400")
    return {**row, "rejected_by": reasons}


def write_corpus(root, rows, rules="pack", features=FEATURES, **config):
    schema = documents_schema(features)
    for part, kept in (("documents", True), ("rejected", False)):
        chosen = [row for row in rows if (not row["rejected_by"]) == kept]
        half = len(chosen) // 2 or 1
        for number, start in enumerate(range(0, len(chosen), half)):
            table = pa.Table.from_pylist(chosen[start : start + half], schema=schema)
            write_documents(root / part / f"part-{number:05d}.parquet", table)
    payload = {"kind": "corpus"}
    manifest = Manifest(
        type="documents", kind="corpus", code_version=1, identity=identity_of(payload), payload=payload,
        config={"language": "ja", "rules": rules, "rule_overrides": {}, **config}, files=content_files(root),
        counts={"documents": 1}, facts={}, provenance={},
    )  # fmt: skip
    write_manifest(root, manifest)
    return open_corpus(root)


@pytest.fixture
def rows():
    rng = random.Random(3)
    return [document(number, rng) for number in range(5000)]  # more than one row group of 2,048


@pytest.fixture
def corpus(tmp_path, pack, rows):
    return write_corpus(tmp_path / "ja", rows)


def plainly_kept(rows, limits):
    """Documents and characters kept with other limits: {feature: (min, max)}, spelled out."""
    kept = []
    for row in rows:
        others = [r for r in row["rejected_by"] if r.split("<")[0].split(">")[0] not in FEATURES]
        values = ((row[name], low, high) for name, (low, high) in limits.items())
        fails = any(
            value is not None and ((low is not None and value < low) or (high is not None and value > high))
            for value, low, high in values
        )
        if not others and not fails:
            kept.append(row)
    return len(kept), sum(row["letters"] for row in kept)


LIMITS = {
    "letters": (400, None),
    "hiragana_share": (0.2, None),
    "katakana_share": (None, 0.5),
    "sentence_length_mean": (20, 90),
}


@pytest.mark.parametrize(
    ("asked", "changed"),
    [
        ("hiragana_share=0.2", {}),
        ("hiragana_share=0.1", {"hiragana_share": (0.1, None)}),
        ("hiragana_share=0.25", {"hiragana_share": (0.25, None)}),
        ("hiragana_share<0.25", {"hiragana_share": (0.25, None)}),
        ("hiragana_share=off", {"hiragana_share": (None, None)}),
        ("sentence_length_mean.max=30", {"sentence_length_mean": (20, 30)}),
        ("sentence_length_mean.min=10", {"sentence_length_mean": (10, 90)}),
        ("letters>5000", {"letters": (400, 5000)}),
        ("kanji_share<0.5", {"kanji_share": (0.5, None)}),
    ],
)
def test_sweep_of_one_threshold_counts_as_a_plain_loop(corpus, rows, asked, changed):
    result = sweep(corpus, scenarios_of([parse_setting(asked, corpus)]))
    step = result.steps[0]
    now, then = plainly_kept(rows, LIMITS), plainly_kept(rows, {**LIMITS, **changed})
    assert (result.now.documents, result.now.characters) == now
    assert (step.kept.documents, step.kept.characters) == then
    assert step.kept.documents == now[0] + step.newly_passing.documents - step.newly_rejected.documents
    assert result.stale == 0


def test_sweep_grid_is_the_cross_product(corpus, rows):
    settings = [parse_setting(text, corpus) for text in ("hiragana_share=0.1:0.3:0.1", "letters=100,700")]
    steps = sweep(corpus, scenarios_of(settings, grid=True)).steps
    assert [step.scenario.values for step in steps] == [
        {"hiragana_share": h, "letters": n} for h in (0.1, 0.2, 0.3) for n in (100.0, 700.0)
    ]
    for step in steps:
        limits = {name: (value, None) for name, value in step.scenario.values.items()}
        assert step.kept.documents == plainly_kept(rows, {**LIMITS, **limits})[0]


def test_sweep_marginal_counts_name_documents_that_only_the_rule_rejects(corpus, rows):
    step = sweep(corpus, scenarios_of([parse_setting("hiragana_share=0.2", corpus)])).steps[0]
    assert step.alone.documents == sum(row["rejected_by"] == ["hiragana_share<0.2"] for row in rows)
    assert step.rejected.documents == sum("hiragana_share<0.2" in row["rejected_by"] for row in rows)
    for removed in sweep(corpus, without_each_rule(corpus)).steps:
        reason = removed.scenario.removed[0].reason
        assert removed.newly_passing.documents == sum(row["rejected_by"] == [reason] for row in rows)


def test_sweep_counts_survivors_that_would_go(corpus, rows):
    step = sweep(corpus, scenarios_of([parse_setting("letters=700", corpus)])).steps[0]
    lost = [row for row in rows if not row["rejected_by"] and row["letters"] < 700]
    assert step.clusters == sum(row["cluster_size"] > 1 for row in lost) > 0


def test_sweep_of_whole_rule_sets(corpus, rows):
    steps = sweep(corpus, [rule_set_scenario(name, corpus) for name in ("none", "lax", "pack")]).steps
    assert steps[0].kept.documents == plainly_kept(rows, {})[0]
    assert steps[1].kept.documents == plainly_kept(rows, {"letters": (400, None)})[0]
    assert (steps[2].newly_passing.documents, steps[2].newly_rejected.documents) == (0, 0)


def test_sweep_knows_the_threshold_of_the_classifier(tmp_path, pack, rows):
    scored = [{**row, "quality": (number % 100) / 100} for number, row in enumerate(rows)]
    for row in scored:
        if row["letters"] is not None and row["quality"] < 0.3:
            row["rejected_by"] = [*row["rejected_by"], "quality<0.3"]
    features = {**FEATURES, "quality": pa.float64()}
    corpus = write_corpus(tmp_path / "ja", scored, features=features, classifier={"minimum": 0.3})
    result = sweep(corpus, scenarios_of([parse_setting("quality=off", corpus)]))
    assert result.stale == 0
    alone = sum(row["rejected_by"] == ["quality<0.3"] for row in scored)
    assert result.steps[0].newly_passing.documents == alone > 0
    assert not any(cut.feature == "quality" for cut in rule_set_scenario("none", corpus).removed)


def test_sweep_samples_are_the_nearest_to_the_threshold(corpus, rows):
    step = sweep(corpus, scenarios_of([parse_setting("letters=5000", corpus)]), samples=3).steps[0]
    changed = [row for row in rows if not row["rejected_by"] and row["letters"] < 5000]
    best = sorted((5000 - row["letters"], row["id"]) for row in changed)[:3]
    assert [(one.distance, one.id) for one in step.samples] == best
    found = pq.read_table(step.samples[0].file)["id"][step.samples[0].row].as_py()
    assert found == step.samples[0].id


def test_sweep_notices_rules_that_changed_since(tmp_path, pack, rows):
    corpus = write_corpus(tmp_path / "old", rows, rules="lax")
    assert sweep(corpus, []).stale > 0


def test_sweep_of_a_corpus_without_rules_tries_new_ones(tmp_path, pack, rows):
    kept = [{**row, "rejected_by": []} for row in rows if row["letters"] is not None]
    corpus = write_corpus(tmp_path / "none", kept, rules="none")
    step = sweep(corpus, scenarios_of([parse_setting("letters<400", corpus)])).steps[0]
    assert step.kept.documents == sum(row["letters"] >= 400 for row in kept)


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("hiragana_shar=0.1", 'did you mean "hiragana_share"'),
        ("hiragana_shar", 'did you mean "hiragana_share"'),
        ("sentence_length_mean=10", "sentence_length_mean.min=20 or sentence_length_mean.max=90"),
        ("kanji_share=0.2", "kanji_share<0.1"),
        ("letters=many", "0.1:0.3:0.05"),
        ("letters=nan", "0.1:0.3:0.05"),
        ("letters=", "0.1:0.3:0.05"),
        ("letters=3:1:1", "positive step"),
        ("letters=0:1:0", "positive step"),
        ("letters=0:1e9:1e-3", "positive step"),
        ("=0.1", "hiragana_share=0.15"),
        ("", "hiragana_share=0.15"),
    ],
)
def test_setting_that_makes_no_sense_is_refused_with_a_hint(corpus, asked, hint):
    with pytest.raises(InputError) as caught:
        parse_setting(asked, corpus)
    assert hint in caught.value.hint


def test_swallows_name_of_a_share_means_ours(corpus):
    assert parse_setting("hiragana_fraction=0.15,0.2", corpus) == parse_setting(
        "hiragana_share=0.15,0.2", corpus
    )
    assert parse_setting("hiragana_fraction<0.3", corpus) == parse_setting("hiragana_share<0.3", corpus)


def test_settings_twice_and_grids_without_end_are_refused(corpus):
    one = parse_setting("letters=0:900:1", corpus)
    with pytest.raises(InputError, match="set twice"):
        scenarios_of([one, one])
    with pytest.raises(InputError, match="combinations"):
        scenarios_of([one, parse_setting("hiragana_share=0.1,0.2,0.3", corpus)], grid=True)


def test_quantiles_are_order_statistics_of_each_part(corpus, rows):
    table = quantiles(corpus, parse_setting("kanji_share", corpus))
    values = sorted(row["kanji_share"] for row in rows if not row["rejected_by"])
    assert table.documents["kept"] == len(values)
    assert table.values["kept"] == np.quantile(values, LEVELS, method="inverted_cdf").tolist()


def test_quantiles_of_many_documents_look_at_every_nth(corpus, monkeypatch):
    monkeypatch.setattr("tsugiki.corpus.inspection.quantiles.MOST_VALUES", 1000)
    table = quantiles(corpus, "letters")
    assert table.every == 5
    assert 800 < sum(table.documents.values()) <= 1003


def test_directory_that_is_no_corpus_is_refused_with_its_corpora_named(tmp_path, pack, rows):
    with pytest.raises(InputError, match="no finished corpus"):
        open_corpus(tmp_path)
    write_corpus(tmp_path / "japanese", rows[:60])
    with pytest.raises(InputError) as caught:
        open_corpus(tmp_path)
    assert str(tmp_path / "japanese") in caught.value.hint


def test_damaged_part_is_named(corpus):
    path = corpus.rejected[-1]
    data = path.read_bytes()
    end = len(data) - 16_384  # the footer stays
    path.write_bytes(data[:4] + bytes(end) + data[4 + end :])
    with pytest.raises(InputError, match=path.name):
        sweep(corpus, without_each_rule(corpus))


def test_part_without_a_column_is_named(corpus):
    path = corpus.rejected[-1]
    pq.write_table(pq.read_table(path).drop_columns(["letters"]), path)
    with pytest.raises(InputError, match="no column letters"):
        sweep(corpus, without_each_rule(corpus))


def test_command_prints_tables_and_json_that_agree(corpus, capsys):
    asked = ["hiragana_share=0.1,0.25", "letters"]
    command(corpus.directory, set=asked, samples=1)
    text = capsys.readouterr().out
    command(corpus.directory, set=asked, samples=1, json=True)
    data = json.loads(capsys.readouterr().out)
    assert [step["scenario"] for step in data["steps"]] == ["hiragana_share<0.1", "hiragana_share<0.25"]
    assert f"{data['now']['documents']:,} documents kept" in text
    for step in data["steps"]:
        assert f"{step['kept']['documents']:,}" in text
        assert step["samples"][0]["id"] in text
    assert data["quantiles"][0]["feature"] == "letters"
    command(corpus.directory)
    assert "hiragana_share < 0.2" in capsys.readouterr().out


def test_histograms_of_workers_add_up_and_count_every_document(corpus, pack, rows):
    rules = rules_of(pack)
    whole = Histograms(pack, rules)
    parts = []
    for file in corpus.files:
        table, kept = pq.read_table(file), file.parent.name == "documents"
        whole.add(table, np.full(table.num_rows, kept))
        part = Histograms(pack, rules)
        part.add(table, np.full(table.num_rows, kept))
        parts.append(json.loads(json.dumps(part.state())))
    merged = Histograms(pack, rules)
    for state in reversed(parts):
        merged.merge(Histograms(pack, rules).restored(state))
    assert merged.facts() == whole.facts()
    known = [row for row in rows if row["letters"] is not None]
    for fact in whole.facts():
        name = fact["feature"]
        assert sum(one["documents"] for one in fact["bins"]) == len(known)
        assert sum(one["kept"] for one in fact["bins"]) == sum(not row["rejected_by"] for row in known)
        for one in fact["bins"]:
            inside = [row for row in known if one["from"] <= row[name] < one["to"]]
            assert one["documents"] == len(inside)
        for rule in fact["rules"]:
            reason = f"{name}{rule['sign']}{rule['threshold']:g}"
            assert rule["rejected"] == sum(reason in row["rejected_by"] for row in known)
            assert rule["alone"] == sum(row["rejected_by"] == [reason] for row in known)


def test_histogram_bins_touch_thresholds_and_keep_the_ends(pack):
    rules = [rule for rule in rules_of(pack) if rule.feature == "katakana_share"]
    table = pa.table({"katakana_share": [0.0, 1.0, 1.5, None], "rejected_by": [[], ["x"], ["x"], ["x"]]})
    made = Histograms(pack, rules)
    made.add(table, np.array([True, False, False, False]))
    bins = made.facts()[0]["bins"]
    assert (bins[0]["from"], bins[0]["documents"], bins[0]["kept"]) == (0, 1, 1)
    assert (bins[-1]["from"], bins[-1]["to"], bins[-1]["documents"]) == (1, None, 1)
    assert (bins[-2]["to"], bins[-2]["documents"]) == (1, 1)
    low = Histograms(pack, rules)
    low.add(table.slice(0, 1), np.array([True]))
    assert low.facts()[0]["bins"][-1]["from"] == 0.5


def test_bin_edges_of_counts_are_whole_and_rise(pack):
    edges = bin_edges(pack, "letters")
    assert edges[:8].tolist() == [0, 1, 2, 3, 4, 5, 6, 8]
    assert (np.diff(edges) > 0).all()
    assert (edges == np.round(edges)).all()
    assert bin_edges(pack, "hiragana_share").tolist() == [i / 40 for i in range(41)]
