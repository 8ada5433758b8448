"""A phase in which only new tokens' rows learn: nothing else moves by a bit; afterwards everything does."""

import shutil

import pytest
import torch

from tsugiki.errors import InputError
from tsugiki.models.directory import load_decoder

FIRST = 300


@pytest.fixture(scope="module")
def extended(tmp_path_factory, trained, finish):
    """A model whose manifest says that its rows from 300 on are new, as a vocabulary stage's does."""
    directory = tmp_path_factory.mktemp("extended") / "extended"
    shutil.copytree(trained[0], directory)
    return finish(directory, trained[1], kind="vocabulary", new_rows=[FIRST, 320])


def onwards(scratch, steps, **more):
    settings = {key: value for key, value in scratch.items() if key not in {"tokenizer", "model"}}
    return {**settings, "model": "extended", "tokens": 256 * steps, "decay_embeddings": True, **more}


def tensors(directory):
    return dict(load_decoder(directory).named_parameters())


def test_only_new_rows_move_while_they_learn_first(tmp_path, run_stage, scratch, extended):
    run_stage(tmp_path / "run", onwards(scratch, 5, new_rows_first=5), extended=extended)
    before, after = tensors(extended), tensors(tmp_path / "run")
    for name, tensor in after.items():
        if name in {"model.embed_tokens.weight", "lm_head.weight"}:
            assert torch.equal(tensor[:FIRST], before[name][:FIRST])
            moved = (tensor[FIRST:] != before[name][FIRST:]).any(dim=1)
            assert moved.any()
        else:
            assert torch.equal(tensor, before[name])


def test_everything_learns_after_that(tmp_path, run_stage, scratch, extended):
    run_stage(tmp_path / "run", onwards(scratch, 6, new_rows_first=5), extended=extended)
    before, after = tensors(extended), tensors(tmp_path / "run")
    assert all((tensor != before[name]).any() for name, tensor in after.items())


def test_new_rows_that_nobody_knows_of_are_refused(tmp_path, run_stage, scratch):
    with pytest.raises(InputError, match="does not say which rows are new"):
        run_stage(tmp_path / "run", {**scratch, "new_rows_first": 5})
