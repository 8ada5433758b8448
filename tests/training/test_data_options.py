"""What a recipe can say of the data, through a whole run of the stage."""

import json

import pytest

from tsugiki.artifacts.documents import iterate_documents
from tsugiki.errors import DataError, InputError

PHASES = [
    {"name": "broad", "tokens": 4096, "data": {"english": 0.75, "japanese": 0.25}},
    {"name": "late", "tokens": 2048, "data": {"japanese": 1.0}},
]


def without(scratch, *names):
    return {name: value for name, value in scratch.items() if name not in names}


def tokens_by_source(outcome):
    return {source["dataset"]: source["tokens"] for source in outcome.facts["sources"]}


def test_training_in_two_phases_by_best_fit_draws_what_they_ask_for(tmp_path, run_stage, scratch):
    given = without(scratch, "data", "tokens")
    outcome = run_stage(tmp_path, {**given, "phases": PHASES, "packing": "best-fit", "max_epochs": 50})
    trained = tokens_by_source(outcome)
    assert sum(trained.values()) == outcome.counts["tokens"] == 6144
    # Sequences hold 75 to 25 of the first 4096 tokens, padding apart, and all of the last 2048.
    assert trained["japanese"] == pytest.approx(2048 + 1024, abs=2 * given["sequence_length"])
    assert all(0 < source["padding"] < 0.2 for source in outcome.facts["sources"])
    assert outcome.facts["final_loss"] < outcome.facts["first_loss"]


def test_training_by_bytes_weighs_the_text(tmp_path, run_stage, scratch):
    data = {"data": {"english": 0.5, "japanese": 0.5}, "weight_unit": "bytes", "max_epochs": 50}
    outcome = run_stage(tmp_path, {**scratch, **data})
    by_bytes = {source["dataset"]: source["bytes"] for source in outcome.facts["sources"]}
    assert by_bytes["english"] == pytest.approx(by_bytes["japanese"], rel=0.15)
    trained = tokens_by_source(outcome)
    assert trained["japanese"] != trained["english"]


def test_training_with_a_limit_for_one_source_names_it(tmp_path, run_stage, scratch):
    limits = {"data": {"english": 0.5, "japanese": 0.5}, "max_epochs": {"japanese": 0.01}}
    with pytest.raises(DataError, match='"japanese" has .* tokens'):
        run_stage(tmp_path, {**scratch, **limits})


def test_training_with_a_phase_of_less_than_a_step_is_refused(tmp_path, run_stage, scratch):
    tiny = [*PHASES, {"name": "tiny", "tokens": 1, "data": {"english": 1.0}}]
    with pytest.raises(InputError, match="phase 3"):
        run_stage(tmp_path, {**without(scratch, "data", "tokens"), "phases": tiny})


def write_lines(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def test_training_on_plain_files_is_training_on_the_same_documents(tmp_path, run_stage, scratch, corpora):
    splits = {
        split: [row["text"] for row in iterate_documents(corpora["english"], split=split)]
        for split in ("train", "heldout")
    }
    files = {split: write_lines(tmp_path / f"{split}.jsonl", texts) for split, texts in splits.items()}
    settings = {**scratch, "validation": ["held"], "validation_bytes": 10**6, "tokens": 1024}
    given = {
        "tokenizer": {"train": "plain", "size": 320},
        "data": {"plain": 1.0},
        "max_epochs": 50,
    }
    plain = run_stage(tmp_path / "a", settings | given, plain=files["train"], held=files["heldout"])
    assert plain.counts["tokens"] == 1024
    (source,) = plain.facts["sources"]
    expected = run_stage(tmp_path / "b", settings | {"max_epochs": 50}, held=files["heldout"])
    documented = expected.facts["sources"][0]
    # two parts there and one here: the order differs, and so do the bytes of the few sequences drawn
    assert source | {"dataset": "english", "bytes": documented["bytes"]} == documented
    first, other = (outcome.facts["validation"][0]["bits_per_byte"] for outcome in (plain, expected))
    assert first == pytest.approx(other, rel=1e-6)  # same tokenizer, same held-out texts


def test_training_on_a_plain_file_that_is_validated_too_needs_a_held_out_part(tmp_path, run_stage, scratch):
    file = write_lines(tmp_path / "all.jsonl", ["graft a language onto a model"] * 400)
    settings = {**scratch, "data": {"all": 1.0}, "validation": ["all"], "max_epochs": 50}
    with pytest.raises(DataError, match="holds no held-out documents to validate on"):
        run_stage(tmp_path / "run", settings, all=file)
