"""The stage as a recipe uses it: a whole run, kill and resume, bad inputs, the estimate."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from math import log

import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from tsugiki.artifacts.contract import ArtifactType, Forecast, Inputs, open_workspace
from tsugiki.artifacts.identity import identity_of
from tsugiki.artifacts.manifest import Manifest, write_manifest
from tsugiki.artifacts.metrics import read_metrics
from tsugiki.artifacts.scores import SCHEMA, read_scores
from tsugiki.errors import DataError, InputError, StageError
from tsugiki.evaluation import runner
from tsugiki.evaluation.engines.loading import trained_context
from tsugiki.evaluation.stage import Config, estimate, run

SETTINGS = {
    "models": ("base", "adapted", "other"),
    "heldout": ("japanese", "english"),
    "maximum_documents": 9,
    "cloze_items": 8,
    "generation_prompts": 2,
    "generation_bytes": 40,
    "bootstrap_draws": 200,
    "threads": 1,
}
FINAL = ("scores.parquet", "comparison.json")


@pytest.fixture(autouse=True)
def _small_units(monkeypatch):
    monkeypatch.setattr(runner, "UNIT_ITEMS", 4)


def evaluate(world, root, on_progress=lambda *_: None, **changes):
    workspace = open_workspace(root, on_progress)
    try:
        return run(Config(**{**SETTINGS, **changes}), world, workspace)
    finally:
        workspace.metrics.close()
        for handler in workspace.log.handlers:
            handler.close()


def final_bytes(root):
    return {name: (root / name).read_bytes() for name in FINAL}


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
    root = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "UNIT_ITEMS", 4)
        outcome = evaluate(world, root)
    return root, outcome


def test_run_three_models_gives_a_row_an_item_a_model(finished):
    root, outcome = finished
    table = read_scores(root)
    assert table.schema == SCHEMA
    # 9 pages, 8 questions and 2 prompts in each of two languages, for three models
    assert table.num_rows == outcome.counts["rows"] == 3 * 2 * (9 + 8 + 2)
    metrics = read_metrics(root / "metrics.jsonl")
    assert sum(row["items"] for row in metrics) == table.num_rows
    assert outcome.counts["items"] == 38
    assert outcome.counts["models"] == 3
    for row in table.to_pylist():
        if row["task"] == "bits-per-byte":
            assert row["score"] == row["nll_nats"] / (log(2) * row["bytes"])
        assert row["empty"] is not None


def test_run_three_models_writes_the_comparison_of_the_contract(finished):
    root, outcome = finished
    comparison = json.loads((root / "comparison.json").read_text())
    assert comparison["models"] == ["base", "adapted", "other"]
    assert [(task["task"], task["dataset"]) for task in comparison["tasks"]] == [
        ("bits-per-byte", "japanese"),
        ("bits-per-byte", "english"),
        ("cloze", "japanese"),
        ("cloze", "english"),
    ]
    for task in comparison["tasks"]:
        assert len(task["pairs"]) == 3
        assert set(task["by_model"]) == {"base", "adapted", "other"}
    assert len(comparison["generations"]) == 4
    assert set(comparison["generations"][0]["outputs"]) == {"base", "adapted", "other"}
    first = comparison["tasks"][0]["pairs"][0]
    assert outcome.facts["verdict"] == first["sentence"]
    assert "adapted" in first["sentence"]


def test_run_text_of_items_is_the_same_for_all_models(finished):
    rows = read_scores(finished[0]).to_pylist()
    for task in ("bits-per-byte", "cloze", "generation"):
        seen = [
            {
                (r["item"], r["prompt_hash"], r["gold"])
                for r in rows
                if r["task"] == task and r["model"] == model
            }
            for model in SETTINGS["models"]
        ]
        assert seen[0] == seen[1] == seen[2]


def test_run_other_batch_size_gives_the_same_scores(world, finished, tmp_path):
    evaluate(world, tmp_path, batch_tokens=200, tasks=("bits-per-byte", "cloze"))
    theirs = [r for r in read_scores(finished[0]).to_pylist() if r["task"] != "generation"]
    for one, two in zip(read_scores(tmp_path).to_pylist(), theirs, strict=True):
        assert (one["item"], one["output"]) == (two["item"], two["output"])
        assert one["nll_nats"] == pytest.approx(two["nll_nats"], rel=1e-6)


@pytest.mark.parametrize("moment", [1, 6, 13, 40])
def test_run_interrupted_and_resumed_ends_with_the_same_bytes(world, finished, tmp_path, moment):
    calls = 0

    def stop(*_args):
        nonlocal calls
        calls += 1
        if calls == moment:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(world, tmp_path, stop)
    assert not any((tmp_path / name).exists() for name in FINAL)
    evaluate(world, tmp_path)
    assert final_bytes(tmp_path) == final_bytes(finished[0])


_KILLED = """
import json, os, signal, sys
from pathlib import Path
from tsugiki.artifacts.contract import Inputs, open_workspace
from tsugiki.evaluation import runner
from tsugiki.evaluation.stage import Config, run
runner.UNIT_ITEMS = 4
paths, settings, root, moment = json.loads(sys.argv[1])
calls = 0
def kill(*_):
    global calls
    calls += 1
    if calls == moment:
        os.kill(os.getpid(), signal.SIGKILL)
inputs = Inputs({name: (Path(path),) for name, path in paths.items()})
run(Config(**settings), inputs, open_workspace(Path(root), kill))
"""


def test_run_killed_process_resumed_by_another_ends_with_the_same_bytes(world, finished, tmp_path):
    paths = {name: str(world.path(name)) for name in world}
    arguments = json.dumps([paths, SETTINGS, str(tmp_path), 20])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = subprocess.run([sys.executable, "-c", _KILLED, arguments], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    units = list((tmp_path / "work" / "units").glob("*.parquet"))
    assert units
    evaluate(world, tmp_path)
    assert final_bytes(tmp_path) == final_bytes(finished[0])


def test_run_finished_units_are_not_asked_again(world, tmp_path, monkeypatch):
    evaluate(world, tmp_path, tasks=("bits-per-byte",))
    monkeypatch.setattr("tsugiki.evaluation.engines.loading.load_decoder", None)
    evaluate(world, tmp_path, tasks=("bits-per-byte",))


def test_run_units_of_other_questions_are_not_reused(world, tmp_path):
    evaluate(world, tmp_path, tasks=("bits-per-byte",), document_bytes=100)
    evaluate(world, tmp_path, tasks=("bits-per-byte",), document_bytes=200)
    assert max(read_scores(tmp_path)["bytes"].to_pylist()) > 100


def test_run_one_model_has_no_verdict(world, tmp_path):
    outcome = evaluate(world, tmp_path, models=("base",), tasks=("bits-per-byte",))
    assert outcome.facts["verdict"] == ""


def test_run_trained_sequence_length_bounds_the_window(world, tmp_path):
    """config.json allows 128 positions; the train stage's manifest says that 32 were trained."""
    trained = _copy_model(world, tmp_path / "trained")
    write_manifest(
        trained,
        Manifest(
            type=ArtifactType.MODEL, kind="train", code_version=1, identity=identity_of({}), payload={},
            config={"sequence_length": 32}, files={}, counts={}, facts={}, provenance={},
        ),
    )  # fmt: skip
    assert trained_context(trained) == 32
    inputs = Inputs({**world, "trained": (trained,)})
    evaluate(inputs, tmp_path / "out", models=("base", "trained"), tasks=("bits-per-byte",))
    assert "window of 32 tokens, stride 24" in (tmp_path / "out" / "log.txt").read_text()
    rows = read_scores(tmp_path / "out").to_pylist()
    by_model = {m: [r["nll_nats"] for r in rows if r["model"] == m] for m in ("base", "trained")}
    assert by_model["base"] == by_model["trained"]


def _copy_model(world, directory, change=lambda tensors: tensors):
    directory.mkdir()
    for file in world.path("base").iterdir():
        if file.suffix == ".safetensors":
            save_file(change(load_file(file)), directory / file.name, metadata={"format": "pt"})
        else:
            (directory / file.name).write_bytes(file.read_bytes())
    return directory


def test_run_model_with_nan_weights_raises(world, tmp_path):
    def spoil(tensors):
        return {name: torch.full_like(t, math.nan) if "norm" in name else t for name, t in tensors.items()}

    inputs = Inputs({**world, "broken": (_copy_model(world, tmp_path / "broken", spoil),)})
    with pytest.raises(StageError, match='model "broken" gives a log-likelihood of nan'):
        evaluate(inputs, tmp_path / "out", models=("base", "broken"), tasks=("bits-per-byte",))
    assert not (tmp_path / "out" / "scores.parquet").exists()


def test_run_no_heldout_pages_raises(world, texts, make_documents, tmp_path):
    documents = make_documents(tmp_path / "train-only", texts["english"], "en", split="train")
    with pytest.raises(DataError, match='"english" holds no held-out documents'):
        evaluate(Inputs({**world, "english": (documents,)}), tmp_path / "out")


def test_run_blank_pages_count_as_none(world, make_documents, tmp_path):
    documents = make_documents(tmp_path / "blank", [" \n", ""], "en")
    with pytest.raises(DataError, match="no held-out documents"):
        evaluate(Inputs({**world, "english": (documents,)}), tmp_path / "out")


def test_run_missing_documents_raises(world, tmp_path):
    with pytest.raises(InputError, match="holds no documents"):
        evaluate(Inputs({**world, "english": (tmp_path,)}), tmp_path / "out")


def test_run_missing_model_raises(world, tmp_path):
    (tmp_path / "empty").mkdir()
    inputs = Inputs({**world, "adapted": (tmp_path / "empty",)})
    with pytest.raises(InputError, match=r"no config\.json"):
        evaluate(inputs, tmp_path / "out")


def test_run_language_without_a_pack_can_be_measured_in_bits_only(world, texts, make_documents, tmp_path):
    documents = make_documents(tmp_path / "unknown", texts["english"], "tlh")
    inputs = Inputs({**world, "english": (documents,)})
    with pytest.raises(InputError, match='no language pack "tlh"'):
        evaluate(inputs, tmp_path / "out", heldout=("english",))
    outcome = evaluate(inputs, tmp_path / "out", heldout=("english",), tasks=("bits-per-byte",))
    assert outcome.counts["items"] == 9


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda rows: rows[:-1], r"has 0 scored items|has \d+ scored items"),
        (lambda rows: [*rows, rows[0]], "scored items"),
        (lambda rows: [rows[0] | {"score": math.nan}, *rows[1:]], "without a score"),
        (lambda rows: [rows[0] | {"empty": True}, *rows[1:]], "without a score"),
    ],
)
def test_run_lost_doubled_or_empty_scores_fail_the_stage(world, tmp_path, monkeypatch, damage, message):
    answer_all = runner.answer_all
    monkeypatch.setattr(runner, "answer_all", lambda *given, **more: damage(answer_all(*given, **more)))
    with pytest.raises(StageError, match=message):
        evaluate(world, tmp_path, tasks=("bits-per-byte",))


def test_run_engine_that_loses_an_answer_fails_the_stage(world, tmp_path, monkeypatch):
    monkeypatch.setattr("tsugiki.evaluation.engines.decoder.DecoderBackend.text_likelihoods", lambda *_: [])
    with pytest.raises(StageError, match="gave 0 answers to 4 questions"):
        evaluate(world, tmp_path, tasks=("bits-per-byte",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ()}, "at least 1 item"),
        ({"models": ("base", "base")}, "models names something twice"),
        ({"heldout": ("english", "english")}, "heldout names something twice"),
        ({"tasks": ("perplexity",)}, "bits-per-byte"),
        ({"baseline": "nobody"}, 'the baseline "nobody" is not one of the models'),
        ({"context_length": 64, "stride": 65}, "stride"),
        ({"cloze_choices": 1}, "greater than or equal to 2"),
        ({"confidence": 1.0}, "less than 1"),
        ({"cloze_item": 3}, "cloze_item"),
    ],
)
def test_config_bad_value_raises(changes, message):
    with pytest.raises(ValidationError, match=message):
        Config(**{**SETTINGS, **changes})


def test_config_execution_fields_stay_out_of_the_identity():
    payload = Config(**SETTINGS).identity_payload()
    assert not {"batch_tokens", "device", "threads"} & set(payload)
    assert payload["cloze_items"] == 8


def test_config_references_name_models_and_documents():
    references = Config(**SETTINGS).references()
    assert [(r.name, r.type) for r in references[2:4]] == [
        ("other", ArtifactType.MODEL),
        ("japanese", ArtifactType.DOCUMENTS),
    ]


def _forecasts(**heldout):
    model = Forecast(
        ArtifactType.MODEL, {"parameters": 2e6}, {"model_config": {"max_position_embeddings": 128}}
    )
    documents = Forecast(
        ArtifactType.DOCUMENTS, {"documents": 100, "bytes": 300_000, "heldout_documents": 7, **heldout}
    )
    return {"base": model, "adapted": model, "other": model, "japanese": documents, "english": documents}


def test_estimate_counts_items_seconds_and_memory():
    forecast = estimate(Config(**SETTINGS), _forecasts())
    assert forecast.counts["items"] == 2 * (7 + 8 + 2)
    assert forecast.counts["rows"] == 3 * forecast.counts["items"]
    assert 0 < forecast.seconds < 60
    assert 1e8 < forecast.memory_bytes < 2e9
    assert forecast.disk_bytes > 0
    assert forecast.problems == ()


def test_estimate_unknown_inputs_gives_no_seconds():
    assert estimate(Config(**SETTINGS), {}).seconds is None


def test_estimate_nothing_held_out_is_a_problem():
    problems = estimate(Config(**SETTINGS), _forecasts(heldout_documents=0)).problems
    assert [problem.where for problem in problems] == ["heldout", "heldout"]
    assert '"japanese" holds no held-out documents' in problems[0].message


def test_estimate_window_beyond_positions_is_a_problem():
    problems = estimate(Config(**SETTINGS, context_length=129), _forecasts()).problems
    assert len(problems) == 3
    assert "longer than the 128 positions" in problems[0].message


def test_stage_module_import_is_light():
    code = (
        "import sys, tsugiki.evaluation.stage; "
        "print(sorted({'torch', 'numpy', 'pyarrow', 'transformers'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_units_are_written_with_the_schema_of_scores(world, tmp_path):
    evaluate(world, tmp_path, tasks=("bits-per-byte",))
    units = sorted((tmp_path / "work" / "units").glob("*.parquet"))
    assert len(units) == 3 * 2 * 3  # models, languages, ceil(9 / 4)
    assert pq.read_schema(units[0]) == SCHEMA
