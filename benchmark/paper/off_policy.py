"""DQN and discrete SAC of Tianshou, as arms of benchmark.run beside the policy gradients:

    python -m benchmark.run --arms "dqn=benchmark/paper/off_policy.py --algorithm dqn" \\
        "sac=benchmark/paper/off_policy.py --algorithm sac" --env-ids CartPole-v1

They are context, no competition: their hyper-parameters are those of Tianshou's own examples on
CartPole, on every task, and nothing was tuned. The algorithms are the library's (`pip install
tianshou==2.0.1`), and so is the training loop; environments, their seeds, and the greedy episodes
at the end are ppo_acpg.py's. For vectors, not for images.

A step is one of an environment, as in the scripts. A run leaves args.json, episodes.csv and
evaluation.csv as theirs do, and last of all checkpoint.pt. The replay buffer is not kept, so a run
that was cut off starts anew, and one that has a checkpoint has nothing left to do.
"""

import json
import os
import random
import sys
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import gymnasium as gym
import numpy as np
import torch
import tyro
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))  # where the scripts, and environments, are

from ppo_acpg import environment_seed, evaluate, fail, make_envs, save, write

if TYPE_CHECKING:
    from tianshou.algorithm import DQN, DiscreteSAC

LIBRARY = "tianshou"

# Those of CartPole in Tianshou 2.0.1's own repository: of its first example of DQN,
# examples/discrete/discrete_dqn.py, and of its only one of discrete SAC,
# test/discrete/test_discrete_sac.py. Both take a step of each of 10 environments, then one
# gradient step. What is not named here is the library's default, as that DQN is double.
NUM_ENVS = 10
BUFFER_SIZE = 20_000
BATCH_SIZE = 64
DQN_FLAGS = {"gamma": 0.9, "n_step_return_horizon": 3, "target_update_freq": 320}
DQN_HIDDEN = (128, 128, 128)
DQN_RATE = 1e-3
DQN_EPSILON = 0.1
SAC_FLAGS = {"gamma": 0.95, "n_step_return_horizon": 3, "tau": 0.005, "alpha": 0.05}
SAC_HIDDEN = (64, 64)
SAC_ACTOR_RATE = 1e-4
SAC_CRITIC_RATE = 1e-3


@dataclass
class Args:
    algorithm: Literal["dqn", "sac"] = "dqn"
    """deep Q-learning (double, with n-step returns), or soft actor-critic for discrete actions"""
    env_id: str = "CartPole-v1"
    """a Gymnasium id with discrete actions and vectors; `module:Id` imports the module first"""
    seed: int = 1
    """the seed of environments, weights, exploration and minibatches"""
    total_timesteps: int = 50_000
    """environment steps of the whole run"""
    runs_dir: str = "runs"
    """the directory in which the run gets a directory of its own"""
    resume: str | None = None
    """a run's checkpoint.pt, which says that the run is finished"""


def check_flags(args: Args) -> None:
    """Refuse flags that cannot work whatever the environment."""
    for flag, least, most in (("seed", 0, 2**32 - 1), ("total_timesteps", 1, 10**12)):
        value = getattr(args, flag)
        if not least <= value <= most:
            fail(flag, value, f"must lie in [{least}, {most}]")
    if find_spec(LIBRARY) is None:
        fail("algorithm", args.algorithm, "needs Tianshou: pip install tianshou==2.0.1")


class Log:
    """The steps so far, episodes.csv, and lines of progress. Nothing is written before `begin`."""

    def __init__(self, args: Args):
        self.args = args
        self.steps = 0
        self.recent = []  # returns of the last 100 episodes
        self.seconds = 0.0  # from `begin` to the last step
        self.next_line = 5.0  # the seconds at which progress is printed again

    def begin(self, path: Path) -> None:
        self.start = time.monotonic()
        self.file = open(path / "episodes.csv", "w", buffering=1)
        self.file.write("global_step,return,length,seconds\n")

    def count_step(self) -> None:
        self.steps += 1
        self.seconds = time.monotonic() - self.start
        if self.seconds > self.next_line:
            self.next_line = self.seconds + 5
            self.say_progress()

    def add_episode(self, episode_return: float, length: int) -> None:
        self.file.write(f"{self.steps},{episode_return},{length},{self.seconds:.2f}\n")
        self.recent = [*self.recent, episode_return][-100:]

    def say_progress(self) -> None:
        mean = np.mean(self.recent) if self.recent else np.nan
        value = f"return {mean:.1f} (last {len(self.recent)} episodes)"
        speed = self.steps / self.seconds
        total = self.args.total_timesteps
        print(f"step {self.steps}/{total}: {value}, {speed:.0f} steps/s", flush=True)


class Logged(gym.Env):
    """One environment of those that ppo_acpg.py makes, which logs its steps and episodes. Its
    actions begin at 0."""

    def __init__(self, env_id: str, log: Log):
        self.envs = make_envs(env_id, 1)
        self.log = log
        self.observation_space = self.envs.single_observation_space
        self.action_space = gym.spaces.Discrete(int(self.envs.single_action_space.n))
        self.first_action = int(self.envs.single_action_space.start)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.episode_return = 0.0
        self.length = 0
        obs, _ = self.envs.reset(seed=seed)
        return obs[0], {}

    def step(self, action: int) -> tuple:
        actions = np.array([action + self.first_action])
        obs, rewards, terminated, truncated, _ = self.envs.step(actions)
        reward = float(rewards[0])
        self.episode_return += reward
        self.length += 1
        self.log.count_step()
        if terminated[0] or truncated[0]:
            self.log.add_episode(self.episode_return, self.length)
        return obs[0], reward, bool(terminated[0]), bool(truncated[0]), {}

    def close(self) -> None:
        self.envs.close()


def make_dqn(observation: int, actions: gym.spaces.Discrete) -> "DQN":
    """Tianshou's DQN for observations of that many numbers."""
    from tianshou.algorithm import DQN
    from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.utils.net.common import Net

    net = Net(state_shape=observation, action_shape=int(actions.n), hidden_sizes=DQN_HIDDEN)
    policy = DiscreteQLearningPolicy(model=net, action_space=actions, eps_training=DQN_EPSILON)
    return DQN(policy=policy, optim=AdamOptimizerFactory(lr=DQN_RATE), **DQN_FLAGS)


def make_sac(observation: int, actions: gym.spaces.Discrete) -> "DiscreteSAC":
    """Tianshou's SAC for discrete actions, for observations of that many numbers."""
    from tianshou.algorithm import DiscreteSAC
    from tianshou.algorithm.modelfree.discrete_sac import DiscreteSACPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.utils.net.common import Net
    from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic

    num_actions = int(actions.n)
    nets = [Net(state_shape=observation, hidden_sizes=SAC_HIDDEN) for _ in range(3)]
    actor = DiscreteActor(preprocess_net=nets[0], action_shape=num_actions, softmax_output=False)
    critics = [DiscreteCritic(preprocess_net=net, last_size=num_actions) for net in nets[1:]]
    return DiscreteSAC(
        policy=DiscreteSACPolicy(actor=actor, action_space=actions),
        policy_optim=AdamOptimizerFactory(lr=SAC_ACTOR_RATE),
        critic=critics[0],
        critic_optim=AdamOptimizerFactory(lr=SAC_CRITIC_RATE),
        critic2=critics[1],
        critic2_optim=AdamOptimizerFactory(lr=SAC_CRITIC_RATE),
        **SAC_FLAGS,
    )


def make_algorithm(args: Args, env: gym.Env) -> "DQN | DiscreteSAC":
    """The algorithm for environments like this one."""
    shape = env.observation_space.shape
    if len(shape) != 1:
        fail("env_id", args.env_id, "shows images, and the networks here are for vectors")
    make = {"dqn": make_dqn, "sac": make_sac}[args.algorithm]
    return make(shape[0], env.action_space)


def train(args: Args, envs: list[Logged], algorithm: "DQN | DiscreteSAC") -> None:
    """Let the library train. A truncated episode bootstraps from its last observation, a terminated
    one does not: its buffer tells the two apart, and keeps that observation."""
    from tianshou.data import Collector, VectorReplayBuffer
    from tianshou.env import DummyVectorEnv
    from tianshou.trainer import OffPolicyTrainerParams

    vector = DummyVectorEnv([lambda env=env: env for env in envs])
    vector.seed(environment_seed(args.seed))
    buffer = VectorReplayBuffer(BUFFER_SIZE, len(envs))
    collector = Collector(algorithm, vector, buffer, exploration_noise=True)
    params = OffPolicyTrainerParams(
        training_collector=collector,
        max_epochs=1,
        epoch_num_steps=args.total_timesteps,
        collection_step_num_env_steps=len(envs),
        update_step_num_gradient_steps_per_sample=1 / len(envs),
        batch_size=BATCH_SIZE,
        verbose=False,
        show_progress=False,
    )
    algorithm.run_training(params)
    vector.close()


class Greedy(nn.Module):
    """What ppo_acpg.py's `evaluate` plays: the action of the largest Q value, or logit."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.actor = self.head = network
        self.device = torch.device("cpu")

    def forward(self, obs: Tensor) -> tuple[None, Tensor]:
        scores, _ = self.actor(obs)
        return None, scores


def begin(args: Args, log: Log) -> Path:
    """Make the run's directory, and begin its logs."""
    stem = Path(__file__).stem
    name = f"{args.env_id}__{stem}__{args.algorithm}__{args.seed}__{time.time():.6f}"
    path = Path(args.runs_dir, name.replace("/", "-").replace(":", "-"))
    try:
        path.mkdir(parents=True)
    except OSError as error:
        fail("runs_dir", args.runs_dir, error)
    version = {LIBRARY: metadata.version(LIBRARY)}
    write(path / "args.json", json.dumps(asdict(args) | version, indent=2).encode())
    log.begin(path)
    print(f"training, logs in {path}", flush=True)
    return path


def finish(args: Args, algorithm: "DQN | DiscreteSAC", log: Log, path: Path) -> None:
    """Play ten greedy episodes, in environments of their own, and write the checkpoint, which says
    that all else is there."""
    policy = algorithm.policy
    agent = Greedy(policy.model if args.algorithm == "dqn" else policy.actor)
    envs = make_envs(args.env_id, 10)
    results = evaluate(envs, agent.eval(), 10, args.seed)
    envs.close()
    lines = [f"{log.steps},{value},{length}\n" for value, length in results]
    write(path / "evaluation.csv", "".join(["global_step,return,length\n", *lines]).encode())
    returns, _ = np.transpose(results)
    print(f"10 greedy episodes: return {returns.mean():.1f} +- {returns.std():.1f}")
    log.file.close()
    state = {
        "script": Path(__file__).stem,
        "args": asdict(args),
        "agent": algorithm.state_dict(),
        "global_step": log.steps,
        "seconds": log.seconds,
        "log_sizes": {"episodes.csv": (path / "episodes.csv").stat().st_size},
    }
    save(path / "checkpoint.pt", state)


def check_finished(path: str) -> None:
    """Refuse to go on from what is no checkpoint, or with other flags than the finished run's."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)["args"]
        finished = Args(**saved | {"resume": path})
    except Exception as error:  # a damaged file can raise anything
        cause = str(error).split(". ")[0]  # without torch's advice to trust the file
        fail("resume", path, f"cannot be read as a checkpoint ({type(error).__name__}: {cause})")
    args = tyro.cli(Args, default=finished)
    for flag, value in asdict(args).items():
        wanted = getattr(finished, flag)
        if value != wanted:
            fail(flag, value, f"but {path} is of a run that is finished, with {wanted}")


def main() -> None:
    args = tyro.cli(Args, description=__doc__.partition(" beside ")[0] + ".")
    check_flags(args)
    if args.resume is not None:
        check_finished(args.resume)
        print(f"{args.resume}: the run is finished")
        return
    torch.set_num_threads(1)
    random.seed(args.seed)
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    # compiling the library's few functions takes 8 s, and saves as much only in some 200,000 steps
    os.environ.setdefault("NUMBA_DISABLE_JIT", "1")
    log = Log(args)
    envs = [Logged(args.env_id, log) for _ in range(NUM_ENVS)]
    algorithm = make_algorithm(args, envs[0])
    try:
        path = begin(args, log)
        train(args, envs, algorithm)
        finish(args, algorithm, log, path)
    except KeyboardInterrupt:
        print(f"stopped at step {log.steps}; there is no checkpoint to go on from", file=sys.stderr)
        sys.exit(130)
    log.say_progress()


if __name__ == "__main__":
    main()
