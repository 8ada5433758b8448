from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import pytest
import torch
from pydantic import ValidationError

from tsugiki.artifacts.contract import ArtifactType, Forecast
from tsugiki.artifacts.files import read_json
from tsugiki.artifacts.manifest import content_files
from tsugiki.errors import DataError, InputError, StageError
from tsugiki.models import directory as directory_module
from tsugiki.models.config import preset
from tsugiki.models.directory import check_parity, read_config, vocabulary_size
from tsugiki.models.tokenizer import load_tokenizer
from tsugiki.models.weights import read_tensors
from tsugiki.vocabulary import proof, rows, stage


@pytest.fixture(scope="module")
def finished(corpora, base, tmp_path_factory):
    """One run of the stage, and what it returned."""
    from tsugiki.artifacts.contract import Inputs, open_workspace

    root = tmp_path_factory.mktemp("finished")
    out = open_workspace(root)
    config = stage.Config(model="base", corpus="japanese", add=200, measure=("english",))
    inputs = Inputs({"base": (base,), **{name: (path,) for name, path in corpora.items()}})
    outcome = stage.run(config, inputs, out)
    out.metrics.close()
    return outcome, root


def test_run_on_json_lines_gives_the_pieces_of_the_same_documents(finished, corpora, base, tmp_path):
    from tsugiki.artifacts.contract import Inputs, open_workspace
    from tsugiki.artifacts.documents import iterate_documents, write_jsonl

    columns = ["id", "text", "split"]
    for name, directory in corpora.items():
        write_jsonl(tmp_path / f"{name}.jsonl.gz", iterate_documents(directory, columns=columns))
    out = open_workspace(tmp_path / "out")
    config = stage.Config(model="base", corpus="japanese", add=200, measure=("english",))
    plain = {name: (tmp_path / f"{name}.jsonl.gz",) for name in corpora}
    outcome = stage.run(config, Inputs({"base": (base,), **plain}), out)
    out.metrics.close()
    expected, _ = finished
    assert outcome.facts["tokenizer_sha256"] == expected.facts["tokenizer_sha256"]
    assert outcome.counts == expected.counts


def test_run_facts_are_what_the_report_reads(finished):
    outcome, root = finished
    facts = outcome.facts
    assert (facts["added"], facts["base_size"], facts["size"], facts["padding_rows"]) == (200, 360, 560, 0)
    assert facts["unreachable"] == 0
    assert facts["round_trip"] == {"documents": 136, "failures": 0, "altered_by_base": 0}
    assert facts["new_rows"] == [360, 560]
    assert (facts["method"], facts["initialise"]) == ("continued", "subtoken-mean")
    assert [point["pieces"] for point in facts["curve"]] == [0, 32, 56, 104, 200]
    assert facts["curve"][0]["tokens"] > facts["curve"][1]["tokens"] > facts["curve"][-1]["tokens"]
    assert facts["curve"][-1]["tokens"] == outcome.counts["tokens_after"]
    assert "sentencepiece" not in facts
    assert facts["old_text_parity"]["max_abs_logit_difference"] == 0.0
    assert facts["old_text_parity"]["texts"] > 0
    assert (
        facts["transformers_parity"]["max_abs_difference"]
        <= facts["transformers_parity"]["tolerance"]
        == 1e-4
    )
    assert len(facts["new_row_norms"]["quantiles"]) == len(facts["new_row_norms"]["old_quantiles"]) == 5
    assert (
        facts["coverage"]["characters_single_token_before"]
        < facts["coverage"]["characters_single_token_after"]
    )
    assert 0 <= facts["unused_share"] < 1
    assert facts["model_config"]["vocab_size"] == 560
    assert len(facts["examples"]) == 40
    assert facts["examples"][0]["count"] >= facts["examples"][-1]["count"]
    json.dumps(dict(facts), allow_nan=False)
    assert vocabulary_size(root) == 560
    assert check_parity(root, torch.arange(500, 560)[None]).max_abs_difference <= 1e-4


def test_run_savings_are_by_host_on_the_held_out_split_and_spare_english(finished):
    outcome, _ = finished
    savings = outcome.facts["savings"]
    assert [(row["dataset"], row["domain"], row["documents"]) for row in savings] == [
        ("english", "one.en.example", 4),
        ("english", "two.en.example", 4),
        ("japanese", "one.ja.example", 4),
        ("japanese", "two.ja.example", 4),
    ]
    for row in savings:
        if row["language"] == "en":
            assert row["tokens_before"] == row["tokens_after"]
        else:
            assert row["tokens_after"] < 0.5 * row["tokens_before"]
            assert row["characters"] < row["bytes"]
    japanese = [row for row in savings if row["dataset"] == "japanese"]
    assert outcome.counts["tokens_after"] == sum(row["tokens_after"] for row in japanese)
    assert outcome.counts["measured_characters"] == sum(row["characters"] for row in japanese)


def test_run_savings_equal_counting_with_transformers(finished, corpora, base):
    from transformers import AutoTokenizer

    from tsugiki.artifacts.documents import iterate_documents

    outcome, root = finished
    texts = [row["text"] for row in iterate_documents(corpora["japanese"], split="heldout")]
    for directory, count in ((base, "tokens_before"), (root, "tokens_after")):
        peer = AutoTokenizer.from_pretrained(directory)
        assert (
            sum(len(peer(text, add_special_tokens=False)["input_ids"]) for text in texts)
            == outcome.counts[count]
        )


def test_run_on_a_sample_says_how_many_documents_there_are(extend, base):
    outcome, _ = extend(base, add=40, sample=9_000)
    found = outcome.facts["round_trip"]
    assert 0 < found["documents"] < found["all_documents"] == 68


def test_run_twice_and_over_remains_of_another_run_gives_the_same_bytes(finished, extend, base, tmp_path):
    _, root = finished
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "model.safetensors.partial").write_bytes(b"half")
    (tmp_path / "again" / "config.json").write_text("{}")
    outcome, again = extend(base, tmp_path / "again", measure=("english",))
    files = {name: entry for name, entry in content_files(again).items() if not name.endswith(".partial")}
    assert files == content_files(root)
    assert outcome == finished[0]


@pytest.mark.slow
def test_run_killed_at_any_moment_then_repeated_gives_the_same_bytes(finished, corpora, base, tmp_path):
    """`kill -9` after growing delays, then one undisturbed run over what was left behind."""
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from tsugiki.artifacts.contract import Inputs, open_workspace\n"
        "from tsugiki.vocabulary import stage\n"
        "root, base, ja, en = map(Path, sys.argv[1:])\n"
        "config = stage.Config(model='base', corpus='japanese', add=200, measure=('english',))\n"
        "print('started', flush=True)\n"
        "inputs = Inputs({'base': (base,), 'japanese': (ja,), 'english': (en,)})\n"
        "stage.run(config, inputs, open_workspace(root))\n"
    )
    paths = [tmp_path, base, corpora["japanese"], corpora["english"]]
    command = [sys.executable, "-c", script, *map(str, paths)]
    for delay in (1.0, 2.5, 4.0):
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    subprocess.run(command, check=True, capture_output=True)
    assert content_files(tmp_path) == content_files(finished[1])


def test_run_on_a_mixture_with_a_shared_expert_changes_the_rows_only(extend, make_base):
    sparse = make_base(family="qwen2_moe", moe=preset("qwen2-moe-nano").moe)
    outcome, root = extend(sparse)
    assert outcome.facts["old_text_parity"]["max_abs_logit_difference"] == 0.0
    assert outcome.facts["transformers_parity"]["max_abs_difference"] <= 1e-5
    before, after = (dict(read_tensors(one / "model.safetensors")) for one in (sparse, root))
    assert before.keys() == after.keys()
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed == {"model.embed_tokens.weight", "lm_head.weight"}
    assert after["model.embed_tokens.weight"].shape == (560, 64)


def test_run_rounds_up_to_the_multiple_with_real_pieces(extend, base):
    outcome, root = extend(base, add=101, multiple_of=16)
    assert vocabulary_size(root) == 464  # 360 + 101 = 461 -> 29 · 16
    assert outcome.facts["added"] == 104
    assert outcome.facts["padding_rows"] == 0
    assert load_tokenizer(root).size == 464


def test_run_fills_the_padding_rows_of_the_base(extend, make_base):
    outcome, root = extend(make_base(rows=368), add=100)
    assert (outcome.facts["base_size"], outcome.facts["size"], outcome.facts["added"]) == (360, 472, 112)
    assert read_config(root).vocabulary_size == 472


@pytest.mark.parametrize(("share", "added"), [(0.9, 32), (1e-6, 200)])
def test_run_curve_chooses_the_size(extend, base, share, added):
    outcome, root = extend(base, doubling_saves=share)
    assert outcome.facts["added"] == added
    assert vocabulary_size(root) == 360 + added
    assert len(outcome.facts["curve"]) == 5


def test_run_appended_pieces_are_reached_and_save(extend, base):
    outcome, root = extend(base, method="append")
    assert (outcome.facts["method"], outcome.facts["added"], outcome.facts["unreachable"]) == (
        "append",
        200,
        0,
    )
    assert outcome.counts["tokens_after"] < 0.6 * outcome.counts["tokens_before"]
    assert vocabulary_size(root) == 560


def test_run_frequency_weighted_rows_are_another_mean(extend, base, finished):
    outcome, root = extend(base, initialise="frequency-weighted-mean", measure=("english",))
    assert outcome.counts == finished[0].counts
    ours, plain = (dict(read_tensors(one / "model.safetensors")) for one in (root, finished[1]))
    for name, tensor in ours.items():
        assert torch.equal(tensor[:360], plain[name][:360])
    new, mean = ours["model.embed_tokens.weight"][360:], plain["model.embed_tokens.weight"][360:]
    assert not torch.equal(new, mean)
    assert torch.nn.functional.cosine_similarity(new, mean).median() > 0.5


@pytest.mark.parametrize("tied", [False, True])
def test_run_distilled_rows_are_recorded_with_what_they_gained(extend, make_base, tied):
    wanted = {"snippets": 6, "tokens": 24, "learning_rate": 3e-3}
    outcome, _ = extend(
        make_base(tied_embeddings=tied), add=40, initialise="distillation", distillation=wanted
    )
    distilled = outcome.facts["distillation"]
    assert 0 < distilled["snippets"] <= 6 * outcome.facts["added"]
    assert distilled["input"]["loss_after"] < distilled["input"]["loss_before"]
    assert ("head" in distilled) is not tied
    assert outcome.facts["old_text_parity"]["max_abs_logit_difference"] == 0.0


def test_run_random_rows_differ_from_the_mean_and_obey_the_seed(extend, base, finished, tmp_path):
    _, one = extend(base, tmp_path / "one", initialise="random", seed=1)
    _, two = extend(base, tmp_path / "two", initialise="random", seed=2)
    hashes = {content_files(root)["model.safetensors"].sha256 for root in (one, two, finished[1])}
    assert len(hashes) == 3


def test_run_corpus_without_held_out_documents_is_measured_on_its_train_split(extend, base, make_corpus):
    corpus = make_corpus("ja", {"train": 30})
    outcome, _ = extend(base, read={"japanese": corpus}, add=100)
    assert outcome.counts["measured_documents"] == 30


def test_run_pieces_that_save_nothing_on_the_held_out_text_is_an_error(extend, base, make_corpus):
    corpus = make_corpus("ja", {"train": 30}, english={"heldout": 5})
    with pytest.raises(StageError, match="save nothing"):
        extend(base, read={"japanese": corpus}, add=100)


def test_run_too_small_corpus_is_an_error(extend, base, make_corpus):
    with pytest.raises(DataError, match="5000 are wanted"):
        extend(base, read={"japanese": make_corpus("ja", {"train": 3})}, add=5000)


def test_run_empty_documents_is_an_error(extend, base, make_corpus):
    with pytest.raises(DataError, match="no text to learn"):
        extend(base, read={"japanese": make_corpus("ja", {"heldout": 3})})


def test_run_missing_tokenizer_is_an_error(extend, make_base):
    base = make_base(tied_embeddings=True)
    (base / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="holds no tokenizer.json"):
        extend(base)


def test_run_rows_and_config_at_odds_is_an_error(extend, make_base):
    base = make_base(tied_embeddings=True)
    config = read_json(base / "config.json")
    (base / "config.json").write_text(json.dumps({**config, "vocab_size": 999}))
    with pytest.raises(InputError, match="at odds about its vocabulary"):
        extend(base)


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "lm_head.weight"])
def test_run_changed_old_row_is_found_by_the_logits(extend, base, monkeypatch, name):
    honest = rows.extended_rows

    def changed(rows_VD, extension, method, **options):
        extended_VD = honest(rows_VD, extension, method, **options)
        if options["name"] == name:
            extended_VD[: extension.base_size] *= 1 + 2**-20
        return extended_VD

    monkeypatch.setattr(rows, "extended_rows", changed)
    with pytest.raises(StageError, match="gives other logits than before"):
        extend(base)


def test_run_lost_text_is_found_by_the_round_trip(extend, base, monkeypatch):
    from tsugiki.vocabulary import measure

    honest = measure._check_round_trips

    def spoilt(found, tokenizer, texts, encoded):
        honest(found, tokenizer, [text + "!" for text in texts], encoded)

    monkeypatch.setattr(measure, "_check_round_trips", spoilt)
    with pytest.raises(StageError, match="do not survive"):
        extend(base)


def test_old_text_parity_without_texts_is_an_error(base, base_tokenizer):
    with pytest.raises(StageError, match="no text without new pieces"):
        proof.prove_old_text_parity(base, base, (base_tokenizer, base_tokenizer), [])


def test_old_text_parity_of_a_model_larger_than_memory_compares_what_fits(
    finished, base, base_tokenizer, monkeypatch
):
    _, root = finished
    tokenizers = (base_tokenizer, load_tokenizer(root))
    whole = proof.prove_old_text_parity(base, root, tokenizers, ["the garden"])
    assert (whole.layers, whole.all_layers) == (2, 2)
    monkeypatch.setattr(directory_module, "free_memory_bytes", lambda: 0)
    part = proof.prove_old_text_parity(base, root, tokenizers, ["the garden"])
    assert (part.max_abs_logit_difference, part.layers, part.all_layers) == (0.0, 1, 2)


def test_estimate_foretells_the_shape_that_run_gives(finished, base):
    outcome, root = finished
    config = stage.Config(model="base", corpus="japanese", add=200, measure=("english",))
    shape = read_json(base / "config.json")
    counts = {"parameters": read_config(base).parameters}
    known = {
        "base": Forecast(ArtifactType.MODEL, counts, {"model_config": shape}),
        "japanese": Forecast(ArtifactType.DOCUMENTS, {"characters": 1e6}),
        "english": Forecast(ArtifactType.DOCUMENTS),
    }
    forecast = stage.estimate(config, known)
    assert forecast.type == ArtifactType.MODEL
    assert forecast.counts["vocabulary_size"] == outcome.counts["vocabulary_size"]
    assert forecast.counts["parameters"] == outcome.counts["parameters"]
    assert forecast.facts["model_config"] == read_json(root / "config.json")
    assert forecast.facts["tokenizer"] == outcome.facts["tokenizer"]
    assert forecast.seconds > 0


def test_estimate_of_swallow_7b_has_its_vocabulary_and_a_fitting_memory():
    shape = {**preset("llama-2-7b").to_hf(), "torch_dtype": "float16"}
    counts = {"parameters": preset("llama-2-7b").parameters}
    config = stage.Config(model="m", corpus="ja", add=11_176)
    model = Forecast(ArtifactType.MODEL, counts, {"model_config": shape})
    forecast = stage.estimate(config, {"m": model, "ja": Forecast(ArtifactType.DOCUMENTS)})
    assert forecast.counts["vocabulary_size"] == 43_176
    assert forecast.counts["parameters"] == counts["parameters"] + 2 * 11_176 * 4096
    assert forecast.disk_bytes == 2 * forecast.counts["parameters"]
    assert 5e9 < forecast.memory_bytes < 9e9  # a weight file; logits are compared in as many layers as fit


def test_estimate_of_a_model_of_unknown_shape_is_empty_but_named():
    config = stage.Config(model="m", corpus="ja", add=8)
    forecast = stage.estimate(
        config, {"m": Forecast(ArtifactType.MODEL), "ja": Forecast(ArtifactType.DOCUMENTS)}
    )
    assert dict(forecast.counts) == {}
    assert forecast.facts["tokenizer"]


@pytest.mark.parametrize(
    ("rows", "add", "multiple", "expected"), [(32_000, 11_176, 8, 43_176), (360, 1, 8, 368), (7, 1, 1, 8)]
)
def test_final_rows_is_the_next_multiple(rows, add, multiple, expected):
    assert stage.final_rows(rows, add, multiple) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"add": 0},
        {"add": "many"},
        {"initialise": "zero"},
        {"multiple_of": 0},
        {"spare": 1},
        {"doubling_saves": 1.5},
        {"distillation": {"snippets": 0}},
    ],
)
def test_config_wrong_value_is_refused(changes):
    with pytest.raises(ValidationError):
        stage.Config(**{"model": "m", "corpus": "c", "add": "2k", **changes})


def test_config_references_name_what_is_read():
    config = stage.Config(model="m", corpus="c", add="2k", measure=("d",))
    assert config.add == 2000
    found = [asdict(reference) for reference in config.references()]
    assert [(one["field"], one["name"], one["type"]) for one in found] == [
        ("model", "m", ArtifactType.MODEL),
        ("corpus", "c", ArtifactType.DOCUMENTS),
        ("measure.0", "d", ArtifactType.DOCUMENTS),
    ]


def test_stage_module_imports_nothing_heavy():
    code = "import sys, tsugiki.vocabulary.stage; print({'torch', 'numba', 'tokenizers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
