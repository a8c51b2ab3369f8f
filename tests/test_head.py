"""The action heads: frames against their definitions, and what frozen means."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ppo_acpg
from ppo_acpg import Agent, Args, make_head, simplex_etf

sizes = st.integers(2, 32).flatmap(lambda K: st.tuples(st.just(K), st.integers(K - 1, 160)))


@settings(deadline=None)
@given(sizes, st.integers(0, 2**31))
def test_simplex_etf_is_one(size, seed):
    K, d = size
    frame = simplex_etf(K, d, torch.Generator().manual_seed(seed)).double()
    gram = K / (K - 1) * torch.eye(K) - 1 / (K - 1)
    assert frame.shape == (K, d)
    torch.testing.assert_close(frame @ frame.T, gram.double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(frame.sum(dim=0), torch.zeros(d).double(), atol=1e-6, rtol=0)
    assert torch.linalg.matrix_rank(frame, atol=1e-4) == K - 1


def test_simplex_etf_depends_on_the_seed_alone():
    first, again, other = (
        simplex_etf(4, 8, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_simplex_etf_names_the_sizes_that_have_none():
    with pytest.raises(ValueError, match=r"6 actions needs feature_dim >= 5, not 4"):
        simplex_etf(6, 4, torch.Generator())


@pytest.mark.parametrize("frame", ["simplex", "random", "orthogonal"])
@pytest.mark.parametrize("trainable", [False, True])
def test_controls_share_the_norm_and_differ_in_geometry_or_freezing(frame, trainable):
    args = Args(etf_head=True, etf_scale=3.0, head_frame=frame, head_trainable=trainable)
    head = make_head(5, 64, args)
    cosines = (
        torch.nn.functional.normalize(head.weight) @ torch.nn.functional.normalize(head.weight).T
    )
    off_diagonal = cosines[~torch.eye(5, dtype=torch.bool)]
    torch.testing.assert_close(head.weight.norm(dim=1), torch.full((5,), 3.0))
    assert head.bias is None
    assert [name for name, _ in head.named_parameters()] == ["weight"] * trainable
    assert "weight" in head.state_dict()
    expected = {"simplex": -0.25, "orthogonal": 0.0}.get(frame)
    if expected is None:
        assert off_diagonal.std() > 0.05
    else:
        torch.testing.assert_close(off_diagonal, torch.full((20,), expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize("num_actions", [2, 3, 4, 18])
def test_to_a_softmax_orthogonal_rows_are_a_smaller_simplex(num_actions):
    """A softmax does not see the mean of the rows; less that, orthogonal rows of norm 2 are a simplex of norm 2 sqrt((K-1)/K).
    Two rows always are one, random or not."""
    K = num_actions
    for frame in ("orthogonal", "random") if K == 2 else ("orthogonal",):
        weight = make_head(K, 64, Args(etf_head=True, head_frame=frame)).weight.double()
        centred, features = weight - weight.mean(dim=0), torch.randn(7, 64, dtype=torch.float64)
        torch.testing.assert_close(
            (features @ centred.T).softmax(dim=1), (features @ weight.T).softmax(dim=1)
        )
        norms = centred.norm(dim=1)
        cosines = (centred / norms[:, None]) @ (centred / norms[:, None]).T
        torch.testing.assert_close(
            cosines, K / (K - 1) * torch.eye(K).double() - 1 / (K - 1), atol=1e-6, rtol=0
        )
        if frame == "orthogonal":
            torch.testing.assert_close(
                norms, torch.full((K,), 2 * math.sqrt((K - 1) / K)).double(), atol=1e-6, rtol=0
            )


@pytest.mark.parametrize(("num_actions", "norm", "angle"), [(3, 1.64, 0.065), (18, 1.95, 0.104)])
def test_to_a_softmax_random_rows_in_64_dimensions_nearly_are_one(num_actions, norm, angle):
    """Means over the seeds of the controls' runs, with the frames that these had, of the centred
    rows' norm and of their maximal angle, which is 0 for a simplex."""
    norms, angles = [], []
    for seed in range(301, 311):
        generator = torch.Generator().manual_seed(2**32 + seed)  # as frames were seeded then
        rows = torch.randn(num_actions, 64, generator=generator)
        weight = 2 * torch.nn.functional.normalize(rows)
        metrics = ppo_acpg.frame_metrics("head", weight - weight.mean(dim=0))
        norms.append((weight - weight.mean(dim=0)).norm(dim=1).mean())
        angles.append(metrics["head_maximal_angle"])
    assert np.mean(norms) == pytest.approx(norm, abs=0.005) and np.mean(angles) == pytest.approx(
        angle, abs=0.0005
    )


def test_orthogonal_frame_names_the_sizes_that_have_none():
    with pytest.raises(ValueError, match="6 orthogonal rows need feature_dim >= 6, not 5"):
        make_head(6, 5, Args(etf_head=True, head_frame="orthogonal"))


def test_the_frozen_head_leaves_exactly_its_parameters_out():
    count = {
        etf: sum(p.numel() for p in Agent((4,), 3, Args(etf_head=etf)).parameters())
        for etf in (False, True)
    }
    assert count[False] - count[True] == 64 * 3 + 3


def test_the_frozen_head_moves_with_the_agent():
    agent = Agent((4,), 3, Args(etf_head=True)).to(torch.float64)
    assert agent.head.weight.dtype == torch.float64


def test_the_frozen_head_is_bit_identical_after_training_and_unknown_to_the_optimizer(
    script, launch
):
    run = launch(script, "--etf-head", "--total-timesteps", 3000, "--seed", 7)
    frame = simplex_etf(2, 64, torch.Generator().manual_seed(2**31 + 7))
    assert torch.equal(run.checkpoint["agent"]["head.weight"], run.args["etf_scale"] * frame)
    # TRPO's actor is moved by no optimizer
    moved_otherwise = ("head.", "actor.") if script.__name__ == "trpo_acpg" else ("head.",)
    weights = run.checkpoint["agent"].items()
    trained = [value for name, value in weights if not name.startswith(moved_otherwise)]
    known = len(run.checkpoint["optimizer"]["mean_square"])
    assert known == sum(value.numel() for value in trained)


def test_the_head_s_flags_leave_a_critic_of_its_own_alone():
    torch.manual_seed(0)
    plain = Agent((4,), 3, Args())
    bounded = Agent((4,), 3, Args(feature_norm=0.1, feature_activation="linear"))
    bounded.critic.load_state_dict(plain.critic.state_dict())
    obs = torch.randn(9, 4)
    assert torch.equal(plain.critic(obs), bounded.critic(obs))
    assert bounded.actor(obs).norm(dim=1).max() < 0.101


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0])
def test_behaviour_policy_is_the_mixture(epsilon):
    logits = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    log_probs = ppo_acpg.behaviour_log_probs(logits.log_softmax(dim=-1), epsilon)
    torch.testing.assert_close(log_probs.exp(), (1 - epsilon) * logits.softmax(dim=1) + epsilon / 5)
    log_probs[:, 0].sum().backward()
    assert logits.grad.isfinite().all()
    assert (epsilon == 1) == (logits.grad == 0).all()


def test_extreme_logits_keep_finite_log_probabilities():
    logits = torch.tensor([[1000.0, -1000.0]], requires_grad=True)
    for epsilon in (0.0, 0.5):
        log_probs = ppo_acpg.behaviour_log_probs(logits.log_softmax(dim=-1), epsilon)
        assert log_probs.isfinite().all()
    assert math.isclose(log_probs[0, 1].exp().item(), 0.25, rel_tol=1e-6)


def test_feature_norm_projects_onto_the_ball():
    backbone = ppo_acpg.Backbone((4,), False, Args(feature_norm=0.5))
    free = ppo_acpg.Backbone((4,), False, Args())
    free.load_state_dict(backbone.state_dict())
    obs = (
        torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
        * torch.linspace(0.01, 3, 50)[:, None]
    )
    bounded, features = backbone(obs), free(obs)
    inside = features.norm(dim=1) <= 0.5
    assert inside.any() and not inside.all()
    torch.testing.assert_close(bounded[inside], features[inside])
    torch.testing.assert_close(
        bounded[~inside], torch.nn.functional.normalize(features[~inside]) * 0.5
    )


@pytest.mark.parametrize(
    ("shape", "width"),
    [
        ((10, 10, 4), 128),
        ((4, 10, 10), 128),
        ((32, 32, 3), 128),
        ((4, 84, 84), 512),
        ((96, 96, 3), 512),
    ],
)
def test_images_of_both_layouts_and_sizes(shape, width):
    for activation in ("tanh", "linear", "relu"):
        backbone = ppo_acpg.Backbone(shape, True, Args(feature_activation=activation))
        image = torch.randint(0, 255, (3, *shape), dtype=torch.uint8)
        features = backbone(image)
        assert features.shape == (3, width)
        assert (activation == "relu") == (features >= 0).all()
        torch.testing.assert_close(backbone(image / 255), features)


def test_both_layouts_give_the_same_activations():
    first, last = (ppo_acpg.Backbone(shape, True, Args()) for shape in ((4, 10, 10), (10, 10, 4)))
    last.load_state_dict(first.state_dict())
    images = torch.rand(5, 4, 10, 10)
    torch.testing.assert_close(first(images), last(images.movedim(1, -1)))
