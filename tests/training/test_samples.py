"""Prompts that the model goes on from while it trains."""

from tsugiki.artifacts.metrics import read_metrics
from tsugiki.models.directory import load_decoder
from tsugiki.models.generation import generate
from tsugiki.models.tokenizer import load_tokenizer


def test_samples_are_written_at_every_point_and_the_last_is_the_models(tmp_path, run_stage, scratch):
    settings = {
        **scratch,
        "tokens": 4096,
        "prompts": ["graft language", "木"],
        "prompt_tokens": 6,
        "validation_points": 2,
    }
    outcome = run_stage(tmp_path / "run", settings)
    samples = outcome.facts["samples"]
    assert [(one["step"], one["prompt"]) for one in samples] == [
        (step, prompt) for step in (0, 8, 16) for prompt in ("graft language", "木")
    ]
    logged = read_metrics(tmp_path / "run" / "metrics.jsonl", event="sample")
    assert [row["text"] for row in logged] == [one["text"] for one in samples]
    tokenizer, decoder = load_tokenizer(tmp_path / "run"), load_decoder(tmp_path / "run").eval()
    start = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    ids = [*start, *tokenizer.encode_within(["graft language"])[0]]
    expected = generate(decoder, ids, 6, tokenizer.eos_id, pieces=tokenizer.size)
    assert samples[-2]["text"] == tokenizer.decode(expected)


def test_samples_leave_the_training_as_it_is(tmp_path, run_stage, scratch, trained):
    settings = {**scratch, "prompts": ["tree"], "validation_points": 3}
    outcome = run_stage(tmp_path / "run", settings)
    assert outcome.facts["final_loss"] == trained[1].facts["final_loss"]
