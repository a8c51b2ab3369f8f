"""One update of sb3-contrib's TRPO, discrete actions and one environment, written plainly after the
description of what it does: for test_trpo.py, as the package itself is not installed for the tests.

It starts the conjugate gradient at noise, stops it at an absolute residual, and measures the old
policy's divergence from the new, where the paper has the new one's from the old.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, kl_divergence

CG_STEPS = 15
CG_RESIDUAL = 1e-10  # the square of its norm
CG_NOISE = 1e-4
DAMPING = 0.1
TRIES = 10
SHRINKING = 0.8
BATCH_SIZE = 128


class Steps(NamedTuple):
    """All that was seen in one environment, without rows that only reset it."""

    obs: Tensor  # (steps, *observation)
    actions: Tensor  # (steps,), as all that follow
    rewards: Tensor  # with gamma V(last observation) on top where an episode was truncated
    starts: Tensor  # whether an episode starts here
    last_obs: Tensor  # (1, *observation), after all steps
    last_ended: bool  # whether an episode ended with the last step


def advantages_and_returns(
    values: Tensor, last_value: float, steps: Steps, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimates and the returns that they make with the values."""
    advantages = torch.zeros_like(values)
    advantage = 0.0
    next_value = last_value
    goes_on = not steps.last_ended
    for t in reversed(range(len(values))):
        delta = steps.rewards[t] + gamma * next_value * goes_on - values[t]
        advantage = delta + gamma * gae_lambda * goes_on * advantage
        advantages[t] = advantage
        next_value = values[t]
        goes_on = not steps.starts[t]
    return advantages, advantages + values


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def natural_direction(fisher_times, gradient: Tensor) -> Tensor:
    """The conjugate gradient's solution x of (F + damping) x = gradient, from noise on."""
    x = CG_NOISE * torch.randn_like(gradient)
    residual = gradient - fisher_times(x)
    square = residual.dot(residual)
    conjugate = residual
    for _ in range(CG_STEPS):
        if square < CG_RESIDUAL:
            break
        image = fisher_times(conjugate)
        length = square / conjugate.dot(image)
        x = x + length * conjugate
        residual = residual - length * image
        previous = square
        square = residual.dot(residual)
        conjugate = residual + square / previous * conjugate
    return x


def update_policy(
    policy: nn.Module, obs: Tensor, actions: Tensor, advantages: Tensor, target_kl: float
) -> int | None:
    """Move the policy (obs -> logits). Returns how often the step was shortened; None if the policy
    stays where it was."""
    parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    with torch.no_grad():
        old = Categorical(logits=policy(obs))
        old_log_probs = old.log_prob(actions)

    def objective_and_kl() -> tuple[Tensor, Tensor]:
        new = Categorical(logits=policy(obs))
        ratios = (new.log_prob(actions) - old_log_probs).exp()
        return (advantages * ratios).mean(), kl_divergence(new, old).mean()

    objective, kl = objective_and_kl()
    gradient = flat(torch.autograd.grad(objective, parameters, retain_graph=True))
    kl_gradient = flat(torch.autograd.grad(kl, parameters, create_graph=True))

    def fisher_times(vector: Tensor) -> Tensor:
        product = (kl_gradient * vector).sum()
        second = torch.autograd.grad(product, parameters, retain_graph=True)
        return flat(second) + DAMPING * vector

    direction = natural_direction(fisher_times, gradient)
    longest = (2 * target_kl / direction.dot(fisher_times(direction))).sqrt()
    before = [parameter.detach().clone() for parameter in parameters]
    pieces = direction.split([parameter.numel() for parameter in parameters])
    with torch.no_grad():
        for k in range(TRIES):
            for parameter, origin, piece in zip(parameters, before, pieces):
                parameter.copy_(origin + SHRINKING**k * longest * piece.view_as(origin))
            new_objective, kl = objective_and_kl()
            if kl < target_kl and new_objective > objective:
                return k
        for parameter, origin in zip(parameters, before):
            parameter.copy_(origin)
    return None


def update_critic(
    critic: nn.Module, obs: Tensor, returns: Tensor, orders: list[Tensor], learning_rate: float
) -> None:
    """Fit the critic (obs -> values), an epoch for each order of the rows."""
    optimizer = torch.optim.Adam(critic.parameters(), lr=learning_rate, eps=1e-5)
    for order in orders:
        for rows in order.split(BATCH_SIZE):
            loss = nn.functional.mse_loss(critic(obs[rows]).flatten(), returns[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def update(
    policy: nn.Module,
    critic: nn.Module,
    steps: Steps,
    orders: list[Tensor],
    *,
    target_kl: float = 0.01,
    learning_rate: float = 1e-3,
    gamma: float = 0.99,
    gae_lambda: float = 0.95,
) -> int | None:
    """Move the policy, then fit the critic. Returns what `update_policy` does."""
    with torch.no_grad():
        values = critic(steps.obs).flatten()
        last_value = critic(steps.last_obs).item()
    advantages, returns = advantages_and_returns(values, last_value, steps, gamma, gae_lambda)
    shortened = update_policy(policy, steps.obs, steps.actions, advantages, target_kl)
    update_critic(critic, steps.obs, returns, orders, learning_rate)
    return shortened
