"""What acts is what learns, whatever is edited; heads of the same seed share all the rest to the bit."""

import numpy as np
import pytest
import torch
from torch import nn

from benchmark.algorithms import ALGORITHMS
from tests import rollouts

HEADS = [
    {},
    {"head_std": 2.0},
    {"etf_head": True},
    {"etf_head": True, "head_trainable": True},
    {"etf_head": True, "head_frame": "random"},
    {"etf_head": True, "head_frame": "orthogonal", "etf_scale": 5.0},
]


class Cosine(nn.Linear):
    """A head of normalized rows and activations."""

    def forward(self, features):
        normalize = nn.functional.normalize
        return 5 * normalize(features) @ normalize(self.weight).T


class Scaled(nn.Module):
    """A module with something around it."""

    def __init__(self, module: nn.Module, change):
        super().__init__()
        self.module = module
        self.change = change

    def forward(self, x):
        return self.change(self.module(x))

    @property
    def weight(self):
        return self.module.weight


def insert_norm(agent):
    layers = list(agent.actor.layers)
    agent.actor.layers = nn.Sequential(*layers[:2], nn.LayerNorm(64), *layers[2:])


def third_layer(agent):
    agent.actor.layers = nn.Sequential(*agent.actor.layers, nn.Linear(64, 64), nn.Tanh())


def relu(agent):
    agent.actor.layers[1] = nn.ReLU()


def cosine(agent):
    agent.head = Cosine(64, 2)


def two_layers(agent):
    agent.head = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))


class Branching(nn.Module):
    """Two layers side by side, of widths that do not chain."""

    def __init__(self):
        super().__init__()
        self.short = nn.Linear(64, 2)
        self.long = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 2))

    def forward(self, features):
        return self.short(features) + self.long(features)


def branching(agent):
    agent.head = Branching()


def temperature(agent):
    agent.head = Scaled(agent.head, lambda logits: logits / 0.5)


def clipped_input(agent):
    agent.actor.register_forward_pre_hook(lambda module, inputs: (inputs[0].clamp(-0.5, 0.5),))


def dropout(agent):
    agent.actor.layers = nn.Sequential(*agent.actor.layers, nn.Dropout(0.5))


EDITS = (
    insert_norm,
    third_layer,
    relu,
    cosine,
    two_layers,
    branching,
    temperature,
    clipped_input,
)


def first_obs(script, num_envs=4):
    envs = script.make_envs("CartPole-v1", num_envs)
    obs, _ = envs.reset(seed=1)
    return envs, obs


def parts(script, **flags):
    """Flags, environments, their first observations, and an agent with logits that matter."""
    torch.manual_seed(0)
    args = script.Args(num_envs=4, **flags)
    envs, obs = first_obs(script)
    agent = script.make_agent(envs, args)
    nn.init.normal_(agent.head.weight)
    return args, envs, obs, agent


@pytest.mark.parametrize("edit", [None, *EDITS])
def test_the_logits_that_act_are_the_network_s(script, edit):
    args, envs, obs, agent = parts(script)
    if edit is not None:
        edit(agent)
    policy = script.Policy(agent, obs)
    policy.prove()
    assert bool(policy.numpy_layers) == (edit in (None, third_layer, two_layers))
    rollout = rollouts.collect(script, envs, policy, obs, args)
    policy.prove()
    assert bool(policy.numpy_layers) == (edit in (None, third_layer, two_layers))
    with torch.no_grad():
        _, logits = agent(rollout.obs[:-1].flatten(0, 1))
    torch.testing.assert_close(rollout.logits.flatten(0, 1), logits, atol=1e-4, rtol=1e-4)


def test_a_policy_that_is_not_the_same_twice_acts_by_itself(script):
    _, _, obs, agent = parts(script)
    dropout(agent)
    assert not script.Policy(agent, obs).numpy_layers


def test_a_network_with_noise_acts_by_itself(script):
    _, _, obs, agent = parts(script)
    agent.head.register_forward_hook(lambda module, _, logits: logits + torch.randn_like(logits))
    policy = script.Policy(agent, obs)
    policy.prove()
    assert not policy.numpy_layers


def test_a_difference_that_is_learned_is_noticed(script):
    """A temperature that starts at 1, after a rollout of five steps."""
    _, _, obs, agent = parts(script)
    log_temperature = torch.zeros(())
    agent.head.register_forward_hook(lambda module, _, logits: logits * log_temperature.exp())
    policy = script.Policy(agent, obs)
    policy.prove()
    assert policy.numpy_layers
    for _ in range(5):
        policy(obs)
    log_temperature += 0.01
    policy.prove()
    assert not policy.numpy_layers


def test_a_difference_for_few_observations_is_noticed_when_one_was_seen(script):
    """An action that is masked where an observation says so, exactly."""
    _, _, obs, agent = parts(script)
    base = agent.forward

    def masked(obs):
        features, logits = base(obs)
        return features, logits.masked_fill(obs[:, :1] == 0.125, -1e9)

    agent.forward = masked
    policy = script.Policy(agent, obs)
    policy.prove()
    assert policy.numpy_layers
    rare = obs.copy()
    rare[2, 0] = 0.125
    for k in range(64):
        policy(rare if k == 39 else obs)
    policy.prove()
    assert not policy.numpy_layers


def test_an_action_masked_by_the_observation_is_noticed_at_once(script):
    _, _, obs, agent = parts(script)
    base = agent.forward

    def masked(obs):
        features, logits = base(obs)
        return features, logits.masked_fill(obs[:, :2] == 0, -1e9)

    agent.forward = masked
    policy = script.Policy(agent, obs)
    policy.prove()
    assert not policy.numpy_layers


def test_greedy_episodes_act_through_the_policy_and_its_memory(script, monkeypatch):
    """As rollouts do, so that an edit of Policy is not lost on them."""
    args, envs, _, agent = parts(script)
    calls = []

    def remembering(policy, obs):
        policy.steps = getattr(policy, "steps", 0) + 1
        calls.append(policy.steps)
        return np.stack([np.zeros(4), np.full(4, policy.steps % 2 - 0.5)], axis=1)

    monkeypatch.setattr(script.Policy, "__call__", remembering)
    results = script.evaluate(envs, agent, 8, args.seed)
    longest = max(length for _, length in results)
    assert len(results) == 8 and max(calls) == longest
    assert calls.count(1) == 2  # anew after each reset
    assert longest > 15  # left and right in turn, which no state of the agent's says


def test_observations_that_are_not_finite_prove_nothing(script):
    _, _, obs, agent = parts(script)
    obs[0] = np.nan
    policy = script.Policy(agent, obs)
    policy.prove()
    assert policy.numpy_layers


@pytest.mark.parametrize("flags", [*HEADS, {"feature_norm": 0.5}, {"feature_activation": "linear"}])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.bool_])
def test_the_policy_is_the_network_s_and_follows_its_parameters(script, flags, dtype):
    torch.manual_seed(0)
    args = script.Args(**flags)
    agent = script.Agent((5,), 3, args)
    theta = script.flatten_parameters(agent)
    rng = np.random.default_rng(0)
    obs = np.zeros((8, 5), dtype)  # which no scale changes
    policy = script.Policy(agent, obs)
    policy.prove()
    plain = dtype != np.uint8 and not {"feature_norm", "feature_activation"} & flags.keys()
    assert bool(policy.numpy_layers) == plain
    theta += 0.1  # as an optimizer does it
    obs = rng.integers(0, 2, size=(8, 5)).astype(dtype)
    with torch.no_grad():
        expected = agent(torch.from_numpy(obs))[1]
    np.testing.assert_allclose(policy(obs), expected, atol=1e-4)


def test_no_edit_of_the_network_trains_a_policy_that_does_not_act(script, launch, monkeypatch):
    """The README's own example, a cosine head, on CartPole: it learns as the original does."""
    steps = ALGORITHMS[script.__name__].cartpole
    final = {}
    make_head = script.make_head
    for name, head in {
        "original": make_head,
        "cosine": lambda num_actions, feature_dim, args: Cosine(feature_dim, num_actions),
        "temperature": lambda *args: Scaled(make_head(*args), lambda logits: logits / 0.5),
    }.items():
        monkeypatch.setattr(script, "make_head", head)
        final[name] = launch(script, "--total-timesteps", steps).final_return()
    assert min(final.values()) > 120, final


def test_heads_share_backbone_critic_value_layer_and_all_that_is_drawn_later(script):
    shared = []
    for flags in HEADS:
        args = script.Args(**flags, seed=3)
        script.seed_everything(args)
        agent = script.Agent((4,), 3, args)
        weights = {name: v for name, v in agent.state_dict().items() if "head." not in name}
        shared.append([*weights.values(), torch.rand(5), torch.randperm(9)])
    with_critic = hasattr(agent, "value_layer")
    assert len(shared[0]) == 4 + (4 + 2) * with_critic + 2
    for others in shared[1:]:
        assert all(torch.equal(first, other) for first, other in zip(shared[0], others))


def test_heads_share_the_first_environments_noise_and_minibatches(script):
    """With logits out of the way, runs of all heads act, and order their minibatches, the same."""
    seen = []
    for flags in HEADS:
        args = script.Args(**flags, seed=3)
        script.seed_everything(args)
        envs = script.make_envs("CartPole-v1", args.num_envs)
        script.make_agent(envs, args)
        obs, _ = envs.reset(seed=script.environment_seed(args.seed))
        blind = lambda obs: np.zeros((len(obs), 2), np.float32)  # noqa: E731
        rollout = rollouts.collect(script, envs, blind, obs, args)
        seen.append([rollout.obs, rollout.actions, torch.randperm(512)])
    for others in seen[1:]:
        assert all(torch.equal(first, other) for first, other in zip(seen[0], others))


@pytest.mark.parametrize("shape", [(5,), (10, 10, 4)])
def test_feature_dim_narrows_the_actor_s_last_layer_alone(script, shape):
    wide, narrow = (script.Agent(shape, 4, script.Args(feature_dim=d)) for d in (None, 3))
    hidden = 64 if len(shape) == 1 else 128
    assert (wide.actor.feature_dim, narrow.actor.feature_dim) == (hidden, 3)
    assert narrow.head.weight.shape == (4, 3)
    features, _ = narrow(torch.rand(6, *shape))
    assert features.shape == (6, 3)
    if narrow.critic is None:
        return
    assert narrow.value_layer.weight.shape == wide.value_layer.weight.shape == (1, hidden)
    own = narrow.critic.layers if wide.critic is None else wide.critic.layers
    assert [p.shape for p in own.parameters()] == [
        p.shape for p in narrow.critic.layers.parameters()
    ]
    if wide.critic is None:
        assert [p.shape for p in own.parameters()] == [
            p.shape for p in wide.actor.layers.parameters()
        ]


@pytest.mark.parametrize("epsilon", [0.0, 1e-50, 1e-12, 0.3, 1.0])
def test_actions_are_drawn_from_the_mixture_that_learns(script, epsilon):
    """In many environments rather than for many steps, as REINFORCE's rollouts end with episodes."""
    envs = script.make_envs("CartPole-v1", 2000)
    torch.manual_seed(0)
    args = script.Args(num_envs=2000, epsilon=epsilon)
    args.num_steps = 10
    args.episodes_per_update = 2000
    logits = torch.tensor([1.0, -0.5])
    alike = lambda obs: logits.expand(2000, 2).numpy()  # noqa: E731
    obs, _ = envs.reset(seed=0)
    rollout = rollouts.collect(script, envs, alike, obs, args)
    actions = rollout.actions[:10].flatten()
    drawn = torch.bincount(actions) / 20000
    expected = script.behaviour_log_probs(logits.log_softmax(dim=-1), epsilon).exp()
    torch.testing.assert_close(drawn, expected, atol=0.015, rtol=0)


@pytest.mark.parametrize("epsilon", [1e-50, 1e-30, 1e-12, 0.5, 1.0])
def test_no_epsilon_is_too_small_for_finite_log_probabilities(script, epsilon):
    logits = torch.tensor([[1000.0, -1000.0]], requires_grad=True)
    log_probs = script.behaviour_log_probs(logits.log_softmax(dim=-1), epsilon)
    assert log_probs[0, 1].item() == pytest.approx(np.log(epsilon / 2), rel=1e-6)
    log_probs.sum().backward()
    assert logits.grad.isfinite().all()
