"""CleanRL's PPO on CartPole-v1, written anew, to measure ours against (`--compare ppo`).

    OMP_NUM_THREADS=1 python -m benchmark.speed.cleanrl --seed 1 --runs-dir runs/cleanrl

CleanRL is not on PyPI and asks for packages that do not go with ours. This program has the
algorithm of its `ppo.py`, as docs.cleanrl.dev/rl-algorithms/ppo and "The 37 Implementation Details
of Proximal Policy Optimization" (Huang et al. 2022) describe it, and does the same work; its
operations and its speed were held against CleanRL's, its text is ours. Nothing that costs time
there is saved here: environments one after the other, each with `RecordEpisodeStatistics`;
`Categorical` to sample, for log-probabilities and for entropies; actor and critic at each step; a
loop over steps for the advantages; torch's Adam as it comes; two scalars for TensorBoard at each
episode and nine at each iteration. tests/test_cleanrl_peer.py holds one whole update against ours.

Gymnasium 1 differs in two ways from the 0.29 that CleanRL was written for:

- What an episode came to stands in `info["episode"]`, no longer in `info["final_info"]`. This
  program reads it there, so that it logs what CleanRL does. That is its one change.
- An environment resets in the step *after* the one that ends an episode; the action of that step
  is ignored and its reward is 0. CleanRL takes such a row for a step like any other and learns
  from it, and so does this program. (Our scripts leave these rows out.)

Where CleanRL prints an episode, this writes a line of episodes.csv. With args.json and
checkpoint.pt beside it, benchmark/collate.py reads the run. Set OMP_NUM_THREADS, as above: CleanRL
leaves the number of threads to torch.
"""

import json
import math
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, TextIO

import gymnasium as gym
import numpy as np
import torch
import tyro
from gymnasium.vector import SyncVectorEnv, VectorEnv
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.utils.tensorboard import SummaryWriter


@dataclass
class Args:
    """CleanRL's names and defaults."""

    seed: int = 1
    runs_dir: str = "runs"
    env_id: str = "CartPole-v1"
    total_timesteps: int = 500_000
    learning_rate: float = 2.5e-4
    num_envs: int = 4
    num_steps: int = 128
    gamma: float = 0.99
    gae_lambda: float = 0.95
    num_minibatches: int = 4
    update_epochs: int = 4
    clip_coef: float = 0.2
    ent_coef: float = 0.01
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5


def orthogonal(layer: nn.Module, gain: float = math.sqrt(2)) -> nn.Module:
    """The layer with orthogonal weights of this gain, and no bias at first."""
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def perceptron(inputs: int, outputs: int, last_gain: float) -> nn.Sequential:
    """Two hidden layers of 64 units."""
    return nn.Sequential(
        orthogonal(nn.Linear(inputs, 64)),
        nn.Tanh(),
        orthogonal(nn.Linear(64, 64)),
        nn.Tanh(),
        orthogonal(nn.Linear(64, outputs), last_gain),
    )


class Agent(nn.Module):
    """An actor and a critic that share nothing."""

    def __init__(self, obs_size: int, num_actions: int):
        super().__init__()
        self.actor = perceptron(obs_size, num_actions, last_gain=0.01)
        self.critic = perceptron(obs_size, 1, last_gain=1.0)

    def get_action_and_value(
        self, obs: Tensor, actions: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of each observation the action (sampled, where none is given), its log-probability, the
        policy's entropy, all (rows,), and the value (rows, 1)."""
        policy = Categorical(logits=self.actor(obs))
        if actions is None:
            actions = policy.sample()
        return actions, policy.log_prob(actions), policy.entropy(), self.critic(obs)

    def get_value(self, obs: Tensor) -> Tensor:
        """The value (rows, 1) of each observation."""
        return self.critic(obs)


class Rollout(NamedTuple):
    """What happened, a row a step: (num_steps, num_envs), observations with their shape behind.
    dones[t] says whether the episode had ended *before* step t."""

    obs: Tensor
    actions: Tensor
    log_probs: Tensor
    rewards: Tensor
    dones: Tensor
    values: Tensor


class Batch(NamedTuple):
    """The rollout's rows in one column: (rows,), observations with their shape behind."""

    obs: Tensor
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor


class Logs:
    """A run's directory: events for TensorBoard, episodes.csv, args.json, checkpoint.pt."""

    def __init__(self, args: Args, program: str):
        self.start = time.time()
        name = f"{args.env_id}__{program}__linear__{args.seed}__{self.start:.3f}"
        self.path = Path(args.runs_dir, name)
        self.events = SummaryWriter(self.path)
        flags = asdict(args) | {"etf_head": False, "script": program}
        (self.path / "args.json").write_text(json.dumps(flags))
        self.episodes: TextIO = open(self.path / "episodes.csv", "w", buffering=1)
        self.episodes.write("global_step,return,length,seconds\n")

    def episode(self, step: int, total: float, length: int) -> None:
        self.events.add_scalar("charts/episodic_return", total, step)
        self.events.add_scalar("charts/episodic_length", length, step)
        seconds = time.time() - self.start
        self.episodes.write(f"{step},{total},{length},{seconds:.2f}\n")

    def iteration(self, step: int, learning_rate: float, losses: dict[str, float]) -> None:
        self.events.add_scalar("charts/learning_rate", learning_rate, step)
        for name, value in losses.items():
            self.events.add_scalar(f"losses/{name}", value, step)
        steps_per_second = int(step / (time.time() - self.start))
        self.events.add_scalar("charts/SPS", steps_per_second, step)

    def close(self, agent: Agent) -> None:
        torch.save(agent.state_dict(), self.path / "checkpoint.pt")
        self.episodes.close()
        self.events.close()


def make_envs(args: Args) -> SyncVectorEnv:
    """Environments that run one after the other in this process."""

    def make() -> gym.Env:
        return gym.wrappers.RecordEpisodeStatistics(gym.make(args.env_id))

    return SyncVectorEnv([make] * args.num_envs)


def empty_rollout(args: Args, shape: tuple[int, ...]) -> Rollout:
    """One that holds zeros, for observations of this shape: it is filled anew in each iteration."""
    steps = (args.num_steps, args.num_envs)
    obs = torch.zeros(*steps, *shape)
    return Rollout(obs, *(torch.zeros(steps) for _ in Rollout._fields[1:]))


def collect(
    envs: VectorEnv,
    agent: Agent,
    rollout: Rollout,
    obs: Tensor,
    done: Tensor,
    global_step: int,
    logs: Logs,
) -> tuple[Tensor, Tensor]:
    """Fill the rollout, from the observations and ends of episodes that the last one left behind.
    Returns those that this one leaves behind."""
    num_steps, num_envs = rollout.rewards.shape
    for step in range(num_steps):
        global_step += num_envs
        rollout.obs[step] = obs
        rollout.dones[step] = done
        with torch.no_grad():
            action, log_prob, _, value = agent.get_action_and_value(obs)
        rollout.actions[step] = action
        rollout.log_probs[step] = log_prob
        rollout.values[step] = value.flatten()

        new_obs, reward, terminated, truncated, info = envs.step(action.numpy())
        rollout.rewards[step] = torch.tensor(reward)
        obs = torch.Tensor(new_obs)
        done = torch.Tensor(terminated | truncated)
        if "episode" in info:
            for env in np.flatnonzero(info["_episode"]):
                logs.episode(global_step, info["episode"]["r"][env], info["episode"]["l"][env])
    return obs, done


@torch.no_grad()
def make_batch(agent: Agent, rollout: Rollout, obs: Tensor, done: Tensor, args: Args) -> Batch:
    """Generalized advantage estimation, from the last step to the first."""
    advantages = torch.zeros_like(rollout.rewards)
    advantage = 0
    next_value = agent.get_value(obs).flatten()
    next_alive = 1 - done
    for step in reversed(range(args.num_steps)):
        target = rollout.rewards[step] + args.gamma * next_value * next_alive
        error = target - rollout.values[step]
        advantage = error + args.gamma * args.gae_lambda * next_alive * advantage
        advantages[step] = advantage
        next_value = rollout.values[step]
        next_alive = 1 - rollout.dones[step]
    return Batch(
        obs=rollout.obs.flatten(0, 1),
        actions=rollout.actions.flatten(),
        log_probs=rollout.log_probs.flatten(),
        values=rollout.values.flatten(),
        advantages=advantages.flatten(),
        returns=(advantages + rollout.values).flatten(),
    )


def ppo_loss(
    agent: Agent, batch: Batch, rows: np.ndarray, args: Args
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of these rows of the batch, and what TensorBoard shows of it.
    batch.actions are floats, as a rollout stores them."""
    _, log_probs, entropies, values = agent.get_action_and_value(
        batch.obs[rows], batch.actions.long()[rows]
    )
    log_ratios = log_probs - batch.log_probs[rows]
    ratios = log_ratios.exp()
    with torch.no_grad():
        old_approx_kl = (-log_ratios).mean()
        approx_kl = (ratios - 1 - log_ratios).mean()
        clipped = torch.abs(ratios - 1) > args.clip_coef

    advantages = batch.advantages[rows]
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    clipped_ratios = torch.clamp(ratios, 1 - args.clip_coef, 1 + args.clip_coef)
    policy_loss = torch.max(-advantages * ratios, -advantages * clipped_ratios).mean()

    values = values.flatten()
    change = torch.clamp(values - batch.values[rows], -args.clip_coef, args.clip_coef)
    errors = (values - batch.returns[rows]) ** 2
    clipped_errors = (batch.values[rows] + change - batch.returns[rows]) ** 2
    value_loss = 0.5 * torch.max(errors, clipped_errors).mean()

    entropy = entropies.mean()
    loss = policy_loss - args.ent_coef * entropy + args.vf_coef * value_loss
    return loss, {
        "value_loss": value_loss,
        "policy_loss": policy_loss,
        "entropy": entropy,
        "old_approx_kl": old_approx_kl,
        "approx_kl": approx_kl,
        "clipfrac": clipped.float().mean(),
    }


def update(
    agent: Agent,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    args: Args,
    permutation: Callable[[int], np.ndarray] = np.random.permutation,
) -> dict[str, float]:
    """All epochs and minibatches of one iteration. Each epoch takes the rows in the order that
    `permutation` draws. Returns the mean of clipfrac and the last minibatch's other numbers."""
    num_rows = len(batch.actions)
    size = num_rows // args.num_minibatches
    clipfracs = []
    for _ in range(args.update_epochs):
        order = permutation(num_rows)
        for start in range(0, num_rows, size):
            loss, parts = ppo_loss(agent, batch, order[start : start + size], args)
            clipfracs.append(parts.pop("clipfrac").item())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), args.max_grad_norm)
            optimizer.step()
    losses = {name: value.item() for name, value in parts.items()}
    return losses | {"clipfrac": np.mean(clipfracs)}


def explained_variance(batch: Batch) -> float:
    """How much of the returns' variance the values explain; 1 is all of it."""
    values = batch.values.numpy()
    returns = batch.returns.numpy()
    variance = returns.var()
    if variance == 0:
        return math.nan
    return float(1 - (returns - values).var() / variance)


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def learn(args: Args, envs: VectorEnv, first_obs: np.ndarray, agent: nn.Module, logs: Logs) -> None:
    """All iterations, from the environments' first observations on."""
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)
    rollout = empty_rollout(args, first_obs.shape[1:])
    obs = torch.Tensor(first_obs)
    done = torch.zeros(args.num_envs)

    rows = args.num_steps * args.num_envs
    num_iterations = args.total_timesteps // rows
    for iteration in range(num_iterations):
        learning_rate = args.learning_rate * (1 - iteration / num_iterations)
        optimizer.param_groups[0]["lr"] = learning_rate
        obs, done = collect(envs, agent, rollout, obs, done, iteration * rows, logs)
        batch = make_batch(agent, rollout, obs, done, args)
        losses = update(agent, optimizer, batch, args)
        losses["explained_variance"] = explained_variance(batch)
        logs.iteration((iteration + 1) * rows, learning_rate, losses)


def main(args: Args) -> None:
    seed_everything(args.seed)
    logs = Logs(args, "cleanrl-ppo")
    envs = make_envs(args)
    obs_size = math.prod(envs.single_observation_space.shape)
    agent = Agent(obs_size, int(envs.single_action_space.n))
    first_obs, _ = envs.reset(seed=args.seed)
    learn(args, envs, first_obs, agent, logs)
    envs.close()
    logs.close(agent)


if __name__ == "__main__":
    main(tyro.cli(Args))
