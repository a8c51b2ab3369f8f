"""benchmark/run.py --cluster slurm against a real Slurm of one node, which this file starts
(slurm-wlm and munge, as root)."""

import json
import platform
import secrets
import socket
import subprocess
from pathlib import Path

import pytest

from benchmark import run
from benchmark.runner import execute, plan, slurm
from tests.test_run import (
    ALL_STEPS,
    OUT,
    PPO,
    ROOT,
    arguments,
    contents,
    records,
    run_all,
    steps,
    use_stand_ins,
    wait_until,
)

NODE = platform.node().split(".")[0]
CONFIGURATION = """
ClusterName=test
SlurmctldHost={node}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
MaxArraySize=4
KillWait=1
ReturnToService=2
NodeName={node} NodeAddr=127.0.0.1 CPUs=2
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE
"""


def control(*words: object) -> str:
    """Output of a command of Slurm."""
    return subprocess.run([*map(str, words)], check=True, capture_output=True, text=True).stdout


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A running Slurm; SLURM_CONF names its configuration."""
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "munge.key").touch(0o400)
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(node=NODE, folder=folder, ports=free_ports(2))
    )
    files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    munged = ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files]
    daemons = []
    with pytest.MonkeyPatch.context() as environment, open(folder / "daemons.log", "w") as log:
        environment.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        for words in (munged, ["slurmctld", "-D"], ["slurmd", "-D"]):
            daemons.append(subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT))
            wait_until((folder / "munge.socket").exists)
        wait_until(
            lambda: (
                "idle"
                in subprocess.run(["sinfo", "--noheader"], capture_output=True, text=True).stdout
            )
        )
        yield
        control("scancel", "--me")
        wait_until(lambda: not slurm.queue())
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait()


@pytest.fixture
def patient(cluster, monkeypatch, tmp_path):
    """Stand-ins in the working directory, which take 0.1 s for ten steps, and a runner that looks
    at the queue often."""
    use_stand_ins(monkeypatch, tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(slurm, "POLL", 0.2)
    Path("pause").write_text("0.1")


def begin(**flags: object):
    """The runs of this plan, and the states of their submitted jobs."""
    args = arguments(**{"heads": ("linear",), "cluster": "slurm"} | flags)
    runs = plan.asked_for(args)
    OUT.mkdir(exist_ok=True)
    execution = execute.Execution(OUT, {PPO: execute.hash_of(PPO)})
    return runs, run.begin(execution, runs, [(entry,) for entry in runs], args)


def submitted() -> dict[str, str]:
    """The job of each run."""
    return json.loads((OUT / "slurm/jobs.json").read_text())


def checkpoints() -> list[Path]:
    return sorted(OUT.glob("runs/*/*/checkpoint.pt"))


def assert_all_finished() -> None:
    """Every run is finished and holds each step once."""
    for name, record in records().items():
        assert record["outcome"] == "finished"
        assert steps(name) == ALL_STEPS


def test_an_array_of_two_runs_finishes(patient, capsys):
    Path("pause").unlink()
    assert run_all(cluster="slurm", num_seeds=1, partition="main", time=7) == 0
    assert "2 of 2 done, 0 running, 0 failed" in capsys.readouterr().err
    assert len(records()) == 2
    assert {job.partition("_")[2] for job in submitted().values()} == {"0", "1"}
    (script,) = OUT.glob("slurm/*_submission.sh")
    for line in ("--array=0-1%2", "--partition=main", "--requeue", "--time=7", "--cpus-per-task=1"):
        assert f"#SBATCH {line}\n" in script.read_text()
    assert_all_finished()


def test_a_cancelled_job_is_continued_by_the_same_command(patient, capsys):
    runs, states = begin(num_seeds=2)
    next(states)
    wait_until(lambda: len(checkpoints()) == 2)
    job = submitted()[runs[0].name]
    control("scancel", job)
    wait_until(lambda: job not in slurm.queue())
    Path("pause").unlink()
    *_, (running, ended) = states
    assert not running and {*ended} == {*runs}
    assert [records()[entry.name]["outcome"] for entry in runs] == ["running", "finished"]
    assert run_all(cluster="slurm", heads=("linear",), num_seeds=2) == 0
    assert [records()[entry.name]["attempts"] for entry in runs] == [2, 1]
    assert f"--resume {checkpoints()[0]}" in (OUT / "runs" / runs[0].name / "log.txt").read_text()
    assert_all_finished()


@pytest.mark.parametrize("preempt", [["scontrol", "requeue"], ["scancel", "--signal=USR2"]])
def test_a_preempted_job_goes_on_from_its_checkpoint_and_a_new_runner_waits_for_it(
    patient, preempt
):
    runs, states = begin(num_seeds=1)
    next(states)
    states.close()
    wait_until(checkpoints)
    job = submitted()[runs[0].name]
    control(*preempt, job)
    wait_until(lambda: slurm.queue().get(job) == "PENDING")
    Path("pause").unlink()
    control(
        "scontrol", "update", f"JobId={job}", "StartTime=now"
    )  # else it begins after two minutes
    assert run_all(cluster="slurm", heads=("linear",), num_seeds=1) == 0
    assert submitted() == {runs[0].name: job}
    assert records()[runs[0].name]["attempts"] == 2
    assert_all_finished()


def test_a_rerun_wants_former_jobs_gone(patient, capsys):
    runs, states = begin(num_seeds=1)
    next(states)
    states.close()
    wait_until(records)
    with open("ppo_acpg.py", "a") as file:
        file.write("# another line\n")
    job = submitted()[runs[0].name]
    for flags, expected in (
        ({}, "error: --out out: ppo_acpg.py was edited since 1 of these runs were started; "),
        ({"rerun": True}, f"error: --rerun: first `scancel {job}`, jobs of the former script"),
    ):
        assert run_all(cluster="slurm", heads=("linear",), num_seeds=1, **flags) == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith(expected)
    control("scancel", job)
    wait_until(lambda: job not in slurm.queue())
    Path("pause").unlink()
    assert run_all(cluster="slurm", heads=("linear",), num_seeds=1, rerun=True) == 0
    assert (OUT / "replaced" / runs[0].name / "record.json").exists()
    assert_all_finished()


def test_jobs_wait_for_a_drained_node(patient):
    Path("pause").unlink()
    control("scontrol", "update", f"NodeName={NODE}", "State=DRAIN", "Reason=test")
    runs, states = begin(num_seeds=2)
    for _ in range(5):
        assert next(states) == ([], [])
    assert {*slurm.queue().values()} == {"PENDING"} and not records()
    control("scontrol", "update", f"NodeName={NODE}", "State=RESUME")
    *_, (running, ended) = states
    assert not running and {*ended} == {*runs}
    assert_all_finished()


def test_more_runs_than_an_array_takes_are_several_one_after_the_other(patient):
    Path("pause").unlink()
    assert slurm.max_array_size() == 4
    assert run_all(cluster="slurm", heads=("linear",), num_seeds=6) == 0
    jobs = list(submitted().values())
    assert [job.partition("_")[2] for job in jobs] == ["0", "1", "2", "3", "0", "1"]
    first, second = dict.fromkeys(job.partition("_")[0] for job in jobs)
    script = (OUT / "slurm" / f"{second}_submission.sh").read_text()
    assert f"#SBATCH --dependency=afterany:{first}\n" in script and "--array=0-1%2" in script
    assert len(records()) == 6
    assert_all_finished()


def test_what_slurm_refuses_is_one_line_and_leaves_nothing(patient, capsys):
    before = contents(Path())
    assert run_all(cluster="slurm", num_seeds=1, partition="nowhere") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: --cluster slurm: ") and "invalid partition" in line
    assert line.endswith("(2 of 2 runs have no job)")
    assert contents(Path()) == before and not (OUT / "slurm").exists()


def test_a_submission_that_is_refused_halfway_keeps_what_was_accepted(patient, capsys, monkeypatch):
    whole = slurm.submit_array

    def submit_array(execution, runs, args, after):
        args.partition = "nowhere" if after else None
        return whole(execution, runs, args, after)

    Path("pause").unlink()
    with monkeypatch.context() as refusing:
        refusing.setattr(slurm, "submit_array", submit_array)
        assert run_all(cluster="slurm", heads=("linear",), num_seeds=6) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "invalid partition" in line and line.endswith("(2 of 6 runs have no job)")
    planned = json.loads((OUT / "plan.json").read_text())["runs"]
    assert [entry["name"] for entry in planned] == list(submitted())
    assert len(planned) == 4 and len(list(OUT.glob("slurm/*.pkl"))) >= 4
    assert run_all(cluster="slurm", heads=("linear",), num_seeds=6) == 0
    assert len(records()) == 6
    assert_all_finished()
