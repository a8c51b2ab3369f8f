"""The scripts on a GPU, which conftest.py asks for: they learn there what they learn on the CPU, and
checkpoints go both ways."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import LOG_ALL, SCRIPTS, SHORT, Run

ATARI = "ppo_atari_acpg"
SEEDS = ["benchmark.seeds.ppo_acpg", "benchmark.seeds.a2c_acpg"]
MINATAR = ["--env-id", "benchmark.envs:MinAtar/Breakout-v1"]
ATARI_FLAGS = ["--num-envs", "4", "--num-steps", "32", "--num-minibatches", "2", "--log-every", "1"]


def train(module: str, tmp_path: Path, *flags: object) -> list[Run]:
    """The runs of a script in a process of its own, in the order of their seeds."""
    there = {*tmp_path.glob("runs/*")}
    words = [sys.executable, "-m", module, *map(str, flags), "--runs-dir", str(tmp_path / "runs")]
    subprocess.run(words, check=True)
    return [Run(path) for path in sorted({*tmp_path.glob("runs/*")} - there)]


def flags_of(module: str, steps: int) -> list[object]:
    """Flags of a short run, in which every iteration is logged."""
    name = module.split(".")[-1]
    flags = ATARI_FLAGS if name == ATARI else SHORT[name] + LOG_ALL[name]
    return [*flags, "--total-timesteps", steps, "--eval-episodes", 0]


@pytest.mark.parametrize("head", ["", "--etf-head"])
@pytest.mark.parametrize("module", [*SCRIPTS, ATARI, *SEEDS])
def test_the_first_update_is_that_of_the_cpu(module, head, tmp_path):
    """The same actions from the same noise, and so the same losses but for rounding, which is that of
    TensorFloat-32 in convolutions."""
    flags = [*flags_of(module, 100), *head.split()]
    gpu = train(module, tmp_path, *flags)
    cpu = train(module, tmp_path, *flags, "--no-cuda")
    tolerance = 2e-2 if module == ATARI else 1e-3
    assert len(gpu) == len(cpu) > 0
    for ours, theirs in zip(gpu, cpu):
        losses = [tag for tag in theirs.scalars if tag.startswith("losses/")]
        assert losses
        for tag in losses:
            step, expected = theirs.scalars[tag][0]
            assert ours.scalars[tag][0] == (step, pytest.approx(expected, tolerance, tolerance)), (
                tag
            )


@pytest.mark.parametrize("cnn", [False, True])
@pytest.mark.parametrize("script", SCRIPTS)
def test_all_is_on_the_gpu(script, cnn, launch):
    script = importlib.import_module(script)
    run = launch(script, *flags_of(script.__name__, 300), *(MINATAR if cnn else []))
    tensors = [*run.checkpoint["agent"].values()]
    assert tensors and all(tensor.is_cuda for tensor in tensors)


@pytest.mark.parametrize("module", [*SCRIPTS, ATARI])
@pytest.mark.parametrize("first, then", [([], ["--no-cuda"]), (["--no-cuda"], ["--cuda"])])
def test_a_checkpoint_goes_on_elsewhere(module, first, then, tmp_path):
    """From the GPU to the CPU and back."""
    run, *_ = train(module, tmp_path, *flags_of(module, 200), *first)
    assert run.checkpoint["global_step"] >= 200
    resume = ["--resume", run.path / "checkpoint.pt", "--total-timesteps", 400]
    train(module, tmp_path, *resume, *then)
    assert run.checkpoint["global_step"] >= 400
    device = {tensor.device.type for tensor in run.checkpoint["agent"].values()}
    assert device == ({"cpu"} if then == ["--no-cuda"] else {"cuda"})


@pytest.mark.parametrize("flag", ["--pin-memory", "--amp", "--no-channels-last", "--compile"])
def test_flags_of_the_gpu_change_how_and_not_what(flag, tmp_path):
    plain, *_ = train(ATARI, tmp_path, *flags_of(ATARI, 100))
    other, *_ = train(ATARI, tmp_path, *flags_of(ATARI, 100), flag)
    for tag in ("losses/entropy", "losses/value_loss"):
        assert other.scalars[tag][0][1] == pytest.approx(plain.scalars[tag][0][1], 5e-2), tag


def test_it_learns(tmp_path):
    run, *_ = train("ppo_acpg", tmp_path, "--total-timesteps", 30_000, "--etf-head")
    assert run.final_return() > 60
