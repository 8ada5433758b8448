import json
import logging

import pytest
import torch

from tsugiki.errors import DriftError, InputError
from tsugiki.models.config import preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.training.checkpoint import STATE, newest_checkpoint, part_name, restore, save_checkpoint
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


def test_saving_the_same_step_again_replaces_it(tmp_path):
    state = make_state()
    cut(save(tmp_path, state, 4) / TENSORS)
    save(tmp_path, state, 4)
    assert newest_checkpoint(tmp_path, "run", LOG).step == 4


def test_a_full_disk_leaves_the_older_checkpoint_and_nothing_half_written(tmp_path, monkeypatch):
    from safetensors import SafetensorError

    from tsugiki.errors import StorageError
    from tsugiki.training import checkpoint

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
