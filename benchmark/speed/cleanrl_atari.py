"""CleanRL's PPO on Atari, written anew, to measure ours against (`--compare atari`).

    python -m benchmark.speed.cleanrl_atari --seed 1 --runs-dir runs/cleanrl

This has the algorithm of CleanRL's `ppo_atari_envpool.py`, as docs.cleanrl.dev/rl-algorithms/ppo
describes it, and does the same work; its text is ours. From the PPO of cleanrl.py it differs in
what is here: the games, the network, and hyper-parameters. Nothing that costs time there is saved
here either: frames are kept as floats, which takes four times the memory, and divided by 255 in
each pass of the network, which has its channels first; one pass to act and, of the last
observation, another for its value. tests/test_cleanrl_peer.py holds one whole update against ours.

envpool 1.2 differs in two ways from the 0.6 that CleanRL was written for:

- It has Gymnasium's interface, so that the ends of episodes are told as terminated and truncated.
- A game resets in the step *after* the one that ends an episode, and so does a life that is lost;
  the action of that step is ignored and its reward is 0. CleanRL takes such a row for a step like
  any other and learns from it, and so does this program. (Our script leaves these rows out.)

CleanRL leaves the number of threads to torch and to envpool, which take all; and so does this
program. It trains on the CPU.
"""

import warnings
from collections import deque
from dataclasses import dataclass

import envpool
import numpy as np
import tyro
from gymnasium.vector import VectorEnv, VectorWrapper
from torch import Tensor, nn
from torch.distributions import Categorical

from benchmark.speed import cleanrl
from benchmark.speed.cleanrl import learn, orthogonal, seed_everything


@dataclass
class Args(cleanrl.Args):
    """CleanRL's names and defaults."""

    env_id: str = "Breakout-v5"
    total_timesteps: int = 10_000_000
    num_envs: int = 8
    clip_coef: float = 0.1


class Agent(nn.Module):
    """Actor and critic on one network, that of Mnih et al. 2015."""

    def __init__(self, num_actions: int):
        super().__init__()
        self.network = nn.Sequential(
            orthogonal(nn.Conv2d(4, 32, 8, stride=4)),
            nn.ReLU(),
            orthogonal(nn.Conv2d(32, 64, 4, stride=2)),
            nn.ReLU(),
            orthogonal(nn.Conv2d(64, 64, 3)),
            nn.ReLU(),
            nn.Flatten(),
            orthogonal(nn.Linear(64 * 7 * 7, 512)),
            nn.ReLU(),
        )
        self.actor = orthogonal(nn.Linear(512, num_actions), 0.01)
        self.critic = orthogonal(nn.Linear(512, 1), 1.0)

    def get_action_and_value(
        self, obs: Tensor, actions: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of each observation (rows, 4, 84, 84) the action (sampled, where none is given), its
        log-probability, the policy's entropy, all (rows,), and the value (rows, 1)."""
        features = self.network(obs / 255.0)
        policy = Categorical(logits=self.actor(features))
        if actions is None:
            actions = policy.sample()
        return actions, policy.log_prob(actions), policy.entropy(), self.critic(features)

    def get_value(self, obs: Tensor) -> Tensor:
        """The value (rows, 1) of each observation."""
        return self.critic(self.network(obs / 255.0))


class RecordEpisodeStatistics(VectorWrapper):
    """Unclipped returns and lengths of whole games, in info["episode"] as Gymnasium has them. A
    game is over when an episode ends and no life is left."""

    def reset(self, **kwargs) -> tuple[np.ndarray, dict]:
        self.returns = np.zeros(self.num_envs, np.float32)
        self.lengths = np.zeros(self.num_envs, np.int32)
        return self.env.reset(**kwargs)

    def step(self, actions: np.ndarray) -> tuple:
        obs, reward, terminated, truncated, info = self.env.step(actions)
        self.returns += info["reward"]
        self.lengths += 1
        info["episode"] = {"r": self.returns.copy(), "l": self.lengths.copy()}
        info["_episode"] = (terminated | truncated) & (info["lives"] == 0)
        self.returns *= 1 - info["terminated"]
        self.lengths *= 1 - info["terminated"]
        return obs, reward, terminated, truncated, info


class Logs(cleanrl.Logs):
    """They have the mean over the last 20 games too."""

    def __init__(self, args: Args, program: str):
        super().__init__(args, program)
        self.last_returns = deque(maxlen=20)

    def episode(self, step: int, total: float, length: int) -> None:
        self.last_returns.append(total)
        self.events.add_scalar("charts/avg_episodic_return", np.average(self.last_returns), step)
        super().episode(step, total, length)


def make_envs(args: Args) -> VectorEnv:
    """Games of which each life is an episode, with rewards that are clipped to their sign."""
    warnings.filterwarnings("ignore", "EnvPool seeds are fixed")
    envs = envpool.make(
        args.env_id,
        env_type="gymnasium",
        num_envs=args.num_envs,
        episodic_life=True,
        reward_clip=True,
        seed=args.seed,
    )
    return RecordEpisodeStatistics(envs)


def main(args: Args) -> None:
    seed_everything(args.seed)
    logs = Logs(args, "cleanrl-ppo-atari")
    envs = make_envs(args)
    agent = Agent(int(envs.single_action_space.n))
    first_obs, _ = envs.reset()
    learn(args, envs, first_obs, agent, logs)
    envs.close()
    logs.close(agent)


if __name__ == "__main__":
    main(tyro.cli(Args))
