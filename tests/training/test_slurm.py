"""The Slurm script: bash reads it, and does what it should with stand-ins for srun and scontrol."""

import os
import subprocess
import sys

import pytest

from tsugiki.cli import app
from tsugiki.errors import InputError
from tsugiki.training.slurm import Slurm, script

COMMAND = ["tsugiki", "train", "out/it's here", "--data", "{a: 1.0}"]

SRUN = """#!/bin/bash
# what Slurm does on one node: a task a GPU
while [[ $1 == --* ]]; do shift; done
for ((task = 0; task < 2; task++)); do
  SLURM_PROCID=$task SLURM_LOCALID=$task SLURM_NTASKS=2 "$@" &
done
status=0
for job in $(jobs -p); do wait "$job" || status=$?; done
exit $status
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo node7; echo node8; else echo "scontrol $*"; fi
"""
TASK = """
import os, sys
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
line = " ".join([*(os.environ[name] for name in names), *sys.argv[2:]]) + "\\n"
os.write(1, line.encode())  # in one piece: the other task writes too
sys.exit(int(sys.argv[1]))
"""


def run(text, tmp_path):
    """The script with stand-ins for Slurm's programs."""
    for name, content in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "node[7-8]",
        "SLURM_JOB_ID": "12345",
    }
    environment.pop("SLURM_CPUS_PER_TASK", None)
    return subprocess.run(["bash", "-c", text], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "asked",
    [
        Slurm(),
        Slurm(nodes=4),
        Slurm(gpus_per_node=4, partition="gpu-a,gpu-b", account="abc_1", time="2-12:00:00", cpus=12),
        Slurm(setup="module load cuda/12.8; source env/bin/activate"),
    ],
)
def test_the_script_is_bash_and_the_same_each_time(asked):
    text = script("a stage", COMMAND, 32, 2, asked)
    assert (
        subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False).stderr == ""
    )
    assert text == script("a stage", COMMAND, 32, 2, asked)
    directives = text.split("\n\n")[0].splitlines()
    assert directives[0] == "#!/bin/bash"
    assert all(line.startswith("#SBATCH --") for line in directives[1:])
    assert "#SBATCH --job-name=a-stage" in directives
    assert "#SBATCH --signal=TERM@300" in directives
    assert "#SBATCH --requeue" in directives


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        (None, 300),
        ("24:00:00", 300),
        ("2-0", 300),
        ("1-12:30", 300),
        ("20", 300),
        ("10", 150),  # minutes
        ("4:00", 60),
        ("0-0:08", 120),
        ("0:06:00", 90),
        ("1", 15),
    ],
)
def test_the_signal_comes_before_the_end_and_never_at_the_beginning(time, seconds):
    """Slurm sends a signal that is due at once when a job starts: it would queue itself again for ever."""
    text = script("a", COMMAND, 8, 1, Slurm(time=time))
    assert f"#SBATCH --signal=TERM@{seconds}\n" in text


def test_srun_is_told_the_cores_of_a_task_and_waits_for_the_last():
    text = script("a", COMMAND, 8, 1, Slurm(cpus=12))
    assert "#SBATCH --cpus-per-task=12\n" in text
    assert "srun --kill-on-bad-exit=1 --wait=0 --cpus-per-task=12 bash -c" in text
    assert "OMP_NUM_THREADS=12\n" in text
    assert "many clusters give a task one core" not in text
    without = script("a", COMMAND, 8, 1, Slurm())
    assert "srun --kill-on-bad-exit=1 --wait=0 bash -c" in without
    assert "many clusters give a task one core" in without


def test_nodes_and_gpus_follow_from_the_layout_and_from_what_is_asked():
    def sizes(processes, **asked):
        lines = script("a", COMMAND, processes, 1, Slurm(**asked)).splitlines()
        found = dict(
            line.removeprefix("#SBATCH --").split("=", 1)
            for line in lines
            if "SBATCH" in line and "=" in line
        )
        assert found["gpus-per-node"] == found["ntasks-per-node"]
        return int(found["nodes"]), int(found["gpus-per-node"])

    assert sizes(32) == (4, 8)
    assert sizes(12) == (2, 6)
    assert sizes(1) == (1, 1)
    assert sizes(32, gpus_per_node=4) == (8, 4)
    assert sizes(32, nodes=2) == (2, 16)
    for asked in ({"nodes": 3}, {"gpus_per_node": 5}, {"nodes": 2, "gpus_per_node": 8}):
        with pytest.raises(InputError, match="the layout has 32 processes") as caught:
            sizes(32, **asked)
        assert "4 x 8" in caught.value.hint


def test_a_tensor_group_wider_than_a_node_is_remarked_upon():
    assert "wider than a node" in script("a", COMMAND, 32, 16, Slurm())
    assert "wider than a node" not in script("a", COMMAND, 32, 8, Slurm())


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Slurm(time="tomorrow"), "is no time"),
        (Slurm(partition="a b"), "is no name"),
        (Slurm(account="$(id)"), "is no name"),
        (Slurm(setup="a\nb"), "more than one line"),
    ],
)
def test_values_that_are_none_of_slurm_s_are_refused(asked, message):
    with pytest.raises(InputError, match=message):
        script("a", COMMAND, 8, 1, asked)


@pytest.mark.parametrize(("status", "queued"), [(0, False), (1, False), (143, True)])
def test_the_script_starts_every_process_in_its_place_and_queues_itself_again_after_sigterm(
    status, queued, tmp_path
):
    command = [sys.executable, "-c", TASK, str(status), "it's", "{a: $HOME}"]
    done = run(script("a", command, 2, 1, Slurm()), tmp_path)
    lines = sorted(line for line in done.stdout.splitlines() if not line.startswith("scontrol"))
    tail = "2 node7 32345 4 it's {a: $HOME}"
    assert lines == [f"0 0 {tail}", f"1 1 {tail}"]
    assert done.returncode == status
    assert ("scontrol requeue 12345" in done.stdout) == queued


def test_the_command_prints_the_script_of_a_recipe_s_stage_and_of_a_stage_alone(capsys):
    app(
        ["train", "recipes/swallow-llama2-7b.yaml", "--stage", "nve", "--sbatch"],
        result_action="return_value",
    )
    said = capsys.readouterr().out
    assert "#SBATCH --nodes=4\n#SBATCH --ntasks-per-node=8\n" in said
    assert "tsugiki run recipes/swallow-llama2-7b.yaml --only nve --runs runs" in said
    alone = ["train", "out/x", "--model", "{preset: llama-nano}", "--tokenizer", "{train: a, size: 320}"]
    alone += ["--data", "{a: 1}", "--tokens", "1M", "--parallel", "{data: 4}", "--validation", "a", "b"]
    app([*alone, "--sbatch", "--gpus-per-node", "2"], result_action="return_value")
    said = capsys.readouterr().out
    assert "#SBATCH --nodes=2\n" in said
    assert "tsugiki train out/x --model '{preset: llama-nano}'" in said
    assert "--validation a b" in said
    assert "sbatch" not in said.split("srun", 1)[1]
