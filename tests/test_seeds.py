"""benchmark/seeds/: many seeds in one process leave what the scripts leave one by one."""

import hashlib
import importlib
import json
import random
import signal
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests import rollouts
from tests.conftest import Run
from tests.test_life import start
from tests.test_shared import definitions

NAMES = ("ppo_acpg", "a2c_acpg")
OWN = {  # definitions that differ from the script's, below and above the line
    *("Args", "Rollout", "collect", "Batch", "make_batch", "update", "train", "main"),
}
HEADS = {
    "learned": {},
    "frozen": {"etf_head": True},
    "trainable": {"etf_head": True, "head_trainable": True},
}
SHORT = {"ppo_acpg": 512, "a2c_acpg": 40}  # steps of an iteration with the default flags


@pytest.fixture(params=NAMES)
def name(request) -> str:
    return request.param


@pytest.fixture
def variant(name) -> ModuleType:
    return importlib.import_module(f"benchmark.seeds.{name}")


@pytest.fixture
def script(name) -> ModuleType:
    return importlib.import_module(name)


@pytest.fixture
def train(monkeypatch, tmp_path):
    """train(module, *flags): run its main() in tmp_path; returns the runs by their seeds."""

    def train(module: ModuleType, *flags: object) -> dict[int, Run]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [module.__file__, *map(str, flags)])
        before = {*tmp_path.rglob("args.json")}
        module.main()
        made = {*tmp_path.rglob("args.json")} - before
        return {run.args["seed"]: run for run in (Run(file.parent) for file in made)}

    return train


def without_seconds(run: Run) -> list[dict]:
    return [row | {"seconds": None} for row in run.episodes]


# The text
def test_what_a_variant_shares_with_its_script_is_the_same_text(name):
    theirs = definitions(Path(f"{name}.py").read_text())
    ours = definitions(Path(f"benchmark/seeds/{name}.py").read_text())
    differing = {key for key in ours.keys() & theirs.keys() if ours[key] != theirs[key]}
    assert differing <= OWN
    assert theirs.keys() - ours.keys() <= {"check_flattened", "loss_gradient", "update"}


def test_a_variant_is_one_of_the_script_as_it_is(name):
    """After an edit of a script, bring its variant into line, and its hash in scripts.json, which
    benchmark.run trusts."""
    hashes = json.loads(Path("benchmark/seeds/scripts.json").read_text())
    assert hashes.keys() == {f"{name}.py" for name in NAMES}
    assert hashes[f"{name}.py"] == hashlib.sha256(Path(f"{name}.py").read_bytes()).hexdigest()


def test_what_the_variants_share_is_the_same_text():
    first, second = (definitions(Path(f"benchmark/seeds/{n}.py").read_text()) for n in NAMES)
    scripts = [definitions(Path(f"{n}.py").read_text()) for n in NAMES]
    alike = {key for key in first.keys() & second.keys() if first[key] == second[key]}
    optimizers = {"train_step", "TrainState", "Seed", "stack", "update", "train", "Batch"}
    of_scripts = {key for key in first if scripts[0].get(key) != scripts[1].get(key)} - OWN
    assert first.keys() & second.keys() - alike <= optimizers | of_scripts


# Equality with the script
def stacked(variant, script, flags: dict, num_seeds: int = 3):
    """Agents of several seeds, their state, and a rollout of each by the script's own functions."""
    args = variant.Args(num_envs=4, num_steps=16, **flags)
    runs = [
        variant.RunOfSeed(variant.replace(args, seed=seed), {}) for seed in range(1, num_seeds + 1)
    ]
    envs = script.make_envs("CartPole-v1", 4)
    envs.single_observation_space = script.gym.spaces.Box(-1, 1, (5,))
    envs.single_action_space = script.gym.spaces.Discrete(3)
    seeds = [variant.Seed(run, envs) for run in runs]
    for seed in seeds:
        torch.nn.init.normal_(seed.agent.value_layer.weight)
        if isinstance(seed.agent.head.weight, torch.nn.Parameter):
            torch.nn.init.normal_(seed.agent.head.weight)
    single = [rollouts.random_rollout(script, seed.agent) for seed in seeds]
    for seed, own in enumerate(single):
        own.rewards.add_(seed)
    together = variant.Rollout(*(torch.stack(columns, dim=1) for columns in zip(*single)))
    return args, seeds, single, together


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_one_update_is_that_of_the_script_for_each_seed(
    name, variant, script, head, epsilon, compile
):
    if compile and (epsilon or head == "trainable"):
        pytest.skip("compiled once for each kind of parameters")
    flags = HEADS[head] | {"epsilon": epsilon}
    args, seeds, single, together = stacked(variant, script, flags)
    state = variant.stack(seeds)
    agent = seeds[0].agent
    loss = {"ppo_acpg": "ppo_loss", "a2c_acpg": "a2c_loss"}[name]
    losses_fn = variant.each_seed(
        agent, lambda agent, rows: getattr(variant, loss)(agent, rows, args)
    )
    step_fn = variant.compiled(variant.train_step) if compile else variant.train_step
    batch = variant.make_batch(agent, state, together, args)
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(seeds))]
    rates = [1e-3, 2e-3, 3e-3]
    if name == "ppo_acpg":
        results = variant.update(
            losses_fn, step_fn, state, batch, rates, [True] * 3, generators, args
        )
    else:
        parts = step_fn(
            losses_fn, state, batch, torch.tensor(rates)[:, None], torch.ones(3, 1).bool(), args
        )
        results = [{key: value[k].item() for key, value in parts.items()} for k in range(3)]

    for number, seed in enumerate(seeds):
        own_batch = script.make_batch(seed.agent, single[number], args)
        # Advantages are what a return, a sum of some numbers that each may be rounded, leaves.
        rounding = 4 * torch.finfo().eps * own_batch.returns.abs().max().item()
        for column, theirs in own_batch._asdict().items():
            ours = getattr(batch, column)[number]
            atol = rounding if column == "advantages" else 1e-6
            torch.testing.assert_close(ours, theirs, atol=atol, rtol=1e-5)
        seed.optimizer.param_groups[0]["lr"] = rates[number]
        torch.manual_seed(number)
        before = seed.theta.clone()
        expected = script.update(
            seed.agent, seed.theta, script.loss_gradient, seed.optimizer, own_batch, args
        )
        assert not torch.equal(before, seed.theta)
        torch.testing.assert_close(state.theta[number], seed.theta, atol=1e-6, rtol=0)
        assert results[number] == pytest.approx(expected, rel=1e-4, abs=1e-6)
        torch.testing.assert_close(
            state.mean_square[number], seed.optimizer.mean_square, atol=1e-6, rtol=1e-4
        )


@pytest.mark.parametrize("head", ["--no-etf-head", "--etf-head"])
def test_a_run_is_the_script_s_whatever_runs_beside_it(name, variant, script, train, head):
    """Its weights are equal to the bit among two and among five; the script rounds otherwise."""
    flags = ("--env-id", "Acrobot-v1", head, "--total-timesteps", 6000, "--eval-episodes", 1)
    five = train(variant, *flags, "--num-seeds", 5)[4]
    two = train(variant, *flags, "--num-seeds", 2, "--seed", 4)[4]
    alone = train(script, *flags, "--seed", 4)[4]
    assert without_seconds(five) == without_seconds(two) == without_seconds(alone)
    assert len(five.episodes) > 5
    saved = [run.checkpoint for run in (five, two, alone)]
    for key, weights in saved[0]["agent"].items():
        assert torch.equal(weights, saved[1]["agent"][key])
    assert torch.equal(saved[0]["random"]["torch"], saved[2]["random"]["torch"])
    assert saved[0].keys() == saved[2].keys()
    assert five.evaluation == two.evaluation
    ignored = {"runs_dir"}
    assert {k: v for k, v in five.args.items() if k not in ignored} == {
        k: v for k, v in alone.args.items() if k not in ignored
    }
    assert five.scalars.keys() == alone.scalars.keys()


def test_the_script_goes_on_with_one_of_the_runs(name, variant, script, train):
    steps = 3 * SHORT[name]
    run = train(variant, "--total-timesteps", steps, "--num-seeds", 2, "--eval-episodes", 0)[2]
    flags = ("--resume", run.path / "checkpoint.pt", "--total-timesteps", 2 * steps)
    train(script, *flags, "--eval-episodes", 0)
    assert run.checkpoint["global_step"] >= 2 * steps


# What must not move
def test_a_seed_that_waits_does_not_move(name, variant, script):
    args, seeds, _, together = stacked(variant, script, {})
    state = variant.stack(seeds)
    agent = seeds[0].agent
    loss = {"ppo_acpg": "ppo_loss", "a2c_acpg": "a2c_loss"}[name]
    losses_fn = variant.each_seed(
        agent, lambda agent, rows: getattr(variant, loss)(agent, rows, args)
    )
    batch = variant.make_batch(agent, state, together, args)
    batch.advantages[1] = torch.nan  # its loss is not even finite
    batch.valid[1] = False
    before = [tensor.clone() for tensor in state[:-1]]
    moves = torch.tensor([[True], [False], [True]])
    variant.train_step(losses_fn, state, batch, torch.full((3, 1), 1e-3), moves, args)
    for old, new in zip(before, state[:-1]):
        assert torch.equal(old[1], new[1])
        assert not torch.equal(old[0], new[0]) and not torch.equal(old[2], new[2])
        assert new.isfinite().all()


def test_seeds_stop_at_their_own_kl_and_skip_their_own_minibatches():
    variant = importlib.import_module("benchmark.seeds.ppo_acpg")
    script = importlib.import_module("ppo_acpg")
    args, seeds, single, together = stacked(
        variant, script, {"target_kl": 1e-4, "learning_rate": 1e-3}
    )
    state = variant.stack(seeds)
    together.valid[1:, 1] = False  # minibatches of the second seed have few rows
    single[1].valid[1:] = False
    agent = seeds[0].agent
    losses_fn = variant.each_seed(agent, lambda agent, rows: variant.ppo_loss(agent, rows, args))
    batch = variant.make_batch(agent, state, together, args)
    generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
    rates = [1e-3, 1e-3, 1e-7]
    results = variant.update(
        losses_fn, variant.train_step, state, batch, rates, [True] * 3, generators, args
    )
    for number, seed in enumerate(seeds):
        seed.optimizer.param_groups[0]["lr"] = rates[number]
        torch.manual_seed(number)
        own = script.make_batch(seed.agent, single[number], args)
        expected = script.update(
            seed.agent, seed.theta, script.loss_gradient, seed.optimizer, own, args
        )
        assert results[number] == pytest.approx(expected, rel=1e-4, abs=1e-6)
        assert state.steps[number].item() == seed.optimizer.steps
        torch.testing.assert_close(state.theta[number], seed.theta, atol=1e-6, rtol=0)
    assert len({seed.optimizer.steps for seed in seeds}) == 3


def test_an_edited_network_acts_as_it_learns(variant):
    """A head that NumPy's layers do not have, and one that branches."""

    class Cosine(torch.nn.Linear):
        def forward(self, features):
            normalize = torch.nn.functional.normalize
            return 5 * normalize(features) @ normalize(self.weight).T

    class Branching(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Linear(64, 3)
            self.b = torch.nn.Sequential(
                torch.nn.Linear(64, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
            )

        def forward(self, features):
            return self.a(features) + self.b(features)

    for head, stays in ((None, True), (lambda: Cosine(64, 3), False), (Branching, False)):
        args = variant.Args()
        agents = [variant.Agent((5,), 3, args) for _ in range(2)]
        for agent in agents:
            if head is not None:
                agent.head = head()
        theta = torch.stack([variant.flatten_parameters(agent) for agent in agents])
        buffers = variant.stacked_buffers(agents)
        empty = [None] * (len(variant.TrainState._fields) - 2)
        state = variant.TrainState(theta, *empty, buffers)
        obs = torch.randn(8, 5).numpy()
        policy = variant.PolicyOfSeeds(agents[0], state, obs)
        policy.prove()
        assert bool(policy.numpy_layers) == stays
        expected = torch.cat([agents[s](torch.from_numpy(obs[4 * s :][:4]))[1] for s in range(2)])
        torch.testing.assert_close(
            torch.from_numpy(policy(obs)), expected.detach(), atol=1e-5, rtol=1e-5
        )


# The life of a process
def test_killed_and_resumed_every_seed_has_its_steps_and_no_episode_twice(name, variant, tmp_path):
    """Killed at random moments; the seeds' checkpoints need not be of the same iteration."""
    steps = 40 * SHORT[name]
    every = {"ppo_acpg": 1, "a2c_acpg": 7}[name]
    flags = ("--num-seeds", 3, "--total-timesteps", steps, "--checkpoint-every", every)
    flags = (*flags, "--eval-episodes", 2, "--runs-dir", "runs/of-{seed}")
    waits = random.Random(0)
    process = start(variant, tmp_path, *flags)
    for _ in range(3):
        deadline = time.monotonic() + 60
        while not [*tmp_path.rglob("checkpoint.pt")] and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(waits.uniform(0, 1.5))
        process.kill()
        process.communicate()
        checkpoint = min(tmp_path.rglob("checkpoint.pt"))
        process = start(variant, tmp_path, "--resume", checkpoint)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    runs = [Run(file.parent) for file in tmp_path.rglob("args.json")]
    assert sorted(run.args["seed"] for run in runs) == [1, 2, 3]
    for run in runs:
        assert run.path.parent.name == f"of-{run.args['seed']}"
        assert steps <= run.checkpoint["global_step"] < steps + SHORT[name]
        ends = [row["global_step"] for row in run.episodes]
        assert ends == sorted(ends)
        assert len(run.evaluation) == 2
        lengths = sum(row["length"] for row in run.episodes)
        assert lengths <= run.checkpoint["global_step"]


def test_ctrl_c_saves_all_and_says_how_to_go_on(variant, tmp_path):
    process = start(variant, tmp_path, "--num-seeds", 2, "--total-timesteps", 10**7)
    while not [*tmp_path.rglob("events.*")]:
        time.sleep(0.05)
        assert process.poll() is None
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "go on with: python" in err and "Traceback" not in err
    runs = [Run(file.parent) for file in tmp_path.rglob("checkpoint.pt")]
    assert len(runs) == 2
    assert len({run.checkpoint["iteration"] for run in runs}) == 1


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--num-seeds", 1], "--num-seeds 1: must be at least 2"),
        (["--num-seeds", 10**9], "--num-seeds 1000000000: must be at most 1000"),
        (["--seed", 2**32 - 2], "--num-seeds 10: must be at most 1000, and seeds less than"),
        (["--track"], "--track"),
        (["--env-id", "benchmark.envs:MinAtar/Breakout-v1"], "shows images"),
        (["--learning-rate", 0], "--learning-rate 0.0: must lie in"),
        (["--env-id", "Nowhere-v0"], "--env-id Nowhere-v0"),
    ],
)
def test_refusals(variant, monkeypatch, capsys, tmp_path, flags, error):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [variant.__file__, *map(str, flags)])
    with pytest.raises(SystemExit) as exit:
        variant.main()
    assert exit.value.code == 2
    assert error in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_resume_refuses_what_does_not_belong_together(variant, script, train, capsys):
    flags = ("--num-seeds", 2, "--total-timesteps", 50, "--eval-episodes", 0)
    runs = train(variant, *flags)
    alone = train(script, *flags[2:])[1]
    with pytest.raises(SystemExit):
        train(variant, "--resume", alone.path / "checkpoint.pt")
    assert "trained alone, and goes on so" in capsys.readouterr().err
    state = runs[2].checkpoint
    state["args"]["head_std"] = 0.5
    torch.save(state, runs[2].path / "checkpoint.pt")
    with pytest.raises(SystemExit) as exit:
        train(variant, "--resume", runs[1].path / "checkpoint.pt", "--total-timesteps", 10**4)
    assert exit.value.code == 2
    assert "trained with another --head_std" in capsys.readouterr().err
    (runs[2].path / "checkpoint.pt").write_bytes(b"rubbish")
    with pytest.raises(SystemExit) as exit:
        train(variant, "--resume", runs[1].path / "checkpoint.pt", "--total-timesteps", 10**4)
    assert exit.value.code == 2 and "cannot be read" in capsys.readouterr().err
    runs[2].path.rename(runs[2].path.with_name("elsewhere"))
    with pytest.raises(SystemExit) as exit:
        train(variant, "--resume", runs[1].path / "checkpoint.pt", "--total-timesteps", 10**4)
    assert exit.value.code == 2 and "is not in" in capsys.readouterr().err


def test_a_seed_without_a_checkpoint_begins_anew_in_its_directory(variant, train):
    flags = ("--total-timesteps", 600, "--eval-episodes", 0, "--runs-dir", "runs/of-{seed}")
    runs = train(variant, *flags, "--num-seeds", 2)
    (runs[1].path / "checkpoint.pt").unlink()
    train(variant, "--resume", runs[2].path / "checkpoint.pt", "--total-timesteps", 1200)
    for seed, run in runs.items():
        assert run.path.parent.name == f"of-{seed}" and len([*run.path.parent.iterdir()]) == 1
        assert 1200 <= run.checkpoint["global_step"] < 1200 + 512
        ends = [row["global_step"] for row in run.episodes]
        assert ends == sorted(ends) and ends[0] < 300


def test_where_one_seed_gives_up_the_others_count_no_step_they_did_not_learn_from(
    name, variant, train, monkeypatch
):
    collect = variant.collect
    calls = []

    def broken(*inputs):
        rollout, episodes = collect(*inputs)
        calls.append(rollout)
        if len(calls) == 3:
            rollout.rewards[0, 1, 0] = torch.nan
        return rollout, episodes

    monkeypatch.setattr(variant, "collect", broken)
    with pytest.raises(SystemExit, match="seed 2: the reward of environment 0 at step 0 is nan"):
        train(variant, "--num-seeds", 3, "--total-timesteps", 10**5)
    runs = {Run(f.parent).args["seed"]: Run(f.parent) for f in Path().rglob("args.json")}
    steps = {seed: run.checkpoint["global_step"] for seed, run in runs.items()}
    learned = [int(rollout.valid[:, k].sum()) for rollout in calls[:2] for k in range(3)]
    assert steps == {k + 1: learned[k] + learned[k + 3] for k in range(3)}
    assert {run.checkpoint["iteration"] for seed, run in runs.items() if seed != 2} == {2}


def test_what_cannot_begin_says_so_in_one_line(variant, train, capsys):
    with pytest.raises(SystemExit) as exit:
        train(variant, "--num-seeds", 2, "--runs-dir", "/proc/nowhere")
    assert exit.value.code == 2
    assert capsys.readouterr().err.startswith("error: --runs-dir /proc/nowhere")
