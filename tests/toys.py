"""Environments that misbehave (`--env-id tests.toys:ID`), each in one way. An episode has 10 steps of reward 1."""

import os
import random
import sys
import time

import gymnasium as gym
import numpy as np


class Toy(gym.Env):
    """Three numbers, two actions."""

    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gym.spaces.Discrete(2)
    length = 10
    steps = 0  # of this environment, over all episodes

    def observe(self):
        return np.full(3, 0.1, np.float32)

    def reward(self, action):
        return 1.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.observe(), {}

    def step(self, action):
        self.time += 1
        self.steps += 1
        return self.observe(), self.reward(action), self.time >= self.length, False, {}


class GlobalRandom(Toy):
    """Rewards from the generators of the whole process."""

    def reward(self, action):
        return float(random.random() < 0.5) + float(np.random.rand() < 0.5)


class Constant(Toy):
    """One step of a large reward, whatever the action."""

    length = 1

    def reward(self, action):
        return 1000.0


class NanFrom(Toy):
    """Observations that are NaN from step NAN_FROM on."""

    def observe(self):
        late = self.steps >= int(os.environ["NAN_FROM"])
        return np.full(3, np.nan if late else 0.1, np.float32)


class NanAtTheEnd(Toy):
    """The last observation of an episode, from which nothing is learned, is NaN."""

    def observe(self):
        return np.full(3, np.nan if self.time == self.length else 0.1, np.float32)


class OwnEpisodes(Toy):
    """An environment with an info["episode"] of its own."""

    def step(self, action):
        obs, reward, terminated, truncated, _ = super().step(action)
        return obs, reward, terminated, truncated, {"episode": {"r": -99.0, "l": 1}}


class Raises(Toy):
    """Raises in reset, or at step RAISE_AT."""

    where = "step"

    def reset(self, **kwargs):
        if self.where == "reset":
            raise KeyError("my own mistake")
        return super().reset(**kwargs)

    def reward(self, action):
        if self.steps >= int(os.environ.get("RAISE_AT", 1)):
            self.fail()
        return 1.0

    def fail(self):
        raise ZeroDivisionError("my own mistake")


class RaisesInReset(Raises):
    where = "reset"


class RaisesInInit(Toy):
    def __init__(self):
        raise LookupError("my own mistake")


class Exits(Raises):
    def fail(self):
        sys.exit("bye")


class RaisesInClose(Toy):
    """In the process whose run has learned all it wanted."""

    def close(self):
        raise ZeroDivisionError("my own mistake")


class Rubbish(Toy):
    """Returns what is no reward."""

    def reward(self, action):
        return "much"


class WrongShape(Toy):
    def observe(self):
        return np.zeros(4 if self.time else 3, np.float32)


class Slow(Toy):
    def reward(self, action):
        time.sleep(0.05)
        return 1.0


class ImageAndVector(Toy):
    """An image beside numbers."""

    observation_space = gym.spaces.Dict(
        {
            "image": gym.spaces.Box(0, 255, (2, 3, 1), np.uint8),
            "more": gym.spaces.Tuple((gym.spaces.Box(-9, 9, (2,)), gym.spaces.Discrete(3))),
        }
    )

    def observe(self):
        image = np.full((2, 3, 1), 255, np.uint8)
        return {"image": image, "more": (np.full(2, 7, np.float32), 1)}


class SmallNumbers(Toy):
    """Choices that are stored as uint8, but are no image."""

    observation_space = gym.spaces.Tuple(
        (gym.spaces.Discrete(3, dtype=np.uint8), gym.spaces.MultiDiscrete([2, 2], dtype=np.uint8))
    )

    def observe(self):
        return np.uint8(1), np.array([0, 1], np.uint8)


class FlatImage(Toy):
    """An image without channels."""

    observation_space = gym.spaces.Box(0, 255, (4, 5), np.uint8)

    def observe(self):
        return np.full((4, 5), 51, np.uint8)


class SmallImage(Toy):
    """Three-dimensional, but too small for a convolution."""

    observation_space = gym.spaces.Box(-1, 1, (2, 2, 3), np.float32)

    def observe(self):
        return np.zeros((2, 2, 3), np.float32)


class Cube(Toy):
    """An image whose layout can't be told."""

    observation_space = gym.spaces.Box(0, 1, (5, 5, 5), np.float32)

    def observe(self):
        return np.zeros((5, 5, 5), np.float32)


for toy in (
    *(Toy, GlobalRandom, Constant, NanFrom, NanAtTheEnd, OwnEpisodes, Raises, RaisesInReset),
    *(RaisesInInit, Exits, Rubbish, WrongShape, Slow, ImageAndVector, FlatImage, SmallImage, Cube),
    *(RaisesInClose, SmallNumbers),
):
    gym.register(f"{toy.__name__}-v0", toy)
gym.register("My__Env-v0", Toy)
