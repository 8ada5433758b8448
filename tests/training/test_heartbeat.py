"""Processes that were started from outside look after each other at the store where they met."""

import json

SCRIPT = """
import json, os, signal, sys, time
from datetime import timedelta
from pathlib import Path

from torch.distributed import TCPStore

from tsugiki.artifacts.contract import end_process
from tsugiki.artifacts.outside import Place
from tsugiki.training import heartbeat

work, job = Path(sys.argv[1]), json.loads(sys.argv[2])
heartbeat.SILENCE_SECONDS, heartbeat.BEAT_SECONDS = 3.0, 0.1
store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def child(rank):
    '''What the job says of this process: it stops, leaves after so many seconds, or waits for ever.'''
    what = job["what"][rank]
    with heartbeat.living(Place(rank, job["processes"], "127.0.0.1", store.port), work, end_process):
        time.sleep(0.5)
        if what == "stops":
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(60 if what == "waits" else float(what))


children = []
for rank in range(job["processes"]):
    pid = os.fork()
    if pid == 0:
        child(rank)
        os._exit(0)
    children.append(pid)
left, begun = {}, time.monotonic()
while time.monotonic() < begun + 15 and len(left) < job["ends"]:
    pid, status = os.waitpid(-1, os.WNOHANG)
    if pid:
        left[children.index(pid)] = os.waitstatus_to_exitcode(status)
    time.sleep(0.02)
for pid in children:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
(work / "results.json").write_text(json.dumps(left))
"""


def ends(run_script, directory, *what, count):
    """Exit statuses by rank of the first `count` processes that end, and what all printed."""
    job = {"processes": len(what), "what": what, "ends": count}
    output = directory / "output.txt"
    assert run_script(SCRIPT, [str(directory), json.dumps(job)], output) == 0, output.read_text()
    return json.loads((directory / "results.json").read_text()), output.read_text()


def test_a_process_that_is_stopped_is_named_by_the_first_which_ends(tmp_path, run_script):
    left, said = ends(run_script, tmp_path, "waits", "waits", "stops", count=1)
    assert left == {"0": 1}
    assert said.count("Error:") == 1
    assert "training process 2 of 3 gave no sign of life" in said
    told = json.loads((tmp_path / "rank-00000.error.json").read_text())
    assert "training process 2 of 3" in told["message"]


def test_the_others_end_where_the_first_is_stopped(tmp_path, run_script):
    left, said = ends(run_script, tmp_path, "stops", "waits", "waits", count=2)
    assert left == {"1": 1, "2": 1}
    assert said.count("training process 0 of 3 gave no sign of life") == 2


def test_nobody_waits_for_signs_of_one_that_left(tmp_path, run_script):
    left, said = ends(run_script, tmp_path, "4.5", "0.5", "1", count=3)
    assert left == {"0": 0, "1": 0, "2": 0}
    assert "Error" not in said
