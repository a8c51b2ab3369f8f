"""Every observation reaches the network as what it is."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from tests.conftest import SHORT

CHANNELS = {  # shape of an image: where its channels are
    (20, 7, 7): 0,
    (7, 7, 20): 2,
    (84, 84, 3): 2,
    (4, 84, 84): 0,
    (3, 3, 84): 2,
    (84, 3, 3): 0,
    (10, 10, 4): 2,
    (210, 160, 3): 2,
    (3, 210, 160): 0,
    (1, 20, 30): 0,
}
UNKNOWN = [(10, 10, 10), (16, 60, 80), (60, 16, 80), (3, 64, 3), (64, 3, 64)]


@pytest.mark.parametrize(("shape", "axis"), CHANNELS.items())
def test_two_equal_sides_are_height_and_width(script, shape, axis):
    backbone = script.Backbone(shape, True, script.Args())
    assert backbone.layers[0].in_channels == shape[axis]
    assert backbone(torch.zeros(2, *shape)).shape[0] == 2


@pytest.mark.parametrize("shape", UNKNOWN)
def test_a_layout_that_cannot_be_told_asks_for_a_flag(script, shape, capsys):
    with pytest.raises(SystemExit) as exit:
        script.Agent(shape, 3, script.Args())
    assert exit.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --image-layout auto: ") and error.count("\n") == 1
    for layout, axis in (("channels_first", 0), ("channels_last", 2)):
        agent = script.Agent(shape, 3, script.Args(image_layout=layout))
        assert agent.actor.layers[0].in_channels == shape[axis]
    assert not script.Agent(shape, 3, script.Args(backbone="mlp")).actor.cnn


@pytest.mark.parametrize("shape", [(2, 2, 3), (3, 2, 2), (84, 2, 3), (2, 2, 2), (1, 1, 500)])
def test_images_too_small_for_a_convolution_go_to_the_mlp(script, shape, capsys):
    agent = script.Agent(shape, 3, script.Args())
    assert not agent.actor.cnn and agent(torch.zeros(4, *shape))[1].shape == (4, 3)
    with pytest.raises(SystemExit):
        script.Agent(shape, 3, script.Args(backbone="cnn"))
    assert capsys.readouterr().err.startswith("error: --backbone cnn: needs images of at least 3x3")


def test_both_layouts_give_the_same_activations(script):
    first, last = (script.Backbone(shape, True, script.Args()) for shape in ((4, 9, 9), (9, 9, 4)))
    last.load_state_dict(first.state_dict())
    images = torch.rand(5, 4, 9, 9)
    torch.testing.assert_close(first(images), last(images.movedim(1, -1)))


def test_uint8_is_scaled_wherever_it_sits(script):
    envs = script.make_envs("tests.toys:ImageAndVector-v0", 2)
    obs, _ = envs.reset(seed=1)
    assert envs.single_observation_space.shape == (6 + 2 + 3,)
    expected = [1.0] * 6 + [7.0, 7.0] + [0.0, 1.0, 0.0]
    np.testing.assert_allclose(obs, [expected, expected], rtol=1e-6)
    obs = envs.step(np.zeros(2, int))[0]
    np.testing.assert_allclose(obs, [expected, expected], rtol=1e-6)

    envs = script.make_envs("tests.toys:SmallNumbers-v0", 2)
    obs, _ = envs.reset(seed=1)
    assert obs.dtype == np.float32 and obs.tolist() == [[0, 1, 0, 1, 0, 0, 1]] * 2

    envs = script.make_envs("tests.toys:FlatImage-v0", 2)
    obs, _ = envs.reset(seed=1)
    assert obs.dtype == np.uint8 and obs.shape == (2, 20)
    backbone = script.Backbone((20,), False, script.Args())
    scaled = torch.full((2, 20), 51 / 255)
    torch.testing.assert_close(backbone(torch.from_numpy(obs)), backbone(scaled))


def test_atari_with_clipped_rewards_is_for_another_script(script, capsys):
    for env_id in ("ale_py:ALE/Qbert-v5", "ale_py:ALE/Pong-v5"):
        with pytest.raises(SystemExit) as exit:
            script.make_envs(env_id, 1)
        assert exit.value.code == 2
        expected = f"error: --env-id {env_id}: Atari games are for ppo_atari_acpg.py\n"
        assert capsys.readouterr().err == expected


ENDLESS = ("benchmark.envs:Atari/Pong-v5", "benchmark.envs:DiscreteCarRacing-v0")
KINDS = [
    *("FrozenLake-v1", "Blackjack-v1", "tests.probes:TupleObservation-v0"),
    *("benchmark.envs:MinAtar/Breakout-v1", "benchmark.envs:envpool/FrozenLake-v1"),
    *ENDLESS,
    "tests.toys:SmallNumbers-v0",
    *("tests.toys:ImageAndVector-v0", "tests.toys:FlatImage-v0", "tests.toys:SmallImage-v0"),
]


@pytest.mark.parametrize("env_id", KINDS)
def test_observations_of_every_kind(script, launch, env_id):
    if script.__name__ == "reinforce_acpg" and env_id in ENDLESS:
        pytest.skip("a whole episode takes minutes")
    flags = (*SHORT[script.__name__], "--total-timesteps", 100, "--eval-episodes", 0)
    run = launch(script, "--env-id", env_id, "--etf-head", *flags)
    assert run.checkpoint["global_step"] >= 100


def test_a_layout_given_by_hand(script, launch):
    flags = ("--env-id", "tests.toys:Cube-v0", "--image-layout", "channels_last")
    run = launch(script, *flags, *SHORT[script.__name__], "--total-timesteps", 100)
    assert run.args["image_layout"] == "channels_last"


class Recorder(gym.vector.VectorWrapper):
    """Keeps what passes through."""

    def __init__(self, envs):
        super().__init__(envs)
        self.steps = []

    def step(self, actions):
        result = self.env.step(actions)
        self.steps.append((*result[:4], actions.copy()))
        return result


@pytest.mark.parametrize("script", ["ppo_acpg", "a2c_acpg", "trpo_acpg"], indirect=True)
def test_a_rollout_is_what_the_environments_showed(script):
    args = script.Args(num_envs=4)
    args.num_steps = 200
    envs = Recorder(script.make_envs("CartPole-v1", 4))
    agent = script.make_agent(envs, args)
    state = script.EnvState(envs.reset(seed=1)[0])
    policy = script.Policy(agent, state.obs)
    first = state.obs.copy()
    rollouts = [script.collect(envs, policy, state, args) for _ in range(2)]
    obs, rewards, terminated, truncated, actions = map(np.stack, zip(*envs.steps))
    obs = np.concatenate([first[None], obs])
    ended = terminated | truncated
    valid = ~np.concatenate([np.zeros((1, 4), bool), ended[:-1]])
    for k, (rollout, _) in enumerate(rollouts):
        rows = slice(200 * k, 200 * (k + 1))
        np.testing.assert_array_equal(rollout.obs, obs[200 * k : 200 * (k + 1) + 1])
        np.testing.assert_array_equal(rollout.actions, actions[rows])
        np.testing.assert_array_equal(rollout.rewards, rewards[rows])
        np.testing.assert_array_equal(rollout.terminated, terminated[rows])
        np.testing.assert_array_equal(rollout.ended, ended[rows])
        np.testing.assert_array_equal(rollout.valid, valid[rows])
    episodes = [episode for _, found in rollouts for episode in found]
    assert all(episode.episode_return == episode.length for episode in episodes)
    under_way = state.lengths.sum()
    assert sum(episode.length for episode in episodes) + under_way == valid.sum()
    assert len(episodes) == ended.sum()


def test_an_environment_s_own_episodes_do_no_harm(script, launch):
    run = launch(script, "--env-id", "tests.toys:OwnEpisodes-v0", "--total-timesteps", 600)
    assert {episode["return"] for episode in run.episodes} == {10.0}
    assert {episode["length"] for episode in run.episodes} == {10.0}
