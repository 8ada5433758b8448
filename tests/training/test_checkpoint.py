import errno
import json
import logging

import pytest
import torch
from safetensors import SafetensorError

from tsugiki.artifacts.files import sha256_of
from tsugiki.errors import DriftError, InputError, StorageError
from tsugiki.models.config import preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.training import checkpoint
from tsugiki.training.checkpoint import (
    STATE,
    clear_unfinished,
    newest_checkpoint,
    part_name,
    restore,
    save_checkpoint,
)
from tsugiki.training.checkpoint_files import FORMAT, MODEL, read_checkpoint, sealed
from tsugiki.training.optimizer import adamw

TENSORS = part_name(0)
LOG = logging.getLogger("tsugiki.test")


def make_state(seed=0, steps=2):
    decoder = Decoder(preset("llama-nano"))
    initialise(decoder, seed)
    optimizer = adamw(
        decoder.named_parameters(),
        learning_rate=0.01,
        betas=(0.9, 0.95),
        epsilon=1e-8,
        weight_decay=0.1,
        decay_embeddings=False,
    )
    for number in range(steps):
        train_step(decoder, optimizer, number)
    return decoder, optimizer


def train_step(decoder, optimizer, number):
    optimizer.zero_grad()
    decoder(torch.arange(number, number + 8)[None]).logsumexp(-1).sum().backward()
    optimizer.step()


def save(work, state, step, identity="run", counters=None):
    return save_checkpoint(work, *state, step=step, run_identity=identity, counters=counters or {"loss": 1.5})


def weights(decoder):
    return [parameter.detach().clone() for parameter in decoder.parameters()]


def test_restored_state_goes_on_as_if_nothing_had_happened(tmp_path):
    state = make_state()
    save(tmp_path, state, 2, counters={"losses": [1.0, 2.0]})
    train_step(*state, 2)
    other = make_state(seed=9, steps=0)
    found = newest_checkpoint(tmp_path, "run", LOG)
    restore(found, *other)
    assert (found.step, found.counters) == (2, {"losses": [1.0, 2.0]})
    train_step(*other, 2)
    for one, two in zip(weights(state[0]), weights(other[0]), strict=True):
        assert torch.equal(one, two)


def test_state_before_the_first_step_is_kept_too(tmp_path):
    state = make_state(steps=0)
    save(tmp_path, state, 0)
    other = make_state(seed=9, steps=0)
    restore(newest_checkpoint(tmp_path, "run", LOG), *other)
    train_step(*state, 0)
    train_step(*other, 0)
    assert all(torch.equal(one, two) for one, two in zip(weights(state[0]), weights(other[0]), strict=True))


def test_only_the_newest_two_are_kept(tmp_path):
    state = make_state()
    for step in (1, 2, 10):
        save(tmp_path, state, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-00000002", "checkpoint-00000010"]
    assert newest_checkpoint(tmp_path, "run", LOG).step == 10


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def flip(path):
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(bytes(data))


def other_step(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"step": 7}))


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        (TENSORS, cut),
        (TENSORS, flip),
        (TENSORS, lambda path: path.unlink()),
        (STATE, cut),
        (STATE, other_step),
        (STATE, lambda path: path.write_text("[]")),
        (STATE, lambda path: path.unlink()),
    ],
)
def test_a_broken_checkpoint_is_passed_over_with_a_warning(tmp_path, caplog, file, damage):
    state = make_state()
    save(tmp_path, state, 1)
    damage(save(tmp_path, state, 2) / file)
    with caplog.at_level(logging.WARNING):
        assert newest_checkpoint(tmp_path, "run", LOG).step == 1
    assert "passed over a broken checkpoint" in caplog.text


def test_an_unfinished_checkpoint_is_none(tmp_path):
    (tmp_path / "checkpoint-00000003.partial").mkdir()
    assert newest_checkpoint(tmp_path, "run", LOG) is None


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    save(tmp_path, make_state(), 2, identity="other")
    with pytest.raises(DriftError, match="belongs to another run"):
        newest_checkpoint(tmp_path, "run", LOG)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    save(tmp_path, make_state(), 2)
    module = torch.nn.Linear(2, 2)
    with pytest.raises(InputError, match="does not hold this model"):
        restore(newest_checkpoint(tmp_path, "run", LOG), module, torch.optim.AdamW(module.parameters()))


def test_what_differs_from_the_run_of_a_checkpoint_is_named_as_far_as_files_tell(tmp_path):
    model = tmp_path / MODEL
    model.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (model / name).write_text("{}")
    save(tmp_path, make_state(), 2, identity="other")
    with pytest.raises(DriftError, match="the same model and tokenizer, but other settings, data"):
        newest_checkpoint(tmp_path, "run", LOG)
    (model / "tokenizer.json").write_text('{"model": 1}')
    with pytest.raises(DriftError, match=r": tokenizer\.json of its model differ from those of"):
        newest_checkpoint(tmp_path, "run", LOG)


def test_a_checkpoint_of_a_newer_version_is_refused_and_not_passed_over(tmp_path):
    save(tmp_path, make_state(), 1)
    directory = save(tmp_path, make_state(), 2)
    state = json.loads((directory / STATE).read_text())
    del state["state_sha256"]
    (directory / STATE).write_text(json.dumps(sealed({**state, "format": FORMAT + 1, "tensors": []})))
    for read in (lambda: newest_checkpoint(tmp_path, "run", LOG), lambda: read_checkpoint(directory)):
        with pytest.raises(DriftError, match="written by a newer version of Tsugiki"):
            read()


def test_a_checkpoint_whose_state_can_not_be_read_is_passed_over(tmp_path, caplog):
    save(tmp_path, make_state(), 1)
    state = save(tmp_path, make_state(), 2) / STATE
    state.unlink()
    state.mkdir()  # any error of the system
    with caplog.at_level(logging.WARNING):
        assert newest_checkpoint(tmp_path, "run", LOG).step == 1
    assert "state.json can't be read" in caplog.text


EVERY_MOMENT = """
import json, os, shutil, signal, sys
from pathlib import Path
import logging
import torch
from tsugiki.training.checkpoint import Reader, Saving, clear_unfinished, newest_checkpoint
from tsugiki.training.checkpoint_files import Retention

WATCHED = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree", "shutil.copyfile", "open"}
torch.set_num_threads(1)
os.fsync = lambda descriptor: None  # it matters to a power loss only, and takes the most time
root = Path(sys.argv[1])
log = logging.getLogger("tsugiki.test")

def save(work, step):
    named = {"a": torch.nn.Parameter(torch.full((3000,), float(step)))}
    saving = Saving(
        *(work, named, torch.optim.AdamW(named.values())),
        **dict(step=step, run_identity="run", counters={}, retention=Retention(1, 2)),
    )
    saving.wait()
    saving.commit()

def killed_at(moment, work):
    left = [moment]

    def hit(*_):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = hit
    sys.addaudithook(lambda event, about: hit() if event in WATCHED and "checkpoint" in str(about) else None)
    for step in (3, 4):
        save(work, step)
    os._exit(0)

found = []
status = None
while status != 0:
    stage = root / f"stage-{len(found)}"
    work = stage / "work"
    (work / "model").mkdir(parents=True)
    (work / "model" / "config.json").write_text("{}")
    save(work, 2)
    pid = os.fork()
    if not pid:
        killed_at(len(found) + 1, work)
    status = os.waitpid(pid, 0)[1]
    seen = newest_checkpoint(work, "run", log)
    whole = torch.empty(3000)
    with Reader(seen) as reader:
        reader.read("model.a", whole)
    assert (whole == seen.step).all()
    clear_unfinished(work)
    for step in range(seen.step + 1, 6):
        save(work, step)
    kept = [str(path.relative_to(stage)) for path in stage.glob("*/checkpoint*")]
    assert sorted(kept) == ["checkpoints/checkpoint-00000002", "checkpoints/checkpoint-00000004",
                            "work/checkpoint-00000005"], kept
    found.append(seen.step)
    shutil.rmtree(stage)
(root / "found.json").write_text(json.dumps(found))
"""


def test_a_save_killed_at_any_moment_leaves_a_whole_checkpoint_and_nothing_that_stays(tmp_path, run_script):
    status = run_script(EVERY_MOMENT, [str(tmp_path)], tmp_path / "output.txt")
    assert status == 0, (tmp_path / "output.txt").read_text()
    found = json.loads((tmp_path / "found.json").read_text())
    assert found == sorted(found)
    assert {step: found.count(step) > 10 for step in (2, 3)} == {2: True, 3: True}
    assert found[-1] == 4


LIMITED = """
import json, logging, resource, sys
from pathlib import Path
import torch
from tsugiki.errors import StorageError
from tsugiki.training.checkpoint import Saving, newest_checkpoint

work = Path(sys.argv[1])
named = {"a": torch.nn.Parameter(torch.zeros(30_000))}
optimizer = torch.optim.AdamW(named.values())

def save(step):
    saving = Saving(work, named, optimizer, step=step, run_identity="run", counters={})
    saving.wait()
    saving.commit()

save(1)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    save(2)
except StorageError as error:
    (work / "error.json").write_text(json.dumps(str(error)))
assert newest_checkpoint(work, "run", logging.getLogger("tsugiki.test")).step == 1
"""


def test_a_file_that_may_not_grow_leaves_the_older_checkpoint_and_says_so(tmp_path, run_script):
    status = run_script(LIMITED, [str(tmp_path)], tmp_path / "output.txt")
    assert status == 0, (tmp_path / "output.txt").read_text()
    said = json.loads((tmp_path / "error.json").read_text())
    assert "checkpoint-00000002: the file would grow past the allowed size" in said
    assert "ulimit -f" in said
    assert [path.name for path in tmp_path.glob("checkpoint*")] == ["checkpoint-00000001"]


def test_a_disk_that_fills_up_as_a_checkpoint_is_made_whole_ends_the_run_and_the_next_one_goes_on(
    tmp_path, monkeypatch, run_stage, scratch, trained
):
    """That is done beside the training, and the training is told."""
    write = checkpoint.write_json

    def full(path, value):
        if path.name == STATE and "00000010" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, value)

    monkeypatch.setattr(checkpoint, "write_json", full)
    with pytest.raises(StorageError, match="checkpoint-00000010: no space is left on the disk"):
        run_stage(tmp_path, scratch)
    assert [path.name for path in (tmp_path / "work").glob("checkpoint*")] == ["checkpoint-00000005"]
    monkeypatch.undo()
    run_stage(tmp_path, scratch)
    assert sha256_of(tmp_path / "model.safetensors") == sha256_of(trained[0] / "model.safetensors")


def test_what_a_kill_leaves_is_cleared_and_half_deleted_checkpoints_are_none(tmp_path):
    work = tmp_path / "work"
    save(work, make_state(), 1)
    for place in (work, tmp_path / "checkpoints"):
        (place / "checkpoint-00000002.gone.partial").mkdir(parents=True)
    assert newest_checkpoint(work, "run", LOG).step == 1
    clear_unfinished(work)
    assert [path.name for path in work.iterdir()] == ["checkpoint-00000001"]
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_saving_the_same_step_again_replaces_it(tmp_path):
    state = make_state()
    cut(save(tmp_path, state, 4) / TENSORS)
    save(tmp_path, state, 4)
    assert newest_checkpoint(tmp_path, "run", LOG).step == 4


def test_a_full_disk_leaves_the_older_checkpoint_and_nothing_half_written(tmp_path, monkeypatch):
    state = make_state()
    save(tmp_path, state, 1)

    def full(_tensors, path):
        path.write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(StorageError, match="no space is left"):
        save(tmp_path, state, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-00000001"]
    assert newest_checkpoint(tmp_path, "run", LOG).step == 1
