import json
import os
import subprocess
import sys

import pytest
from pydantic import ValidationError

from tsugiki.artifacts.identity import identity_of
from tsugiki.training.stage import Config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {}}, "either `data` or `phases`"),
        ({"phases": [{"tokens": "1M", "data": {"english": 1.0}}]}, "either `data` or `phases`"),
        ({"data": {}, "phases": [{"tokens": "1M", "data": {"english": 0.0}}]}, "greater than 0"),
        ({"max_epochs": {"french": 2.0}}, "max_epochs names french"),
        ({"max_epochs": {"english": 0.0}}, "greater than 0"),
        ({"weight_unit": "words"}, "tokens"),
        ({"packing": "padding"}, "best-fit"),
        ({"data": {"english": 0.0}}, "mend english"),
        ({"data": {"english": float("inf")}}, "finite number"),
        ({"tokens": None}, "either `tokens` or `equal_compute`"),
        ({"equal_compute": "base"}, "either `tokens` or `equal_compute`"),
        ({"tokenizer": None}, "a new model needs `tokenizer"),
        ({"model": "base"}, "remove `tokenizer`"),
        ({"batch_tokens": 100}, "no multiple of sequence_length"),
        ({"micro_batch_tokens": 100}, "no multiple of sequence_length"),
        ({"min_learning_rate": 1.0}, "min_learning_rate is above"),
        ({"warmup": 2.5}, "a whole number of steps, or a share below 1"),
        ({"warmup": float("inf")}, "finite number"),
        ({"learning_rate": float("inf")}, "finite number"),
        ({"max_epochs": float("inf")}, "finite number"),
        ({"weight_decay": float("nan")}, "finite number"),
        ({"betas": (1.0, 0.95)}, "less than 1"),
        ({"betas": (0.9, -0.1)}, "greater than or equal to 0"),
        ({"learning_rat": 1.0}, "Extra inputs"),
        ({"precision": "fp8"}, "float32"),
        ({"tokens": "many"}, "is not a count"),
    ],
)
def test_config_with_a_fault_is_refused(scratch, change, message):
    with pytest.raises(ValidationError, match=message):
        Config.model_validate({**scratch, **change})


def test_config_lists_everything_that_it_reads():
    config = Config.model_validate(
        {"model": "base", "data": {"a": 1, "b": 2}, "equal_compute": "other", "validation": ["c"]}
    )
    assert [(reference.field, reference.name) for reference in config.references()] == [
        ("model", "base"),
        ("data.a", "a"),
        ("data.b", "b"),
        ("equal_compute", "other"),
        ("validation", "c"),
    ]


def test_config_of_phases_knows_their_sources_and_tokens(scratch):
    phases = [
        {"name": "broad", "tokens": "377B", "data": {"b": 1.0, "a": 3.0}},
        {"tokens": "58B", "data": {"a": 0.5, "c": 0.5}},
    ]
    given = {name: value for name, value in scratch.items() if name not in {"data", "tokens"}}
    config = Config.model_validate({**given, "phases": phases})
    assert config.source_names == ("b", "a", "c")
    assert [reference.name for reference in config.references()][-3:] == ["b", "a", "c"]
    assert config.asked_tokens == 435_000_000_000
    assert Config.model_validate({**given, "phases": phases, "tokens": "1M"}).asked_tokens == 1_000_000
    turned = [{**phases[0], "data": {"a": 3.0, "b": 1.0}}, phases[1]]
    other = Config.model_validate({**given, "phases": turned})
    assert identity_of(other.identity_payload()) != identity_of(config.identity_payload())


def test_config_identity_leaves_out_how_it_is_run(scratch):
    plain = Config.model_validate(scratch)
    other = Config.model_validate(
        {
            **scratch,
            "threads": 9,
            "parallel": {"data": 2},
            "micro_batch_tokens": 32,
            "device": "cpu",
            "hardware": "cpu",
        }
    )
    assert plain.identity_payload() == other.identity_payload()
    assert plain.identity_payload() != Config.model_validate({**scratch, "seed": 1}).identity_payload()


def test_config_identity_holds_the_order_of_the_sources(scratch):
    # The order decides which documents a step draws, so another order is another run.
    one, other = (
        Config.model_validate({**scratch, "data": data}) for data in ({"a": 1, "b": 1}, {"b": 1, "a": 1})
    )
    assert identity_of(one.identity_payload()) != identity_of(other.identity_payload())


def test_config_survives_json(scratch):
    config = Config.model_validate(scratch)
    assert Config.model_validate(json.loads(config.model_dump_json())) == config


def test_stage_module_imports_nothing_heavy():
    heavy = ("torch", "numpy", "pyarrow", "tokenizers")
    code = f"import sys, tsugiki.training.stage; print([m for m in {heavy} if m in sys.modules])"
    seen = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert seen.stdout.strip() == "[]"
