"""Wrong input: one line that names the flag and the value, exit code 2, nothing written."""

import re
import subprocess
import sys
from dataclasses import fields
from importlib import import_module

import pytest
import torch

from tests.conftest import OLD_FORM, SHORT, each_of

script = each_of(OLD_FORM)

BAD = {
    "--env-id CartPol-v1": "CartPole",
    "--env-id benchmark.envs:MinAtar/Brekout-v1": "Breakout",
    "--env-id nomodule:X-v0": "No module named 'nomodule'",
    "--env-id Pendulum-v1": "not a Discrete one",
    "--env-id tests.probes:ManyActions-v0": "not a Discrete one",
    "--env-id tests.probes:OneAction-v0": "at least 2 actions",
    "--env-id tests.probes:GraphObservation-v0": "without a fixed size",
    "--hidden-size 4 --etf-head --env-id Taxi-v4": "6 actions needs feature_dim >= 5, not 4",
    "--hidden-size 5 --etf-head --env-id Taxi-v4 --head-frame orthogonal": "feature_dim >= 6, not 5",
    "--total-timesteps 0": "must be finite and lie in [1, inf]",
    "--num-envs -3": "must be finite and lie in [1, inf]",
    "--num-steps 0": "must be finite and lie in [",
    "--checkpoint-every 0": "must be finite and lie in [1, inf]",
    "--collapse-every 0": "must be finite and lie in [1, inf]",
    "--seed -1": "lie in [0, 4294967296]",
    "--num-minibatches 7": "must divide num_envs * num_steps",
    "--epsilon 1.01": "must be finite and lie in [0, 1]",
    "--epsilon -0.1": "must be finite and lie in [0, 1]",
    "--gamma 1.5": "must be finite and lie in [0, 1]",
    "--learning-rate nan": "must be finite",
    "--etf-scale inf": "must be finite",
    "--head-frame random": "needs --etf-head",
    "--head-trainable": "needs --etf-head",
    "--feature-activation relu --etf-head": "cannot align with --etf-head",
    "--backbone cnn": "needs images",
    "--capture-video": "--evaluate",
    "--resume missing.pt": "No such file",
    "--evaluate missing.pt": "No such file",
}


def refused(launch, script, capsys, *flags) -> str:
    """The one line of an exit with code 2."""
    with pytest.raises(SystemExit) as exit:
        launch(script, *flags)
    assert exit.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def is_known(script: str, flag: str) -> bool:
    return flag.removeprefix("--").replace("-", "_") in {
        field.name for field in fields(import_module(script).Args)
    }


@pytest.mark.parametrize(
    ("script", "flags"),
    [(script, flags) for script in OLD_FORM for flags in BAD if is_known(script, flags.split()[0])],
    indirect=["script"],
)
def test_bad_flags(script, launch, capsys, tmp_path, flags):
    line = refused(launch, script, capsys, *flags.split())
    flag, value, *_ = [*flags.split(), "True"]
    assert line.startswith(f"error: {flag} {value}: ")
    assert BAD[flags] in line
    assert not any(tmp_path.iterdir())


def test_cuda_that_is_not_there(script, launch, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert refused(launch, script, capsys, "--cuda").startswith("error: --cuda True: ")


def test_wandb_that_is_not_there(script, launch, capsys, monkeypatch):
    monkeypatch.setattr(script, "find_spec", lambda name: None)
    assert "pip install wandb" in refused(launch, script, capsys, "--track")


def test_unfit_checkpoints(script, launch, capsys, tmp_path):
    path = launch(script, "--total-timesteps", 600, "--etf-head", "--save-model").path
    checkpoint = path / "checkpoint.pt"
    (tmp_path / "truncated.pt").write_bytes(checkpoint.read_bytes()[:-5000])
    torch.save(torch.load(checkpoint) | {"script": "sarsa"}, tmp_path / "other.pt")
    torch.save(torch.load(checkpoint) | {"args": {"seed": 1}}, tmp_path / "older.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    before = sorted(file.name for file in path.iterdir())
    capsys.readouterr()
    for flags, expected in {
        ("--resume", "truncated.pt"): "cannot be read",
        ("--evaluate", "truncated.pt"): "cannot be read",
        ("--resume", "list.pt"): "cannot be read",
        ("--resume", "other.pt"): "was written by sarsa.py",
        ("--resume", "older.pt"): "another version",
        ("--resume", str(path / "agent.pt")): "optimizer",
    }.items():
        line = refused(launch, script, capsys, *flags)
        assert line.startswith(f"error: {' '.join(flags)}: ") and expected in line
    mismatched = ["--baseline value"] if script.__name__ == "reinforce_acpg" else []
    for flags in (
        *mismatched,
        "--env-id Acrobot-v1",
        "--no-etf-head",
        "--etf-scale 7.0",
        "--head-trainable",
        "--head-frame random",
    ):
        for mode in ("--resume", "--evaluate"):
            line = refused(launch, script, capsys, mode, checkpoint, *flags.split())
            assert line.startswith("error: --") and f"but {checkpoint} was trained with" in line
    assert sorted(file.name for file in path.iterdir()) == before


def test_a_loss_that_is_not_finite_stops_the_run(script, launch):
    flags = (
        "--env-id",
        "tests.probes:Diverging-v0",
        *SHORT[script.__name__],
        "--total-timesteps",
        5000,
    )
    with pytest.raises(SystemExit) as exit:
        launch(script, *flags, "--checkpoint-every", 10000)
    assert re.match(r"iteration \d+: ", exit.value.code) and exit.value.code.endswith(
        "last good checkpoint: None"
    )
    with pytest.raises(SystemExit) as exit:
        launch(script, *flags, "--checkpoint-every", 2)
    assert exit.value.code.endswith("checkpoint.pt") and " is nan" in exit.value.code


def test_the_exit_code_a_shell_sees(script, tmp_path):
    done = subprocess.run(
        [sys.executable, script.__file__, "--epsilon", "2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --epsilon 2.0: must be finite and lie in [0, 1]\n"
