"""Jobs that processes take for themselves: each is taken once, and none after the end."""

import os
import subprocess
import sys

from tsugiki.corpus.claims import claims_for, close, take

TAKE_ALL = """
import sys
from pathlib import Path
from tsugiki.corpus.claims import take
print(*[number for number in range(int(sys.argv[2])) if take(Path(sys.argv[1]), number)])
"""


def test_take_from_several_processes_gives_each_job_to_one_of_them():
    with claims_for(2000) as path:
        command = [sys.executable, "-c", TAKE_ALL, str(path), "2000"]
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
        taken = [list(map(int, one.communicate()[0].split())) for one in running]
        assert sorted(number for some in taken for number in some) == list(range(2000))
        assert close(path) == {one.pid for one, some in zip(running, taken, strict=True) if some}


def test_take_of_a_taken_job_or_after_the_end_is_refused():
    with claims_for(3) as path:
        assert take(path, 1)
        assert not take(path, 1)
        assert take(path, 2)
        assert close(path) == {os.getpid()}
        assert not take(path, 0)
    assert not path.parent.exists()
    assert not take(path, 0)
