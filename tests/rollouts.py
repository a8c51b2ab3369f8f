"""An agent and a rollout made up for the tests of losses."""

from types import ModuleType

import torch
from torch import Tensor, nn


def make_agent(script: ModuleType, **flags) -> tuple:
    """An agent of `script` for vectors of size 5 and three actions, and its arguments."""
    torch.manual_seed(0)
    args = script.Args(**flags)
    return script.Agent((5,), 3, args), args


def collect(script: ModuleType, envs, policy, obs, args) -> tuple:
    """A rollout from these first observations on; REINFORCE's begins with a reset of its own."""
    if hasattr(script, "collect_episodes"):
        rollout, _, _ = script.collect_episodes(envs, policy, args)
    else:
        rollout, _ = script.collect(envs, policy, script.EnvState(obs), args)
    return rollout


def random_columns(
    filler: float = 0.0, num_steps: int = 16, num_envs: int = 4, num_actions: int = 3
) -> tuple[Tensor, ...]:
    """Observations, actions, rewards, terminated, ended and valid of a rollout of vectors of size 5
    with terminations, truncations and the invalid rows after them, one of them the first. `filler`
    stands wherever nothing must look: rewards of invalid rows, and their observations unless
    bootstrapped from."""
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
    return obs, actions, rewards, terminated, ended, valid


def random_rollout(script: ModuleType, agent: nn.Module, filler: float = 0.0) -> tuple:
    """The columns as the Rollout of `script`, with the agent's logits, and `filler` for those of
    invalid rows."""
    obs, *columns = random_columns(filler)
    valid = columns[-1]
    with torch.no_grad():
        _, logits = agent(obs[:-1].nan_to_num().flatten(0, 1))
    logits = logits.view(*valid.shape, -1)
    logits[~valid] = filler
    return script.Rollout(obs, logits, *columns)
