"""Environments with known answers (`--env-id tests.probes:ID`): small enough to say what a correct learner must find."""

import gymnasium as gym
import numpy as np


class Probe(gym.Env):
    """An episode of `length` steps. Subclasses say what is seen and what is paid."""

    length = 1
    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Discrete(2)

    def observe(self) -> np.ndarray:
        return np.zeros(1, np.float32)

    def reward(self, action: int) -> float:
        return 1.0

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        self.sign = self.np_random.choice([-1.0, 1.0])
        return self.observe(), {}

    def step(self, action):
        reward = self.reward(action)
        self.time += 1
        return self.observe(), reward, self.time == self.length, False, {}


class SeenReward(Probe):
    """The reward is the observation."""

    def observe(self):
        return np.array([self.sign], np.float32)

    def reward(self, action):
        return self.sign


class TwoSteps(Probe):
    """Reward 1 on the second of two steps."""

    length = 2

    def observe(self):
        return np.array([self.time - 0.5 if self.time < 2 else 0], np.float32)

    def reward(self, action):
        return float(self.time == 1)


class RightAction(Probe):
    """Reward 1 for the last of three actions, which are numbered from 5."""

    action_space = gym.spaces.Discrete(3, start=5)

    def reward(self, action):
        return float(action == 7)


class Truncated(Probe):
    """Nothing to see; reward 1 for ever, cut off after 10 steps."""

    length = 10

    def step(self, action):
        obs, reward, over, _, info = super().step(action)
        return obs, reward, False, over, info


class Clock(Probe):
    """Ten steps of reward 1 with the time in view."""

    length = 10
    observation_space = gym.spaces.Box(0, 1, (11,))

    def observe(self):
        return np.eye(11, dtype=np.float32)[self.time]


class TwoLengths(Probe):
    """Episodes of 2 or 20 steps, equally often."""

    def reset(self, seed=None, options=None):
        obs, info = super().reset(seed=seed)
        self.length = 2 if self.sign < 0 else 20
        return obs, info


class Diverging(Probe):
    """A reward that is not finite, after 300 steps."""

    steps = 0

    def reward(self, action):
        self.steps += 1
        return np.inf if self.steps > 300 else 1.0


class OneAction(Probe):
    action_space = gym.spaces.Discrete(1)


class ManyActions(Probe):
    action_space = gym.spaces.MultiDiscrete([2, 2])


class GraphObservation(Probe):
    observation_space = gym.spaces.Graph(gym.spaces.Box(-1, 1, (1,)), None)


class TupleObservation(Probe):
    observation_space = gym.spaces.Tuple((gym.spaces.Discrete(3), gym.spaces.Box(-1, 1, (2, 2))))

    def observe(self):
        return (1, np.zeros((2, 2), np.float32))


for probe in (
    *(Probe, SeenReward, TwoSteps, RightAction, Truncated, Clock, TwoLengths, Diverging),
    *(OneAction, ManyActions, GraphObservation, TupleObservation),
):
    gym.register(f"{probe.__name__}-v0", probe)
