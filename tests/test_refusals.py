"""Wrong flags: one line that names the flag and the value, exit code 2, nothing written."""

import subprocess
import sys
from dataclasses import fields
from importlib import import_module

import pytest

from tests.conftest import SCRIPTS

BAD = {
    "--env-id CartPol-v1": "CartPole",
    "--env-id benchmark.envs:MinAtar/Brekout-v1": "Breakout",
    "--env-id nomodule:X-v0": "No module named 'nomodule'",
    "--env-id Pendulum-v1": "not a Discrete one",
    "--env-id tests.toys:Toy": "has no version; the newest is Toy-v0",
    "--env-id tests.probes:ManyActions-v0": "not a Discrete one",
    "--env-id tests.probes:OneAction-v0": "at least 2 actions",
    "--env-id tests.probes:GraphObservation-v0": "without a fixed size",
    "--env-id ale_py:ALE/Qbert-v5": "ppo_atari_acpg.py",
    "--hidden-size 4 --etf-head --env-id Taxi-v4": "6 actions needs feature_dim >= 5, not 4",
    "--feature-dim 4 --etf-head --env-id Taxi-v4": "6 actions needs feature_dim >= 5, not 4",
    "--hidden-size 5 --etf-head --env-id Taxi-v4 --head-frame orthogonal": ">= 6, not 5",
    "--image-layout auto --env-id tests.toys:Cube-v0": "need channels_first or channels_last",
    "--backbone cnn": "needs images of at least 3x3 pixels",
    "--num-minibatches 7": "must divide num_envs * num_steps",
    "--num-minibatches 512": "minibatches of one row",
    "--num-steps 1000000 --num-envs 65536": "to learn from a rollout takes",
    "--head-frame random": "needs --etf-head",
    "--head-trainable": "needs --etf-head",
    "--feature-activation relu --etf-head": "cannot align with --etf-head",
    "--feature-norm 1e-300": "must be 0 or at least 0.001",
    "--resume missing.pt": "No such file",
    "--resume .": "Is a directory",
}
OUTSIDE = """
    --seed -1 | --seed 4294967296 | --num-threads 0 | --num-threads 1000000000
    --checkpoint-every 0 | --eval-episodes -1 | --eval-episodes 1000000000 | --collapse-every 0
    --etf-scale 0 | --etf-scale 1e308 | --etf-scale inf | --etf-scale -2 | --head-std -1
    --head-std 1e308 | --head-std nan | --feature-norm -1 | --feature-norm 1e308
    --feature-dim 0 | --feature-dim 1000000000 | --hidden-size 0 | --hidden-size 1000000000
    --total-timesteps 0 | --total-timesteps 100000000000000000000 | --learning-rate 0
    --learning-rate -1e-3 | --learning-rate nan | --learning-rate inf | --learning-rate 1e-300
    --num-envs 0 | --num-envs -3 | --num-envs 1000000000000 | --num-steps 0
    --num-steps 1000000000 | --gamma 1.5 | --gamma -0.1 | --gamma nan | --gae-lambda 1.1
    --num-minibatches 0 | --update-epochs 0 | --update-epochs 1000000000 | --clip-coef 0
    --clip-coef 1e308 | --clip-coef -1 | --ent-coef -0.1 | --ent-coef inf | --ent-coef 1e308
    --vf-coef -1 | --vf-coef 1e308 | --max-grad-norm 0 | --max-grad-norm inf
    --target-kl 0 | --target-kl -1 | --target-kl nan | --adam-eps 0 | --adam-eps 1e308
    --adam-eps 1e-300 | --epsilon 1.01 | --epsilon -0.1 | --epsilon nan
"""
BAD |= {flags.strip(): "must lie in [" for line in OUTSIDE.split("\n") for flags in line.split("|")}
BAD.pop("")


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
    [(name, flags) for name in SCRIPTS for flags in BAD if is_known(name, flags.split()[0])],
    indirect=["script"],
)
def test_bad_flags(script, launch, capsys, tmp_path, flags):
    line = refused(launch, script, capsys, *flags.split())
    flag, value, *_ = [*flags.split(), "True"]
    if value.replace(".", "").replace("-", "").replace("e", "").isdigit():
        assert line.startswith(f"error: {flag} ")
    else:
        assert line.startswith(f"error: {flag} {value}: ")
    assert BAD[flags] in line
    assert not any(tmp_path.iterdir())


def test_a_network_that_does_not_fit_into_memory(script, launch, capsys, monkeypatch, tmp_path):
    def allocate(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(script, "Backbone", allocate)
    line = refused(launch, script, capsys, "--hidden-size", 16000)
    assert line.startswith("error: --hidden-size 16000: ") and not any(tmp_path.iterdir())


@pytest.mark.parametrize("error", [ValueError("fan in and fan out"), RuntimeError("mat1 and mat2")])
def test_an_edited_network_s_own_error_keeps_its_traceback(script, launch, monkeypatch, error):
    def edited(*_):
        raise error

    monkeypatch.setattr(script, "Backbone", edited)
    with pytest.raises(type(error), match=str(error)):
        launch(script)


def test_compile_without_a_compiler(script, launch, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    line = refused(launch, script, capsys, "--compile")
    assert line == "error: --compile True: needs a C++ compiler, and there is no no-such-compiler"
    assert not any(tmp_path.iterdir())


def test_compile_without_the_headers_of_python(script, launch, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("sysconfig.get_path", lambda name: "/no/such/directory")
    line = refused(launch, script, capsys, "--compile")
    header = "/no/such/directory/Python.h"
    reason = f"needs Python's headers (python3-dev), and there is no {header}"
    assert line == f"error: --compile True: {reason}"
    assert not any(tmp_path.iterdir())


def test_wandb_that_is_not_there(script, launch, capsys, monkeypatch):
    monkeypatch.setattr(script, "find_spec", lambda name: None)
    assert "pip install wandb" in refused(launch, script, capsys, "--track")


def test_cuda_is_used_where_there_is_one_and_said(script, launch, capsys, monkeypatch):
    run = launch(script, "--total-timesteps", 512, "--eval-episodes", 0)
    assert (
        run.args["cuda"]
        and f"training on cpu, logs in runs/{run.path.name}" in capsys.readouterr().out
    )
    asked = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(script.Agent, "to", lambda self, device: asked.append(device) or self)
    envs = script.make_envs("CartPole-v1", 1)
    script.make_agent(envs, script.Args())
    script.make_agent(envs, script.Args(cuda=False))
    assert asked == ["cuda", "cpu"]


def test_the_exit_code_a_shell_sees(script, tmp_path):
    words = [sys.executable, import_module(script.__name__).__file__, "--epsilon", "2"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --epsilon 2.0: must lie in [0, 1]\n"
