"""Gymnasium ids for the scripts' `--env-id benchmark.envs:ID`; importing this module registers them.

MinAtar/Asterix-v1, Breakout, Freeway, Seaquest, SpaceInvaders: MinAtar's games with their minimal action sets (Young & Tian
2019, arXiv 1903.03176), binary images with the channels first.
envpool/Acrobot-v1, …: every envpool task under its own name ("phys2d/X-v0" is envpool/phys2d-X-v0), as a vector environment.
Atari/Breakout-v5, …: envpool's Atari games with the usual preprocessing of "NoFrameskip-v4": 84x84 grey images, 4 stacked,
4 frames a step, up to 30 no-ops and then FIRE at the start, no sticky actions, at most 27,000 steps. Rewards are unclipped, an
episode is a whole game, `info["lives"]` tells the lives left.
DiscreteCarRacing-v0: `gymnasium.make("CarRacing-v3", continuous=False)` by envpool, as a vector environment: grey 96x96
images, 4 stacked. With `action_repeat=k` (1) an action lasts k steps of the game, fewer where the episode ends; the
stack holds the game's last 4 frames whatever k.
IdealCliffWalking-v0: a walk of two steps that meets the paper's three conditions of action collapse exactly. Each of these
breaks one of them: UnbalancedCliffWalking-v0 (three cells whose best action is up, one of down), UnevenCliffWalking-v0 (starts
of unequal probability), UnexploredCliffWalking-v0 (half of the starts never used). SemanticCliffWalking-v0 is the ideal one
with a fifth action that is another "up".
CliffWalking200-v1: Gymnasium's CliffWalking-v1, whose episodes never end by themselves, cut off after 200 steps.
ManyActions18-v0, ManyActions50-v0: bandits with a state for each of 18 or 50 actions, drawn anew at each of 10 steps, in which
the state's own action pays 1 and the others 0. OrderedActions18-v0, ...50-v0: actions on a ring pay less the farther they are.
PairedActions18-v0, ...50-v0: two neighbours pay alike. States are numbers, and with x4 (ManyActions18x4-v0, ...) there are four
of them for each action, noisy unit vectors in 32 dimensions.
"""

import os
from functools import partial
from itertools import product
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

MINATAR_GAMES = {
    "Asterix": "asterix",
    "Breakout": "breakout",
    "Freeway": "freeway",
    "Seaquest": "seaquest",
    "SpaceInvaders": "space_invaders",
}
ATARI_OPTIONS = {"episodic_life": False, "reward_clip": False, "repeat_action_probability": 0.0}


class MinAtarFrames(gym.Wrapper):
    """MinAtar's frames for a video: uint8, 16 pixels a cell (MinAtar itself renders one float in [0, 1] a cell)."""

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict]:
        """Reset the last action too, which MinAtar keeps, and may repeat at an episode's first step."""
        self.env.unwrapped.game.last_action = 0
        return self.env.reset(**kwargs)

    def render(self) -> np.ndarray | None:
        """(160, 160, 3), or None without a render mode."""
        frame = self.env.render()
        return (
            None if frame is None else (255 * np.kron(frame, np.ones((16, 16, 1)))).astype(np.uint8)
        )


def make_minatar(game: str, render_mode: str | None = None, **kwargs) -> gym.Env:
    """A MinAtar game with observations of shape (channels, 10, 10), dtype bool."""
    from minatar.gym import BaseEnv

    env = MinAtarFrames(
        BaseEnv(game, render_mode=render_mode, use_minimal_action_set=True, **kwargs)
    )
    height, width, channels = env.observation_space.shape
    space = gym.spaces.Box(0, 1, (channels, height, width), dtype=np.bool_)
    return gym.wrappers.TransformObservation(
        env, partial(np.moveaxis, source=-1, destination=0), space
    )


class EnvPool(VectorEnv):
    """An envpool task as a Gymnasium vector environment.

    envpool fixes its seed at construction, so `reset(seed=...)` builds the pool anew.
    """

    metadata: ClassVar = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}

    def __init__(self, task: str, num_envs: int = 1, **kwargs: Any):
        import envpool

        spec = envpool.make_spec(task, num_envs=num_envs, **kwargs)
        self.num_envs = num_envs
        self.single_observation_space = spec.gymnasium_observation_space
        self.single_action_space = spec.gymnasium_action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._make_pool = partial(
            envpool.make, task, env_type="gymnasium", num_envs=num_envs, **kwargs
        )
        self._pool = None

    def _reset_pool(self) -> tuple[np.ndarray, dict]:
        return self._pool.reset()

    def reset(
        self, *, seed: int | None = None, options: dict | None = None
    ) -> tuple[np.ndarray, dict]:
        """Reset all environments; without a seed, the running pool goes on with its own random numbers."""
        super().reset(seed=seed)
        if self._pool is None or seed is not None:
            self.close_extras()
            pool_seed = int(self.np_random.integers(2**31 - 1)) if seed is None else seed
            self._pool = self._make_pool(seed=pool_seed)
        return self._reset_pool()

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        """Step all environments."""
        return self._pool.step(np.asarray(actions))

    def close_extras(self, **kwargs: Any) -> None:
        """Stop the pool's threads."""
        if self._pool is not None:
            self._pool.close()


class DiscreteCarRacing(EnvPool):
    """CarRacing-v3 with Gymnasium's five actions, nothing, right, left, gas and brake, as a Gymnasium vector environment.

    Observations are uint8 (4, 96, 96), oldest frame first, grey by the weights of Gymnasium's GrayscaleObservation; the first
    frame of an episode fills the stack. The pool runs asynchronously, so that an environment whose episode ended while an
    action is repeated can wait for the others.
    """

    CONTROLS = np.array(
        [[0, 0, 0], [0.6, 0, 0], [-0.6, 0, 0], [0, 0.2, 0], [0, 0, 0.8]], np.float32
    )  # steering, gas, brake
    GREY = np.array([0.2125, 0.7154, 0.0721], np.float32)

    def __init__(self, num_envs: int = 1, action_repeat: int = 1, **kwargs: Any):
        if action_repeat < 1:
            raise ValueError(f"action_repeat must be at least 1, not {action_repeat}")
        kwargs.setdefault(
            "num_threads", min(num_envs, os.cpu_count())
        )  # envpool's default is batch_size, one
        super().__init__("CarRacing-v3", num_envs, batch_size=1, **kwargs)
        self.action_repeat = action_repeat
        self.single_observation_space = gym.spaces.Box(0, 255, (4, 96, 96), np.uint8)
        self.single_action_space = gym.spaces.Discrete(5)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def _receive(self, count: int) -> None:
        """Take in the results of `count` environments."""
        for _ in range(count):
            obs, rewards, terminated, truncated, info = self._pool.recv()
            i = info["env_id"][0]
            frame = obs[0].reshape(-1, 3) @ self.GREY
            resets = self._ended[i] or info["elapsed_step"][0] == 0
            self._frames[i, :-1] = frame.reshape(96, 96) if resets else self._frames[i, 1:]
            self._frames[i, -1] = frame.reshape(96, 96)
            self._rewards[i] += rewards[0]
            self._terminated[i], self._truncated[i], self._ended[i] = (
                terminated[0],
                truncated[0],
                terminated[0] | truncated[0],
            )

    def _reset_pool(self) -> tuple[np.ndarray, dict]:
        self._frames = np.zeros((self.num_envs, 4, 96, 96), np.uint8)
        self._rewards = np.zeros(self.num_envs)
        self._terminated, self._truncated = np.zeros((2, self.num_envs), np.bool_)
        self._ended = np.ones(self.num_envs, np.bool_)
        self._pool.async_reset()
        self._receive(self.num_envs)
        return self._frames.copy(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        """Step all environments; one whose episode has ended only resets."""
        self._rewards = np.zeros(self.num_envs)
        resets = self._ended.copy()
        for k in range(self.action_repeat):
            chosen = np.flatnonzero(~self._ended & ~resets) if k else np.arange(self.num_envs)
            if len(chosen):
                self._pool.send(self.CONTROLS[np.asarray(actions)[chosen]], chosen.astype(np.int32))
                self._receive(len(chosen))
        return (
            self._frames.copy(),
            self._rewards,
            self._terminated.copy(),
            self._truncated.copy(),
            {},
        )


class CliffWalking(gym.Env):
    """Ideal Cliff Walking (arXiv 2509.02737, as built in this project): 2 rows and 4 columns of cells, of which each inner one
    has an exit through its upper or lower side, in the ideal walk the one at the edge. A step costs 1, the one through an exit nothing; walls keep the walker in place; 50 steps at
    most. It starts in an outer cell, with probabilities `starts` for those at (row, column) (0, 0), (1, 0), (0, 3), (1, 3).
    `exits` names the action that leaves each inner cell, (0, 1), (0, 2), (1, 1), (1, 2). Observations are numbers: 4 row +
    column for cells, 8 to 11 for their exits. Actions are up, down, left, right, and one more up if `synonym`."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 4}
    ACTIONS = ("up", "down", "left", "right", "up too")
    MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))
    OUTER, INNER = (0, 4, 3, 7), (1, 2, 5, 6)
    CELLS = range(8)  # where there is something to decide
    WALKER, EXIT = (230, 159, 0), (0, 158, 115)  # colours

    def __init__(
        self,
        exits=(0, 0, 1, 1),
        starts=(0.25, 0.25, 0.25, 0.25),
        synonym: bool = False,
        render_mode: str | None = None,
    ):
        self.exits, self.starts, self.render_mode = (
            dict(zip(self.INNER, exits)),
            starts,
            render_mode,
        )
        self.observation_space = gym.spaces.Discrete(12)
        self.action_space = gym.spaces.Discrete(4 + synonym)

    def label(self, action: int) -> int:
        """What the action means: 0 up, 1 down, 2 left, 3 right."""
        return 0 if action >= 4 else action

    def optimal_action(self, state: int) -> int:
        """The meaning of the best action in a cell, of which there is only one."""
        return self.exits[state] if state in self.exits else 3 if state % 4 == 0 else 2

    def transition(self, state: int, action: int) -> tuple[int, float, bool]:
        """Next state, reward, and whether that ends the episode."""
        action = self.label(action)
        if self.exits.get(state) == action:
            return 8 + self.INNER.index(state), 0.0, True
        (row, column), (down, right) = divmod(state, 4), self.MOVES[action]
        return 4 * min(max(row + down, 0), 1) + min(max(column + right, 0), 3), -1.0, False

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[int, dict]:
        """Start in one of the outer cells."""
        super().reset(seed=seed)
        self.state = int(self.np_random.choice(self.OUTER, p=self.starts))
        return self.state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict]:
        """One step."""
        self.state, reward, terminated = self.transition(self.state, int(action))
        return self.state, reward, terminated, False, {}

    def render(self) -> np.ndarray | None:
        """(256, 256, 3): cells white, a green bar at the side that an exit leads through, the walker orange, who fills the bar
        on its way out; None without a render mode."""
        if self.render_mode is None:
            return None
        image = np.full((256, 256, 3), 60, np.uint8)
        for cell in self.CELLS:
            row, column = divmod(cell, 4)
            square = image[64 * (row + 1) :, 64 * column :][:64, :64]
            square[:] = self.WALKER if cell == self.state else 255
            if cell in self.exits:
                leaves = self.state == 8 + self.INNER.index(cell)
                sides = (square[:16], square[-16:], square[:, :16], square[:, -16:])
                sides[self.exits[cell]][:] = self.WALKER if leaves else self.EXIT
        return image


class ManyActions(gym.Env):
    """A contextual bandit with `num_actions` K actions and `states_per_action` states for each.

    At each of the 10 steps of an episode a state is drawn uniformly, and the action pays 1 if it is
    the state's own. `kind` "ordered": 1 - 2 d / K, where d is the distance of both on the ring of
    all actions; "paired": 1 also for the other one of the pair (0, 1), (2, 3), ... of which the
    state's action is one. With one state for each action observations are the states' numbers;
    with more, fixed unit vectors: K random directions of 32 dimensions, to each of which noise half
    as long is added for each of its states. The same for all seeds, which draw the states alone.
    """

    LENGTH = 10  # steps of an episode
    DIMENSIONS = 32
    NOISE = 0.5  # the expected norm of the noise

    def __init__(self, num_actions: int, states_per_action: int = 1, kind: str = "one"):
        self.num_actions = num_actions
        self.states_per_action = states_per_action
        self.kind = kind
        self.num_states = num_actions * states_per_action
        self.action_space = gym.spaces.Discrete(num_actions)
        if states_per_action == 1:
            self.observation_space = gym.spaces.Discrete(num_actions)
            self.observations = np.arange(num_actions)
            return
        self.observation_space = gym.spaces.Box(-1, 1, (self.DIMENSIONS,), np.float32)
        generator = np.random.default_rng(0)
        centres = generator.normal(size=(num_actions, self.DIMENSIONS))
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        noise = generator.normal(size=(self.num_states, self.DIMENSIONS))
        noise *= self.NOISE / self.DIMENSIONS**0.5
        states = centres.repeat(states_per_action, axis=0) + noise
        states /= np.linalg.norm(states, axis=1, keepdims=True)
        self.observations = states.astype(np.float32)

    def reward(self, state: int, action: int) -> float:
        """What the action pays in the state."""
        best = state // self.states_per_action
        if self.kind == "ordered":
            distance = abs(best - action)
            return 1 - 2 * min(distance, self.num_actions - distance) / self.num_actions
        if self.kind == "paired":
            return float(best // 2 == action // 2)
        return float(best == action)

    def draw_state(self) -> np.ndarray | int:
        self.state = int(self.np_random.integers(self.num_states))
        return self.observations[self.state]

    def reset(
        self, *, seed: int | None = None, options: dict | None = None
    ) -> tuple[np.ndarray | int, dict]:
        """Draw the first state."""
        super().reset(seed=seed)
        self.steps = 0
        return self.draw_state(), {}

    def step(self, action: int) -> tuple[np.ndarray | int, float, bool, bool, dict]:
        """One step. The tenth ends the episode."""
        reward = self.reward(self.state, int(action))
        self.steps += 1
        return self.draw_state(), reward, self.steps == self.LENGTH, False, {}


def register_all() -> None:
    """Register every id of the module docstring whose package is installed."""
    for name, game in MINATAR_GAMES.items():
        gym.register(f"MinAtar/{name}-v1", make_minatar, kwargs={"game": game})
    gym.register("DiscreteCarRacing-v0", vector_entry_point=DiscreteCarRacing)
    variants = {
        "Ideal": {},
        "Unbalanced": {"exits": (0, 0, 0, 1)},
        "Uneven": {"starts": (0.7, 0.1, 0.1, 0.1)},
    }
    variants |= {"Unexplored": {"starts": (0.5, 0.0, 0.0, 0.5)}, "Semantic": {"synonym": True}}
    for name, flags in variants.items():
        gym.register(f"{name}CliffWalking-v0", CliffWalking, kwargs=flags, max_episode_steps=50)
    cliff = gym.spec("CliffWalking-v1").entry_point
    gym.register("CliffWalking200-v1", cliff, max_episode_steps=200)
    kinds = {"Many": "one", "Ordered": "ordered", "Paired": "paired"}
    for (name, kind), num_actions in product(kinds.items(), (18, 50)):
        flags = {"num_actions": num_actions, "kind": kind}
        gym.register(f"{name}Actions{num_actions}-v0", ManyActions, kwargs=flags)
        four = flags | {"states_per_action": 4}
        gym.register(f"{name}Actions{num_actions}x4-v0", ManyActions, kwargs=four)
    try:
        from envpool.registration import registry
    except ImportError:
        return
    for task, (module, *_) in registry.specs.items():
        gym.register(f"envpool/{task.replace('/', '-')}", vector_entry_point=partial(EnvPool, task))
        if module.startswith("envpool.atari"):
            gym.register(
                f"Atari/{task}", vector_entry_point=partial(EnvPool, task), kwargs=ATARI_OPTIONS
            )


register_all()
