"""An agent and a rollout made up for the tests of losses."""

from types import ModuleType

import torch

from a2c_acpg import Rollout


def make_agent(script: ModuleType, **flags) -> tuple:
    """An agent of `script` for vectors of size 5 and three actions, and its arguments."""
    torch.manual_seed(0)
    args = script.Args(**flags)
    return script.Agent((5,), 3, args), args


def random_rollout(filler=0.0, num_steps=16, num_envs=4, num_actions=3) -> Rollout:
    """A rollout of vectors of size 5 with terminations, truncations and the invalid rows after them, one of them the first.
    `filler` stands wherever nothing must look: rewards of invalid rows, and their observations unless bootstrapped from."""
    generator = torch.Generator().manual_seed(0)
    ended = torch.rand(num_steps, num_envs, generator=generator) < 0.3
    for t in range(1, num_steps):
        ended[t] &= ~ended[t - 1]
    ended[0, -1] = False
    terminated = ended & (torch.rand(num_steps, num_envs, generator=generator) < 0.5)
    valid = torch.cat([torch.arange(num_envs)[None] < num_envs - 1, ~ended[:-1]])
    obs = torch.randn(num_steps + 1, num_envs, 5, generator=generator)
    actions = torch.randint(num_actions, (num_steps, num_envs), generator=generator)
    rewards = torch.randn(num_steps, num_envs, generator=generator)
    rewards[~valid] = filler
    obs[1:][terminated] = filler
    obs[0][~valid[0]] = filler
    return Rollout(obs, actions, rewards, terminated, ended, valid)
