"""Parts of tensors: their overlaps, and checkpoints whose pieces were written by several processes."""

import json
import logging
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tsugiki.artifacts.files import sha256_of
from tsugiki.errors import InputError, StorageError
from tsugiki.training import checkpoint
from tsugiki.training.checkpoint import (
    TIED_COPY,
    Saving,
    clear_unfinished,
    newest_checkpoint,
    part_name,
    restore,
    restore_weights,
)
from tsugiki.training.placement import Box, box_of, is_first_copy, local_part, shards_of

LOG = logging.getLogger("tsugiki.test")
SHAPE = (7, 5)
boxes = st.tuples(
    *(st.integers(0, size - 1).flatmap(lambda a, s=size: st.tuples(st.just(a), st.integers(1, s - a)))
      for size in SHAPE)
).map(lambda pairs: Box(tuple(a for a, _ in pairs), tuple(n for _, n in pairs)))  # fmt: skip


def cells(box):
    marked = np.zeros(SHAPE, bool)
    marked[box.within(Box((0, 0), SHAPE))] = True
    return marked


@given(boxes, boxes)
def test_what_two_parts_share_is_the_cells_of_both(one, other):
    shared = one.meet(other)
    both = cells(one) & cells(other)
    assert (shared is not None) == both.any()
    if shared is not None:
        assert (cells(shared) == both).all()
        assert shared == other.meet(one)
        whole = np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE)
        part = whole[one.within(Box((0, 0), SHAPE))]
        assert (part[shared.within(one)] == whole[shared.within(Box((0, 0), SHAPE))]).all()


def test_a_plain_tensor_is_one_part_and_its_first_copy():
    tensor = torch.arange(6.0).view(2, 3)
    assert box_of(tensor) == Box((0, 0), (2, 3))
    assert (shards_of(tensor), is_first_copy(tensor)) == (1, True)
    assert local_part(tensor) is tensor


def parameters(names, seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.nn.Parameter(torch.randn(3, 4, generator=generator)) for name in names}


def stepped(named):
    optimizer = torch.optim.AdamW(named.values(), lr=0.1, fused=True)
    for parameter in named.values():
        parameter.grad = torch.ones_like(parameter) * parameter.detach()
    optimizer.step()
    return optimizer


def test_stages_of_a_pipeline_write_one_checkpoint_and_a_single_process_reads_it(tmp_path):
    """Two processes with different layers; the last has a copy of the tied embedding, which is not stored."""
    first = parameters(["model.embed_tokens.weight", "a"], 1)
    last = parameters(["b", TIED_COPY], 2)
    savings = [
        Saving(tmp_path, named, stepped(named), step=1, run_identity="run", counters={}, rank=rank)
        for rank, named in enumerate((first, last))
    ]
    for saving in savings:
        saving.wait()
        assert saving.written
    savings[0].commit()
    found = newest_checkpoint(tmp_path, "run", LOG)
    assert sorted(found.tensors) == sorted(
        f"{part}.{name}"
        for part in ("model", "first", "second")
        for name in ("model.embed_tokens.weight", "a", "b")
    )
    alone = parameters(["model.embed_tokens.weight", "a", "b"], 9)
    restore(found, alone, torch.optim.AdamW(alone.values(), fused=True))
    assert torch.equal(alone["a"], first["a"])
    assert torch.equal(alone["b"], last["b"])
    stage = parameters([TIED_COPY], 9)
    restore_weights(found, stage)
    assert torch.equal(stage[TIED_COPY], first["model.embed_tokens.weight"])


def test_a_tensor_in_pieces_of_four_processes_is_read_whole(tmp_path):
    named = parameters(["a"], 1)
    saving = Saving(tmp_path, named, stepped(named), step=3, run_identity="run", counters={})
    saving.wait()
    partial = tmp_path / "checkpoint-00000003.partial"
    tensors = load_file(partial / part_name(0))
    for path in partial.iterdir():
        path.unlink()
    cuts = ((0, 1, 0, 4), (1, 3, 0, 1), (1, 2, 1, 4), (2, 3, 1, 4))
    for rank, (top, bottom, left, right) in enumerate(cuts):
        rows, columns = slice(top, bottom), slice(left, right)
        file = partial / part_name(rank)
        pieces = {name: tensor[rows, columns].contiguous() for name, tensor in tensors.items()}
        save_file(pieces, file)
        told = {
            name: {"shape": [3, 4], "offset": [rows.start, columns.start], "size": list(piece.shape)}
            for name, piece in pieces.items()
        }
        file.with_suffix(".json").write_text(json.dumps({"sha256": sha256_of(file), "tensors": told}))
    saving.commit()
    other = parameters(["a"], 5)
    restore(newest_checkpoint(tmp_path, "run", LOG), other, torch.optim.AdamW(other.values(), fused=True))
    assert torch.equal(other["a"], named["a"])


def test_a_part_that_another_process_finds_broken_makes_all_pass_the_checkpoint_over(tmp_path):
    named = parameters(["a"], 1)
    saving = Saving(tmp_path, named, stepped(named), step=1, run_identity="run", counters={})
    saving.wait()
    saving.commit()
    with pytest.raises(InputError, match="none of the checkpoints"):
        newest_checkpoint(tmp_path, "run", LOG, agree=lambda _whole: False)
    assert newest_checkpoint(tmp_path, "run", LOG, rank=1, ranks=2) is not None


def test_a_checkpoint_waits_for_the_parts_of_other_machines_and_is_none_without_them(tmp_path, monkeypatch):
    """One machine sees another's files late, or never, where each has a disk of its own."""
    named = parameters(["a"], 1)
    halves = [{"a": torch.nn.Parameter(named["a"][rows])} for rows in (slice(0, 2), slice(2, 3))]
    savings = [
        Saving(tmp_path, half, stepped(half), step=1, run_identity="run", counters={}, rank=rank, ranks=2)
        for rank, half in enumerate(halves)
    ]
    for saving in savings:
        saving.wait()
    late = tmp_path / "checkpoint-00000001.partial" / "part-00001.json"
    late.rename(tmp_path / "late")
    timer = threading.Timer(0.3, lambda: (tmp_path / "late").rename(late))
    timer.start()
    assert len(list(savings[0].commit().glob("part-*"))) == 2
    monkeypatch.setattr(checkpoint, "SEEN_SECONDS", 0.2)
    saving = Saving(tmp_path, named, stepped(named), step=2, run_identity="run", counters={}, ranks=2)
    saving.wait()
    with pytest.raises(StorageError, match="holds the parts of 1 processes; 2 have written theirs"):
        saving.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-00000001"]


def test_a_tensor_of_which_a_piece_is_missing_is_not_read(tmp_path):
    """What is not stored would be whatever was in memory."""
    named = parameters(["a"], 1)
    saving = Saving(tmp_path, named, stepped(named), step=1, run_identity="run", counters={})
    saving.wait()
    told = tmp_path / "checkpoint-00000001.partial" / "part-00000.json"
    part = json.loads(told.read_text())
    for box in part["tensors"].values():
        box["shape"] = [5, 4]
    told.write_text(json.dumps(part))
    saving.commit()
    larger = {"a": torch.nn.Parameter(torch.zeros(5, 4))}
    with pytest.raises(InputError, match="lacks 8 numbers of model.a"):
        restore_weights(newest_checkpoint(tmp_path, "run", LOG), larger)


def test_a_missing_tensor_is_named(tmp_path):
    named = parameters(["a"], 1)
    saving = Saving(tmp_path, named, stepped(named), step=1, run_identity="run", counters={})
    saving.wait()
    saving.commit()
    with pytest.raises(InputError, match=r"model\.b should have shape \(3, 4\), there is nothing"):
        restore_weights(newest_checkpoint(tmp_path, "run", LOG), parameters(["b"], 1))


def test_what_killed_processes_left_is_cleared(tmp_path):
    (tmp_path / "checkpoint-00000009.partial").mkdir()
    (tmp_path / "checkpoint-00000009.partial" / part_name(0)).write_bytes(b"half")
    clear_unfinished(tmp_path)
    assert not list(tmp_path.iterdir())
