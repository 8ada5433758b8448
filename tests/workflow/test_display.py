"""What a person sees of a run: bars that fit the terminal, and plain lines in a file."""

import io
import re

import pytest
from rich.console import Console

from tsugiki.workflow.display import Bars, Lines

NOTE = (
    "loss 2.313, 7.9 days left, 41,200 tokens/s, 5,150 a device, MFU 41 % (full attention 46 %), 61.2 GiB, "
    "bits per byte: japanese 2.796 (-0.733), english 2.749 (+0.244)"
)


@pytest.mark.parametrize(
    ("width", "seen"), [(80, "7.9 days left"), (120, "5,150 a device"), (240, "english 2.749")]
)
def test_bar_of_a_train_stage_shows_what_matters_most_at_every_width(width, seen):
    shown = io.StringIO()
    bars = Bars(Console(file=shown, width=width, force_terminal=True, color_system=None))
    bars.started("adapted", "train")
    bars.progress("adapted", 6250, 25000, "steps", NOTE)
    bars._progress.refresh()
    bars.close()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue())
    last = next(line for line in reversed(re.split(r"[\r\n]", plain)) if "6250/25k steps" in line)
    assert "adapted " in last
    assert "loss 2.313, 7.9 days left" in last
    assert seen in last
    assert last.rstrip().endswith("0:00:00")
    assert len(last) <= width


def test_lines_in_a_file_hold_no_control_characters_and_the_whole_note(capsys, monkeypatch):
    monkeypatch.setattr("tsugiki.workflow.display._LINE_EVERY_SECONDS", 0.0)
    lines = Lines()
    lines.started("adapted", "train")
    lines.progress("adapted", 6250, 25000, "steps", NOTE)
    lines.finished("adapted", 84.0, "105B tokens")
    said = capsys.readouterr().err
    assert all(character.isprintable() or character == "\n" for character in said)
    assert f"adapted:  25% 6250/25k steps {NOTE}\n" in said
