"""Which checkpoints are kept, what is broken and said, and models made from them while a run goes on."""

import errno
import json
import logging
import os
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file, save_file

from tsugiki.artifacts.files import sha256_of
from tsugiki.commands.train_checkpoints import checkpoints, export
from tsugiki.errors import InputError, StageError
from tsugiki.models.directory import load_decoder, read_config, vocabulary_size
from tsugiki.training import export as exporting
from tsugiki.training import loop
from tsugiki.training.checkpoint import Saving
from tsugiki.training.checkpoint_files import (
    KEPT,
    MODEL,
    Retention,
    checkpoint_directories,
    discard,
    newest_checkpoint,
    read_checkpoint,
    step_of,
)

LOG = logging.getLogger("tsugiki.test")


def save(work, step, retention=None, counters=None):
    work.mkdir(parents=True, exist_ok=True)
    named = {"a": torch.nn.Parameter(torch.full((3,), float(step)))}
    optimizer = torch.optim.AdamW(named.values())
    saving = Saving(
        *(work, named, optimizer),
        step=step,
        run_identity="run",
        counters=counters or {},
        retention=retention,
    )
    saving.wait()
    return saving.commit()


def steps_in(directory):
    return sorted(step_of(path) for path in directory.glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("retention", "newest", "for_good"),
    [
        (Retention(), [50, 60], []),
        (Retention(1), [60], []),
        (Retention(4), [30, 40, 50, 60], []),
        (Retention(2, 20), [50, 60], [20, 40]),
        (Retention(1, 30), [60], [30]),
    ],
)
def test_the_newest_are_kept_and_every_so_many_for_good(tmp_path, retention, newest, for_good):
    work = tmp_path / "work"
    for step in range(10, 70, 10):
        save(work, step, retention)
    assert steps_in(work) == newest
    assert steps_in(tmp_path / KEPT) == for_good
    assert [step_of(path) for path in checkpoint_directories(work)] == sorted(newest + for_good)[::-1]
    retention.close(work)
    assert steps_in(tmp_path / KEPT) == sorted(
        {*for_good, *(step for step in newest if retention.is_for_good(step))}
    )


def test_while_a_loss_spike_may_have_begun_no_checkpoint_from_before_it_is_deleted(tmp_path):
    def save_at(step, high):
        save(tmp_path, step, Retention(1), counters={"high": high})
        return steps_in(tmp_path)

    assert [save_at(step, high) for step, high in ((1, 0), (2, 0), (3, 1), (4, 2), (5, 0))] == [
        [1],
        [2],
        [2, 3],
        [2, 3, 4],
        [5],
    ]


def test_a_checkpoint_that_can_not_be_deleted_yet_goes_with_the_next_one(tmp_path, monkeypatch):
    """So it is on NFS, while somebody has one of its files open."""
    rmdir = os.rmdir

    def busy(path, **options):
        if "checkpoint-00000001" in str(path):
            raise OSError(errno.ENOTEMPTY, "Directory not empty")
        rmdir(path, **options)

    save(tmp_path, 1, Retention(1))
    monkeypatch.setattr(os, "rmdir", busy)
    save(tmp_path, 2, Retention(1))
    assert [step_of(path) for path in checkpoint_directories(tmp_path)] == [2]
    monkeypatch.undo()
    save(tmp_path, 3, Retention(1))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-00000003"]


def test_a_run_goes_on_from_a_checkpoint_that_is_kept_for_good_where_the_newer_are_broken(tmp_path, caplog):
    work = tmp_path / "work"
    retention = Retention(1, 10)
    for step in (10, 12):
        save(work, step, retention)
    (work / "checkpoint-00000012" / "state.json").write_text("{}")
    with caplog.at_level(logging.WARNING):
        assert newest_checkpoint(work, "run", LOG).step == 10
    assert "state.json is not what was written" in caplog.text
    assert step_of(save(work, 12, retention)) == 12  # made again over the broken one
    assert newest_checkpoint(work, "run", LOG).step == 12


def test_a_run_whose_checkpoints_are_all_broken_does_not_start_anew_by_itself(tmp_path):
    for step in (1, 2):
        (save(tmp_path / "work", step) / "part-00000.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="none of the checkpoints .* is whole") as caught:
        newest_checkpoint(tmp_path / "work", "run", LOG)
    assert "checkpoint-00000002, checkpoint-00000001" in caught.value.message
    assert "delete these directories" in caught.value.hint


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, run_stage, scratch):
    """A run that was asked to end after step 14 of 24; it keeps every fifth checkpoint for good."""
    directory = tmp_path_factory.mktemp("stopped") / "stage"
    patch = pytest.MonkeyPatch()
    record = loop._record

    def terminate(*args, **more):
        record(*args, **more)
        if more["step"] == 14:
            os.kill(os.getpid(), signal.SIGTERM)

    patch.setattr(loop, "_record", terminate)
    with pytest.raises(SystemExit):
        run_stage(directory, kept(scratch))
    patch.undo()
    return directory


def kept(scratch):
    return {**scratch, "checkpoint_every_steps": 4, "keep_every_steps": 5, "keep_checkpoints": 2}


def test_checkpoints_that_are_kept_for_good_survive_the_end_of_the_stage(
    tmp_path, stopped, run_stage, scratch, trained
):
    directory = tmp_path / "stage"
    shutil.copytree(stopped, directory)
    run_stage(directory, kept(scratch))
    assert sha256_of(directory / "model.safetensors") == sha256_of(trained[0] / "model.safetensors")
    shutil.rmtree(directory / "work")  # what the workflow does when a stage is done
    assert steps_in(directory / KEPT) == [5, 10, 15, 20]
    (tmp_path / "out").mkdir()
    parity = exporting.export_checkpoint(exporting.find_checkpoint(directory, 15), tmp_path / "out" / "model")
    assert parity.max_abs_difference < 1e-4


def test_the_list_of_checkpoints_tells_steps_losses_and_what_is_broken(stopped, tmp_path, capsys):
    directory = tmp_path / "stage"
    shutil.copytree(stopped, directory)
    checkpoints(directory, json=True)
    rows = json.loads(capsys.readouterr().out)
    assert [row["step"] for row in rows] == [5, 10, 12, 14]
    assert [row["for_good"] for row in rows] == [True, True, False, False]
    assert [row["tokens"] for row in rows] == [256 * step for step in (5, 10, 12, 14)]
    metrics = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    loss_of = {row["step"]: row["loss"] for row in metrics if "step" in row}
    assert [row["loss"] for row in rows] == [loss_of[step] for step in (5, 10, 12, 14)]
    assert {row["layout"] for row in rows} == {"one process"}
    assert all(row["fault"] is None and row["bytes"] > 10_000 for row in rows)
    part = directory / "work" / "checkpoint-00000012" / "part-00000.safetensors"
    part.write_bytes(part.read_bytes()[:-1] + b"\xff")
    (directory / "work" / "checkpoint-00000014" / "tokenizer.json").unlink()
    checkpoints(directory, quick=True)
    said = capsys.readouterr().out
    assert said.count("whole") == 3
    assert "tokenizer.json is missing" in said
    checkpoints(directory)
    assert "has SHA-256" in capsys.readouterr().out
    with pytest.raises(InputError, match="has no checkpoints"):
        checkpoints(tmp_path)


def test_an_exported_model_is_what_the_checkpoint_holds_in_float32_and_bfloat16(stopped, tmp_path, capsys):
    before = sorted(path.name for path in (stopped / "work").iterdir())
    export(stopped, out=tmp_path / "full", json=True)
    said = json.loads(capsys.readouterr().out)
    assert said["step"] == 14
    assert 0 <= said["max_abs_difference"] < 1e-4
    held = load_file(stopped / "work" / "checkpoint-00000014" / "part-00000.safetensors")
    for name, tensor in load_file(tmp_path / "full" / "model.safetensors").items():
        assert torch.equal(tensor, held[f"model.{name}"])
    assert vocabulary_size(tmp_path / "full") == 320
    export(
        stopped / "work" / "checkpoint-00000012", out=tmp_path / "half", precision="bfloat16", no_check=True
    )
    assert "after step 12 (not checked)" in capsys.readouterr().out
    assert {p.dtype for p in load_file(tmp_path / "half" / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "half" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert sorted(path.name for path in (stopped / "work").iterdir()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "half"]


def test_a_model_is_exported_in_shards_that_hold_little_at_a_time(stopped, tmp_path):
    directory = exporting.find_checkpoint(stopped, 10)
    exporting.export_checkpoint(directory, tmp_path / "model", shard_bytes=20_000)
    assert len(list((tmp_path / "model").glob("model-*.safetensors"))) > 3
    whole = dict(load_decoder(tmp_path / "model").named_parameters())
    held = load_file(directory / "part-00000.safetensors")
    assert all(torch.equal(parameter, held[f"model.{name}"]) for name, parameter in whole.items())


def test_a_model_is_exported_from_the_pieces_of_several_processes(stopped, tmp_path):
    """Rows of each matrix by two processes, as FSDP has it, are the same model to the bit."""
    source = exporting.find_checkpoint(stopped, 10)
    work = tmp_path / "stage" / "work"
    shutil.copytree(stopped / "work" / MODEL, work / MODEL)
    shape = read_config(source)
    held = load_file(source / "part-00000.safetensors")
    whole = {
        name.removeprefix(
            "model.",
        ): tensor
        for name, tensor in held.items()
        if name.startswith("model.")
    }
    partial = work / "checkpoint-00000010.partial"
    partial.mkdir()
    savings = []
    for rank in range(2):
        halves = {name: torch.nn.Parameter(tensor.tensor_split(2)[rank]) for name, tensor in whole.items()}
        optimizer = torch.optim.AdamW(halves.values())
        savings.append(Saving(work, halves, optimizer, step=10, run_identity="run", counters={}, rank=rank))
        savings[-1].wait()
        told = partial / f"part-{rank:05d}.json"
        part = json.loads(told.read_text())
        for name, box in part["tensors"].items():
            size = held[name].shape
            box["shape"] = list(size)
            box["offset"] = [(size[0] + 1) // 2 * rank, *(0 for _ in size[1:])]
        told.write_text(json.dumps(part))
    savings[0].commit()
    exporting.export_checkpoint(exporting.find_checkpoint(tmp_path / "stage"), tmp_path / "model")
    assert shape.parameters == read_config(tmp_path / "model").parameters
    for name, tensor in load_file(tmp_path / "model" / "model.safetensors").items():
        assert torch.equal(tensor, whole[name])


def test_a_model_that_is_not_what_the_checkpoint_holds_is_found_by_name(stopped, tmp_path):
    checkpoint = read_checkpoint(exporting.find_checkpoint(stopped, 10))
    shape, tokenizer = exporting.model_of(checkpoint)
    exporting.write_model(checkpoint, shape, tokenizer, tmp_path)
    assert exporting.differing_from(checkpoint, shape, tmp_path) == []
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.norm.weight"][3] += 1e-6
    del weights["model.layers.0.mlp.up_proj.weight"]
    weights["other"] = torch.zeros(1)
    save_file(weights, tmp_path / "model.safetensors")
    assert exporting.differing_from(checkpoint, shape, tmp_path) == [
        "model.layers.0.mlp.up_proj.weight",
        "model.norm.weight",
        "other",
    ]


def test_a_checkpoint_that_the_run_deletes_while_it_is_exported_is_told(stopped, tmp_path, monkeypatch):
    """Every byte was looked at by then: of a large model that takes minutes, in which the run goes on."""
    copy = tmp_path / "checkpoint-00000014"
    shutil.copytree(stopped / "work" / copy.name, copy)
    real = exporting.model_of

    def model_of(checkpoint):
        found = real(checkpoint)
        discard(copy)
        return found

    monkeypatch.setattr(exporting, "model_of", model_of)
    with pytest.raises(InputError, match="was deleted while it was read") as caught:
        exporting.export_checkpoint(copy, tmp_path / "model")
    assert "export again" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_can_not_be_made_says_why_and_leaves_nothing(stopped, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no checkpoint of step 7") as caught:
        exporting.find_checkpoint(stopped, 7)
    assert "5, 10, 12, 14" in caught.value.hint
    with pytest.raises(InputError, match="is the checkpoint of step 12, not of 5"):
        exporting.find_checkpoint(stopped / "work" / "checkpoint-00000012", 5)
    with pytest.raises(InputError, match="exists already"):
        exporting.export_checkpoint(stopped, tmp_path)
    copy = tmp_path / "checkpoint-00000014"
    shutil.copytree(stopped / "work" / copy.name, copy)
    part = copy / "part-00000.safetensors"
    part.write_bytes(part.read_bytes()[:-7])
    with pytest.raises(InputError, match="has SHA-256"):
        exporting.export_checkpoint(copy, tmp_path / "model")
    with pytest.raises(InputError, match="was deleted while it was read"):
        exporting.export_checkpoint(tmp_path / "checkpoint-00000099", tmp_path / "model")

    def other_logits(_directory, _config, _layers, ids_BT):
        return torch.zeros(*ids_BT.shape, 320)

    monkeypatch.setattr("tsugiki.models.directory._transformers_logits", other_logits)
    with pytest.raises(StageError, match="differ from those of transformers"):
        exporting.export_checkpoint(exporting.find_checkpoint(stopped), tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == [copy.name]
