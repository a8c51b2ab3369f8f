"""benchmark/paper/clipped_apart.patch: what it makes of ppo_acpg.py."""

import importlib.util
import subprocess
from types import ModuleType

import pytest
import torch
from torch import nn

import ppo_acpg
from tests import rollouts


@pytest.fixture
def patched(tmp_path) -> ModuleType:
    path = tmp_path / "ppo_clipped_apart.py"
    patch = "benchmark/paper/clipped_apart.patch"
    subprocess.run(["patch", "--silent", f"--output={path}", "ppo_acpg.py", patch], check=True)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("flags", [{}, {"etf_head": True}])
def test_the_critic_s_gradient_and_the_rest_are_clipped_apart(patched, flags):
    norms = {"max_grad_norm": 0.01}  # shorter than either
    agent, args = rollouts.make_agent(ppo_acpg, **flags, **norms)
    batch = ppo_acpg.make_batch(agent, rollouts.random_rollout(ppo_acpg, agent, 0.0), args)
    gradient, parts = patched.loss_gradient(agent, batch, args)
    loss, _ = ppo_acpg.ppo_loss(agent, batch, args)
    loss.backward()
    critic = [*agent.critic.parameters(), *agent.value_layer.parameters()]
    others = [p for p in agent.parameters() if p.requires_grad and id(p) not in map(id, critic)]
    both = torch.stack([nn.utils.clip_grad_norm_(side, 0.01) for side in (critic, others)])
    assert (both > 0.01).all() and parts["gradient_norm"] == pytest.approx(both.norm().item())
    trainable = ppo_acpg.trainable_parameters(agent)
    expected = torch.cat([parameter.grad.flatten() for parameter in trainable])
    torch.testing.assert_close(gradient, expected)
