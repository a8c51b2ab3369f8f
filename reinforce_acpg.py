"""REINFORCE (Williams 1992) on whole episodes, discrete actions.

To Williams's gradient of the reward-to-go the defaults add: minibatches of the episodes of an
update, returns that are normalized, an entropy bonus, a bound of the gradient and Adam. `--plain`
takes all but Adam away.

With `--etf-head` the learned action selection layer becomes a frozen simplex equiangular tight
frame (Action Collapse Policy Gradient, arXiv 2509.02737); all else stays as it is.

    python reinforce_acpg.py --env-id CartPole-v1 --etf-head

An update learns from the first episodes that are *started* under the current policy. The first to
*end* would be the short ones. `global_step` counts the steps of these episodes; what environments
do while the longest of them lasts is in `charts/steps_taken` too.

What to edit in a copy of this file (README.md, "Copy a script", has an example):
    the action selection layer      make_head
    the network                     Backbone; Agent, where actor and baseline share nothing
    the objective                   reinforce_loss; what it needs of a rollout: Batch, make_batch
    the reward that is learned      collect_episodes, where `rewards` is filled; what a bonus counts
                                    belongs in buffers of Agent, as a checkpoint keeps no others
    the optimizer                   train: torch.optim.AdamW(agent.parameters(), args.learning_rate)
                                    and others fit too; the rates of all its groups are annealed
    memory (LSTM)                   Agent; Policy (below) keeps it while acting; collect_episodes,
                                    Rollout, Batch, make_batch and update for sequences;
                                    reinforce_loss and measure_collapse call the agent
                                    Clear it after an invalid row, which shows an old episode's end
    a flag                          AlgorithmArgs, HeadArgs or RunArgs; bounds, if any: LIMITS
What is measured: docs/action-collapse.md. Below the line PLUMBING is what every script needs and
none teaches; skip it.
"""

import contextlib
import fcntl
import io
import json
import math
import os
import random
import shlex
import shutil
import signal
import sys
import sysconfig
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, make_dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn

import gymnasium as gym
import numpy as np
import torch
import tyro
from gymnasium.vector import AutoresetMode, VectorEnv
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm


@dataclass
class AlgorithmArgs:
    """The environment, and REINFORCE's hyper-parameters."""

    env_id: str = "CartPole-v1"
    """a Gymnasium id with discrete actions and a time limit; `module:Id` imports it first"""
    total_timesteps: int = 500_000
    """environment steps of the whole run that are learned from; its last update may pass it"""
    learning_rate: float = 5e-4
    """the learning rate of Adam"""
    num_envs: int = 8
    """the number of parallel environments; more than episodes_per_update are of no use"""
    episodes_per_update: int = 8
    """the whole episodes that an update learns from"""
    anneal_lr: bool = True
    """anneal the learning rate linearly to zero"""
    gamma: float = 0.99
    """the discount factor"""
    baseline: Literal["none", "value"] = "none"
    """what is subtracted from the reward-to-go: nothing, or a value that is learned"""
    norm_adv: bool = True
    """normalize the returns of an update, less their baseline"""
    update_epochs: int = 1
    """the number of passes over the episodes of an update"""
    minibatch_size: int = 512
    """environment steps in a minibatch; the last one takes what is left too"""
    ent_coef: float = 0.01
    """the coefficient of the entropy bonus"""
    vf_coef: float = 0.5
    """the coefficient of the value loss, with --baseline value"""
    max_grad_norm: float = 0.5
    """the largest norm of a gradient; larger ones are scaled down to it"""
    plain: bool = False
    """the textbook's form: one step on all episodes, with their returns as they are"""
    adam_eps: float = 1e-5
    """the epsilon of Adam"""
    epsilon: float = 0.0
    """act by (1 - epsilon) softmax + epsilon / K, and learn with that mixture's probabilities"""


@dataclass
class HeadArgs:
    """The action selection layer, and the network below it."""

    etf_head: bool = False
    """replace the learned action selection layer by a frozen simplex ETF"""
    etf_scale: float = 2.0
    """sqrt(E_W): the norm of the frame's rows"""
    head_frame: Literal["simplex", "random", "orthogonal"] = "simplex"
    """control: another frame with rows of the same norm"""
    head_trainable: bool = False
    """control: only start at the frame, then learn"""
    head_std: float = 0.01
    """the initial scale (orthogonal gain) of the learned layer, where there is no frame"""
    feature_norm: float = 0.0
    """sqrt(E_H): project activations onto the ball of this radius (0: no bound)"""
    feature_activation: Literal["tanh", "linear", "relu"] = "tanh"
    """the activation function before the head; relu, CleanRL's for images, fits no frame"""
    feature_dim: int | None = None
    """the width d of the actor's last layer alone (None: hidden_size)"""
    hidden_size: int | None = None
    """the width of hidden layers (None: mlp 64, images below 36 pixels 128, larger ones 512)"""
    backbone: Literal["auto", "mlp", "cnn"] = "auto"
    """the network; auto takes the cnn for 3-D observations of at least 3x3 pixels, else the mlp"""
    image_layout: Literal["auto", "channels_first", "channels_last"] = "auto"
    """where an image has its channels; auto takes two equal sides for height and width"""


@dataclass
class RunArgs:
    """How to run, log and save."""

    exp_name: str = Path(__file__).stem
    """the name of this experiment in the names of its runs"""
    seed: int = 1
    """the seed of environments, weights, frame, sampled actions and minibatches"""
    torch_deterministic: bool = True
    """let cuDNN use its deterministic algorithms only"""
    cuda: bool = True
    """train on the GPU if there is one"""
    num_threads: int = 1
    """CPU threads of torch; small networks are slower with more"""
    compile: bool = False
    """compile the loss and its gradient: needs a C compiler, and pays off in long runs"""
    track: bool = False
    """log to Weights & Biases too (pip install wandb)"""
    wandb_project_name: str = "acpg"
    """the project of Weights & Biases"""
    wandb_entity: str | None = None
    """the entity (team) of Weights & Biases"""
    runs_dir: str = "runs"
    """the directory in which the run gets a directory of its own"""
    log_every: int = 1
    """iterations between two entries of charts and losses in TensorBoard's log"""
    checkpoint_every: int = 50
    """iterations between two checkpoints"""
    resume: str | None = None
    """go on from this checkpoint.pt, in its directory and with its flags, but for those given"""
    eval_episodes: int = 10
    """greedy episodes that are played at the end, in environments of their own (0: none)"""
    collapse_every: int = 10
    """iterations between two measurements of action collapse"""
    collapse_center: Literal["actions", "states"] = "actions"
    """centre activations on the mean of the actions' means, or on that of all states (paper)"""


@dataclass
class Args(RunArgs, HeadArgs, AlgorithmArgs):
    """All flags. One that is added here, and not to a group above, works too."""


# The least and the largest value of a flag. Flags that do not stand here are free.
LIMITS: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "num_threads": (1, 1024),
    "log_every": (1, math.inf),
    "checkpoint_every": (1, math.inf),
    "eval_episodes": (0, 10_000),
    "collapse_every": (1, math.inf),
    "etf_scale": (1e-3, 1e3),
    "head_std": (0, 1e3),
    "feature_norm": (0, 1e6),
    "feature_dim": (1, 16_384),
    "hidden_size": (1, 16_384),
    "total_timesteps": (1, 10**12),
    "learning_rate": (1e-10, 10),
    "num_envs": (1, 65_536),
    "episodes_per_update": (1, 65_536),
    "gamma": (0, 1),
    "update_epochs": (1, 1000),
    "minibatch_size": (1, math.inf),
    "ent_coef": (0, 1e3),
    "vf_coef": (0, 1e3),
    "max_grad_norm": (1e-6, 1e6),
    "adam_eps": (1e-30, 1),
    "epsilon": (0, 1),
}

# What `--plain` sets.
PLAIN = {
    "norm_adv": False,
    "update_epochs": 1,
    "minibatch_size": 10**9,
    "ent_coef": 0.0,
    "max_grad_norm": 1e6,
}


def check_combinations(args: Args, envs: VectorEnv) -> None:
    """Refuse flags of the algorithm that cannot work together."""
    defaults = Args()
    for flag, plain in PLAIN.items():
        value = getattr(args, flag)
        if args.plain and value not in (plain, getattr(defaults, flag)):
            fail(flag, value, f"but --plain sets it to {plain}")


# ALGO LOGIC: the head
def simplex_etf(num_actions: int, feature_dim: int, generator: torch.Generator) -> Tensor:
    """A randomly rotated simplex equiangular tight frame (K, d) (arXiv 2509.02737, Eq. 3).

    Its rows have norm 1, sum to zero, and have pairwise cosine -1/(K-1). Where the paper rotates K
    centred axes, this rotates a basis of the (K-1)-dimensional space that they span.
    Raises ValueError if feature_dim < num_actions - 1, as there is none.
    """
    K = num_actions
    if feature_dim < K - 1:
        needed = f"a simplex ETF of {K} actions needs feature_dim >= {K - 1}"
        raise ValueError(f"{needed}, not {feature_dim}")
    ones_then_axes = torch.cat([torch.ones(K, 1), torch.eye(K, K - 1)], dim=1).double()
    basis = torch.linalg.qr(ones_then_axes).Q[:, 1:]  # (K, K-1), orthogonal to the ones
    rotation = torch.empty(feature_dim, K - 1, dtype=torch.float64)
    nn.init.orthogonal_(rotation, generator=generator)
    return (math.sqrt(K / (K - 1)) * basis @ rotation.T).float()


def layer_init(layer: nn.Module, std: float = math.sqrt(2), bias_const: float = 0.0) -> nn.Module:
    """Orthogonal weights of gain `std` and constant biases."""
    nn.init.orthogonal_(layer.weight, std)
    nn.init.constant_(layer.bias, bias_const)
    return layer


def make_head(num_actions: int, feature_dim: int, args: Args) -> nn.Module:
    """The action selection layer: a module from activations (batch, d) to logits (batch, K).

    CleanRL's, learned and with a bias, or a frame with rows of norm `etf_scale`. A frozen frame is
    a buffer, so that no optimizer sees it. Collapse is measured if the head has a `weight` (K, d).
    Raises ValueError if feature_dim is too small for the frame.
    """
    if not args.etf_head:
        return layer_init(nn.Linear(feature_dim, num_actions), std=args.head_std)

    generator = torch.Generator().manual_seed((2**31 + args.seed) % 2**32)  # not the weights' own
    if args.head_frame == "simplex":
        frame = simplex_etf(num_actions, feature_dim, generator)
    elif args.head_frame == "random":
        gaussian = torch.randn(num_actions, feature_dim, generator=generator)
        frame = nn.functional.normalize(gaussian)
    elif feature_dim >= num_actions:
        frame = torch.empty(num_actions, feature_dim)
        nn.init.orthogonal_(frame, generator=generator)
    else:
        needed = f"{num_actions} orthogonal rows need feature_dim >= {num_actions}"
        raise ValueError(f"{needed}, not {feature_dim}")

    head = nn.Linear(feature_dim, num_actions, bias=False)
    del head.weight
    if args.head_trainable:
        head.weight = nn.Parameter(args.etf_scale * frame)
    else:
        head.register_buffer("weight", args.etf_scale * frame)
    return head


# ALGO LOGIC: the network
def channel_axis(shape: tuple[int, ...], layout: str) -> int:
    """The axis of the channels of images of this 3-D `shape`, 0 or 2. If the layout is "auto", two
    equal sides are height and width; else the only outer axis of at most 4 has the channels. Exits
    with code 2 if that does not tell."""
    first, middle, last = shape
    if layout != "auto":
        return 0 if layout == "channels_first" else 2
    if (middle == last) != (first == middle):
        return 0 if middle == last else 2
    if first != last and (first <= 4) != (last <= 4):
        return 0 if first <= 4 else 2
    fail("image_layout", layout, f"images of shape {shape} need channels_first or channels_last")


def is_image(shape: tuple[int, ...], args: Args) -> bool:
    """Whether observations of this shape go to the CNN; see `--backbone`. Exits with code 2 if the
    CNN is asked for and cannot take them."""
    if args.backbone == "mlp":
        return False
    large_enough = len(shape) == 3 and sorted(shape)[1] >= 3  # for 3x3 pixels in some layout
    if large_enough:
        channels = channel_axis(shape, args.image_layout)
        sides = shape[1:] if channels == 0 else shape[:2]
        large_enough = min(sides) >= 3
    if args.backbone == "cnn" and not large_enough:
        fail("backbone", "cnn", f"needs images of at least 3x3 pixels, not observations {shape}")
    return large_enough


class Backbone(nn.Module):
    """Observations (batch, *shape) -> activations h (batch, d).

    Vectors: CleanRL's MLP. Images below 36 pixels: the network of Young & Tian 2019 (arXiv
    1903.03176); larger ones: of Mnih et al. 2015. uint8 is scaled to [0, 1].
    """

    def __init__(self, shape: tuple[int, ...], cnn: bool, args: Args):
        super().__init__()
        self.cnn = cnn
        self.channels_last = cnn and channel_axis(shape, args.image_layout) == 2
        self.feature_norm = args.feature_norm
        image = (shape[2], shape[0], shape[1]) if self.channels_last else shape
        if not cnn:
            hidden_size = args.hidden_size or 64
            layers = [layer_init(nn.Linear(math.prod(shape), hidden_size)), nn.Tanh()]
        elif min(image[1:]) < 36:  # the least that the larger network takes
            hidden_size = args.hidden_size or 128
            layers = [layer_init(nn.Conv2d(image[0], 16, 3)), nn.ReLU(), nn.Flatten()]
        else:
            hidden_size = args.hidden_size or 512
            layers = [
                layer_init(nn.Conv2d(image[0], 32, 8, stride=4)),
                nn.ReLU(),
                layer_init(nn.Conv2d(32, 64, 4, stride=2)),
                nn.ReLU(),
                layer_init(nn.Conv2d(64, 64, 3)),
                nn.ReLU(),
                nn.Flatten(),
            ]
        width = hidden_size
        if cnn:
            width = nn.Sequential(*layers)(torch.zeros(1, *image)).shape[1]
        self.feature_dim = args.feature_dim or hidden_size
        activations = {"tanh": nn.Tanh, "linear": nn.Identity, "relu": nn.ReLU}
        self.layers = nn.Sequential(
            *layers,
            layer_init(nn.Linear(width, self.feature_dim)),
            activations[args.feature_activation](),
        )

    def forward(self, obs: Tensor) -> Tensor:
        x = obs.float()
        if obs.dtype == torch.uint8:
            x = x / 255
        if not self.cnn:
            x = x.flatten(1)
        elif self.channels_last:
            x = x.movedim(-1, 1)
        features = self.layers(x)
        if self.feature_norm > 0:
            squares = features.square().sum(dim=-1, keepdim=True)
            norms = squares.clamp_min(self.feature_norm**2).sqrt()  # smooth at 0, as norm() is not
            features = features * (self.feature_norm / norms)
        return features


class Agent(nn.Module):
    """Actor, and with `--baseline value` a critic with a network of its own.

    `agent(obs)` is the policy: what acts in `collect_episodes` is what learns in `reinforce_loss`.
    """

    def __init__(self, shape: tuple[int, ...], num_actions: int, args: Args):
        super().__init__()
        cnn = is_image(shape, args)
        self.actor = Backbone(shape, cnn, args)
        self.critic = None
        if args.baseline == "value":
            own = replace(args, feature_dim=None, feature_norm=0.0, feature_activation="tanh")
            self.critic = Backbone(shape, cnn, own)
            self.value_layer = layer_init(nn.Linear(self.critic.feature_dim, 1), std=1.0)
        with torch.random.fork_rng(devices=()):  # so that all heads share the numbers drawn later
            self.head = make_head(num_actions, self.actor.feature_dim, args)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Observations (batch, *shape) -> activations (batch, d) and logits (batch, K)."""
        features = self.actor(obs)
        return features, self.head(features)

    def value(self, obs: Tensor) -> Tensor:
        """The baseline (batch,) of observations: 0 without a critic."""
        if self.critic is None:
            return torch.zeros(len(obs), device=obs.device)
        return self.value_layer(self.critic(obs)).squeeze(-1)


def behaviour_log_probs(log_softmax: Tensor, epsilon: float) -> Tensor:
    """Log-probabilities (batch, K) of the policy that acts, (1 - epsilon) softmax + epsilon / K.
    The sum is taken of logarithms, so that no epsilon is too small for float32."""
    if epsilon == 0:
        return log_softmax
    log_kept = math.log1p(-epsilon) if epsilon < 1 else -math.inf
    log_uniform = math.log(epsilon) - math.log(log_softmax.shape[-1])
    return torch.logaddexp(log_kept + log_softmax, log_softmax.new_full((), log_uniform))


# ALGO LOGIC: the measures of action collapse
def frame_metrics(prefix: str, vectors: Tensor) -> dict[str, Tensor]:
    """The distance of K >= 2 vectors (K, d) from a simplex ETF (arXiv 2509.02737, Sec. 3): three
    measures that are 0 for one, and NaN where they are undefined."""
    K = len(vectors)
    norms = vectors.norm(dim=1)
    pairs = torch.triu_indices(K, K, offset=1)
    cosines = (vectors @ vectors.T / norms[:, None] / norms)[*pairs]
    return {
        f"{prefix}_equinorm": norms.std(correction=0) / norms.mean(),
        f"{prefix}_equiangularity": cosines.std(correction=0),
        f"{prefix}_maximal_angle": (cosines + 1 / (K - 1)).abs().mean(),
    }


def collapse_metrics(
    features: Tensor, actions: Tensor, weight: Tensor, center: str
) -> dict[str, float]:
    """Action collapse of activations (batch, d) that are labelled by actions (batch,), and of the
    head's rows (K, d), in float64.

    head_*, means_*: `frame_metrics` of the rows, and of the centred mean activations of the K'
    actions that occur. self_duality: the distance of normalized rows and means (Papyan et al. 2020,
    arXiv 2008.08186). within_variability: Tr(S_W pinv(S_B)) / K', the pseudo-inverse of rank K'-1.
    Measures that are undefined are left out, and those of the means if there are only two.
    """
    features = features.double()
    weight = weight.double()
    counts = torch.bincount(actions, minlength=len(weight))
    sums = torch.zeros_like(weight).index_add(0, actions, features)
    means = sums / counts[:, None].clamp_min(1)
    occurring = means[counts > 0]
    centre = occurring.mean(dim=0) if center == "actions" else features.mean(dim=0)
    centred = occurring - centre
    metrics = frame_metrics("head", weight)
    metrics["feature_norm"] = features.norm(dim=1).mean()
    metrics["actions_seen"] = (counts > 0).sum()

    _, scales, directions = torch.linalg.svd(centred, full_matrices=False)
    rank = int((scales[: len(centred) - 1] > 1e-6 * metrics["feature_norm"]).sum())
    if rank > 0:
        deviations = (features - means[actions]) @ directions[:rank].T / scales[:rank]
        metrics["within_variability"] = deviations.square().sum(dim=1).mean()
    if rank > 0 and len(centred) > 2:
        metrics |= frame_metrics("means", centred)
    if rank > 0 and len(centred) == len(weight):
        metrics["self_duality"] = (weight / weight.norm() - centred / centred.norm()).norm()
    return {name: value.item() for name, value in metrics.items() if value.isfinite()}


@torch.no_grad()
def measure_collapse(agent: Agent, obs: Tensor, args: Args) -> dict[str, float]:
    """`collapse_metrics` of the agent for observations (batch, *observation), labelled greedily."""
    weight = getattr(agent.head, "weight", None)
    if weight is None or len(obs) == 0:
        return {}
    parts = [agent(rows) for rows in obs.split(4096)]  # images of more would not fit into memory
    features, logits = (torch.cat(columns) for columns in zip(*parts))
    return collapse_metrics(features, logits.argmax(dim=1), weight, args.collapse_center)


# ALGO LOGIC: the rollout
class Rollout(NamedTuple):
    """Steps of all environments, from a reset until the longest episode that an update learns from
    has ended. An episode that ends at row t leaves (next-step autoreset)

    row      obs                     action, reward          ended    valid
    t        the last but one        as usual                True     True
    t + 1    the episode's last      ignored, filler         False    False: it only resets
    t + 2    the next one's first    as usual                ...      True

    so that obs[t + 1] is the true next observation of every valid row, whatever ended there. Rows
    of episodes that the update does not learn from are not valid either.
    """

    obs: Tensor  # (num_steps + 1, num_envs, *observation)
    logits: Tensor  # (num_steps, num_envs, K), by which the actions were drawn
    actions: Tensor  # (num_steps, num_envs), as all that follow
    rewards: Tensor
    terminated: Tensor
    ended: Tensor  # terminated or truncated
    valid: Tensor


class Episode(NamedTuple):
    """An episode that ended in a rollout."""

    steps: int  # valid steps of all environments in the rollout until it ended
    episode_return: float
    length: int


def collect_episodes(
    envs: VectorEnv, policy: "Policy", args: Args
) -> tuple[Rollout, list[Episode], int]:
    """Reset all environments, then step them until the first `episodes_per_update` episodes that
    start have ended. `policy` gives the agent's logits (num_envs, K) for observations (num_envs,
    *observation). Also returns the number of steps taken, those of other episodes too.

    Actions are drawn from `behaviour_log_probs` by the Gumbel-max trick: the largest of logits plus
    Gumbel noise is distributed as their softmax. The noise is drawn first, the same for all heads.
    Ends early, with fewer episodes, if they do not end within `total_timesteps`.
    """
    num_actions = int(envs.single_action_space.n)
    first_obs, _ = envs.reset()
    dtype = first_obs.dtype if first_obs.dtype in (np.uint8, np.bool_) else np.float32
    all_obs = [first_obs.astype(dtype)]
    columns = []
    episodes = []
    just_ended = np.zeros(args.num_envs, np.bool_)  # those that the next step only resets
    numbers = np.arange(args.num_envs)  # of the episodes under way, in the order of their starts
    started = args.num_envs
    returns = np.zeros(args.num_envs)
    lengths = np.zeros(args.num_envs, np.int64)
    steps_taken = 0
    steps_learned = 0
    while len(episodes) < args.episodes_per_update and steps_taken < args.total_timesteps:
        numbers[just_ended] = started + np.arange(just_ended.sum())
        started += just_ended.sum()
        valid = ~just_ended & (numbers < args.episodes_per_update)
        steps_taken += int((~just_ended).sum())
        steps_learned += int(valid.sum())

        gumbel_noise = -torch.empty(args.num_envs, num_actions).exponential_().log().numpy()
        # in float64, as float32 would round a tiny epsilon up
        explores = (torch.rand(args.num_envs, dtype=torch.float64) < args.epsilon).numpy()
        uniform_actions = torch.randint(num_actions, (args.num_envs,)).numpy()
        logits = policy(all_obs[-1])
        actions = (logits + gumbel_noise).argmax(axis=-1)
        actions = np.where(explores, uniform_actions, actions)
        next_obs, reward, terminated, truncated, _ = envs.step(
            actions + envs.single_action_space.start
        )
        ended = terminated | truncated
        returns += np.where(valid, reward, 0)  # what is logged
        lengths += valid
        rewards = np.asarray(reward, np.float32)  # what is learned from: add a bonus here
        all_obs.append(next_obs.astype(dtype))
        columns.append((logits, actions, rewards, terminated, ended, valid))

        for i in np.flatnonzero(ended & valid):
            episodes.append(Episode(steps_learned, float(returns[i]), int(lengths[i])))
        returns[ended] = 0
        lengths[ended] = 0
        just_ended = ended
    stacked = [torch.from_numpy(np.stack(column)) for column in zip(*columns)]
    rollout = Rollout(torch.from_numpy(np.stack(all_obs)), *stacked)
    return rollout, episodes, steps_taken


# ALGO LOGIC: returns, loss and update
def gae(
    rewards: Tensor,
    values: Tensor,
    terminated: Tensor,
    ended: Tensor,
    valid: Tensor,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """Generalized advantage estimation (Schulman et al. 2016, arXiv 1506.02438, Eq. 16).

    Tensors of (num_steps, num_envs), values one row longer. Truncation bootstraps from the true
    last observation, termination does not; both stop the recursion. Invalid rows get 0 and reach
    no other.
    """
    next_values = torch.where(terminated, 0.0, values[1:])
    deltas = torch.where(valid, rewards + gamma * next_values - values[:-1], 0.0)
    discounts = torch.where(valid & ~ended, gamma * gae_lambda, 0.0)
    advantage = torch.zeros_like(deltas[0])
    advantages = []
    for delta, discount in zip(reversed(deltas.unbind()), reversed(discounts.unbind())):
        advantage = delta + discount * advantage
        advantages.append(advantage)
    return torch.stack(advantages[::-1])


class Batch(NamedTuple):
    """The valid rows of a rollout."""

    obs: Tensor  # (rows, *observation)
    actions: Tensor  # (rows,), as all that follow
    values: Tensor  # the baseline
    advantages: Tensor
    returns: Tensor  # the discounted reward-to-go


@torch.no_grad()
def make_batch(agent: Agent, rollout: Rollout, args: Args) -> Batch:
    """The valid rows of a rollout with returns, less their baseline as advantages, on the agent's
    device. Only a baseline can stand for what truncation cut off."""
    rollout = Rollout(*(tensor.to(agent.device) for tensor in rollout))
    # images of long episodes would not fit into memory at once
    chunks = [agent.value(obs) for obs in rollout.obs.flatten(0, 1).split(4096)]
    values = torch.cat(chunks).view(rollout.obs.shape[:2])
    advantages = gae(
        rollout.rewards,
        values,
        rollout.terminated,
        rollout.ended,
        rollout.valid,
        args.gamma,
        gae_lambda=1.0,
    )
    valid = rollout.valid
    returns = (advantages + values[:-1])[valid]
    advantages = advantages[valid]
    if args.norm_adv:
        advantages = normalize(advantages, returns)
    return Batch(
        obs=rollout.obs[:-1][valid],
        actions=rollout.actions[valid],
        values=values[:-1][valid],
        advantages=advantages,
        returns=returns,
    )


def normalize(advantages: Tensor, returns: Tensor) -> Tensor:
    """Advantages (rows,) less their mean, over their standard deviation. A deviation below 1e-6 of
    the largest return is float32's rounding: it becomes 0, and not 1."""
    centred = advantages - advantages.mean()
    deviation = centred.square().mean().sqrt()
    rounding = 1e-6 * returns.abs().max()
    return torch.where(deviation > rounding, centred / (deviation + 1e-8), 0.0)


def reinforce_loss(agent: Agent, batch: Batch, args: Args) -> tuple[Tensor, dict[str, Tensor]]:
    """Its gradient is REINFORCE's (Williams 1992, Eq. 11), plus entropy bonus and, with a critic,
    the value loss. Returns the loss, and its parts for the log.

    After an update's first minibatch the policy is no longer exactly the one that acted, and
    nothing corrects for that.
    """
    _, logits = agent(batch.obs)
    log_softmax = logits.log_softmax(dim=-1)  # without epsilon, whose entropy earns no bonus
    entropy = -(log_softmax.exp() * log_softmax).sum(dim=-1).mean()
    log_probs = behaviour_log_probs(log_softmax, args.epsilon)
    log_probs = log_probs.gather(1, batch.actions[:, None]).squeeze(1)
    policy_loss = -(log_probs * batch.advantages).mean()
    loss = policy_loss - args.ent_coef * entropy
    parts = {"policy_loss": policy_loss.detach(), "entropy": entropy.detach()}
    if agent.critic is not None:
        value_loss = (agent.value(batch.obs) - batch.returns).square().mean()
        loss = loss + args.vf_coef * value_loss
        parts["value_loss"] = value_loss.detach()
    return loss, parts


def trainable_parameters(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def flatten_parameters(module: nn.Module) -> Tensor:
    """All that trains as one vector theta (P,), of which the module's parameters are views from
    here on, and their gradients of theta.grad: so a few operations move them all."""
    parameters = trainable_parameters(module)
    theta = nn.utils.parameters_to_vector(parameters).detach()
    theta.grad = torch.zeros_like(theta)
    nn.utils.vector_to_parameters(theta, parameters)
    sizes = [parameter.numel() for parameter in parameters]
    for parameter, gradient in zip(parameters, theta.grad.split(sizes)):
        parameter.grad = gradient.view_as(parameter)
    return theta


def check_flattened(module: nn.Module, theta: Tensor) -> None:
    """Raises RuntimeError if the module has trainable parameters that are not views of theta, or if
    their gradients are not views of theta.grad."""
    parameters = trainable_parameters(module)
    if any(parameter.grad is None for parameter in parameters):
        raise RuntimeError("zero_grad() took the gradients out of theta.grad: leave it out")
    memory = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    if memory != {theta.untyped_storage().data_ptr()}:
        raise RuntimeError("what trains is not in theta: flatten the parameters anew")


def loss_gradient(agent: Agent, minibatch: Batch, args: Args) -> tuple[Tensor, dict[str, Tensor]]:
    """The gradient (P,) of `reinforce_loss` by theta, no longer than `max_grad_norm`, and for the
    log the loss's parts and the norm before: what `--compile` compiles."""
    loss, parts = reinforce_loss(agent, minibatch, args)
    parameters = trainable_parameters(agent)
    gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)  # 0 where unused
    gradient = torch.cat([gradient.flatten() for gradient in gradients])
    norm = gradient.norm()
    scale = (args.max_grad_norm / (norm + 1e-6)).clamp(max=1)
    return gradient * scale, parts | {"gradient_norm": norm}


class Adam:
    """Adam (Kingma & Ba 2015, arXiv 1412.6980) for one vector, with the interface of torch.optim,
    which works in its place; but the import of that takes as long as a short run."""

    def __init__(
        self, theta: Tensor, lr: float, eps: float, betas: tuple[float, float] = (0.9, 0.999)
    ):
        self.theta = theta
        self.eps = eps
        self.betas = betas
        self.param_groups = [{"lr": lr}]
        self.steps = 0
        self.mean = torch.zeros_like(theta)  # of gradients
        self.mean_square = torch.zeros_like(theta)

    def step(self) -> None:
        """Move theta against theta.grad."""
        beta1, beta2 = self.betas
        gradient = self.theta.grad
        self.steps += 1
        self.mean.lerp_(gradient, 1 - beta1)
        self.mean_square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        rms = (self.mean_square / (1 - beta2**self.steps)).sqrt()
        step_size = self.param_groups[0]["lr"] / (1 - beta1**self.steps)
        self.theta.addcdiv_(self.mean, rms + self.eps, value=-step_size)

    def state_dict(self) -> dict:
        return {"steps": self.steps, "mean": self.mean, "mean_square": self.mean_square}

    def load_state_dict(self, state: dict) -> None:
        self.steps = state["steps"]
        self.mean.copy_(state["mean"])
        self.mean_square.copy_(state["mean_square"])


def update(
    agent: Agent,
    theta: Tensor,
    gradient_fn: Callable,
    optimizer: Adam,
    batch: Batch,
    args: Args,
) -> dict[str, float]:
    """Passes of minibatch steps over one batch. Returns the means over them of the loss's parts and
    of the gradient's norm."""
    check_flattened(agent, theta)
    rows = len(batch.actions)
    minibatches = max(1, rows // args.minibatch_size)
    starts = [args.minibatch_size * k for k in range(1, minibatches)]
    history = []
    for _ in range(args.update_epochs):
        order = torch.randperm(rows).to(agent.device)
        for columns in zip(*(column[order].tensor_split(starts) for column in batch)):
            gradient, parts = gradient_fn(agent, Batch(*columns), args)
            theta.grad.copy_(gradient)
            optimizer.step()
            history.append(parts)
    results = {}
    for name in history[0]:
        results[name] = torch.stack([row[name] for row in history]).mean().item()
    return results


def explained_variance(returns: Tensor, values: Tensor) -> float:
    """The share (at most 1) of the variance of returns (rows,) that values (rows,) explain."""
    errors = returns - values
    return (1 - errors.var(correction=0) / returns.var(correction=0)).item()


def train(args: Args, envs: VectorEnv, agent: Agent, run: "Run") -> None:
    """REINFORCE: play whole episodes, update; until all timesteps are taken."""
    if args.plain:
        args = replace(args, **PLAIN)
    theta = flatten_parameters(agent)
    optimizer = Adam(theta, args.learning_rate, args.adam_eps)
    learning_rates = [group["lr"] for group in optimizer.param_groups]
    gradient_fn = compiled(loss_gradient) if args.compile else loss_gradient
    first_obs, _ = envs.reset(seed=environment_seed(args.seed, run.global_step))
    policy = Policy(agent, first_obs)
    run.begin(agent, optimizer)

    while run.goes_on():
        left = 1 - run.global_step / args.total_timesteps if args.anneal_lr else 1
        for group, learning_rate in zip(optimizer.param_groups, learning_rates):
            group["lr"] = left * learning_rate

        policy.prove()
        rollout, episodes, steps_taken = collect_episodes(envs, policy, args)
        unfinished = len(episodes) < args.episodes_per_update
        run.log_rollout(rollout, [] if unfinished else episodes)
        if unfinished:
            run.save()  # what was learned until this rollout is good
            run.give_up(f"only {len(episodes)} episodes ended within {steps_taken} steps")
        run.global_step += int(rollout.valid.sum())
        run.extra["steps_taken"] = run.extra.get("steps_taken", 0) + steps_taken
        run.log("charts", run.extra)

        batch = make_batch(agent, rollout, args)
        run.log_losses(update(agent, theta, gradient_fn, optimizer, batch, args))
        if args.baseline == "value":
            explained = explained_variance(batch.returns, batch.values)
            run.log("losses", {"explained_variance": explained})
        run.log("charts", {"learning_rate": optimizer.param_groups[0]["lr"]})
        if run.iteration % args.collapse_every == 0 or run.is_done():
            run.log_collapse(measure_collapse(agent, batch.obs, args))
        run.end_iteration()


# PLUMBING: acting, errors, environments, files. The same text in every script.
class Policy:
    """The agent's logits (num_envs, K) for the observations (num_envs, *observation) of one step.

    For a few rows a call of torch costs much more than the numbers in it. So where actor and head
    are Linear and Tanh layers alone, NumPy runs them on the memory of their parameters, but only
    until `prove` finds that the agent says otherwise.
    """

    def __init__(self, agent: Agent, obs: np.ndarray):
        self.agent = agent
        self.calls = 0
        self.next_proof = 0  # the number of calls
        self.asked = [obs, np.ones_like(obs), np.zeros_like(obs)]  # what to compare both for
        if obs.dtype.kind == "f":
            anything = np.random.default_rng(0).normal(size=(32, *obs.shape[1:]))
            scales = np.logspace(-2, 3, 32).reshape(-1, *[1] * (obs.ndim - 1))
            self.asked.append((anything * scales).astype(obs.dtype))
        self.always_asked = self.asked[1:]
        modules = [*agent.actor.modules(), *agent.head.modules()]
        layers = [module for module in modules if not list(module.children())]
        simple = all(type(layer) in (nn.Linear, nn.Tanh) for layer in layers)
        fast = simple and agent.device.type == "cpu"
        self.numpy_layers = [numpy_layer(layer) for layer in layers] if fast else []

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        if not self.numpy_layers:
            return self.agent_logits(obs)
        self.calls += 1
        if self.calls % 8 == 0:
            self.asked.append(obs)
        return self.numpy_logits(obs)

    def agent_logits(self, obs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            obs = torch.from_numpy(np.ascontiguousarray(obs))
            _, logits = self.agent(obs.to(self.agent.device))
        return logits.cpu().numpy()

    def numpy_logits(self, obs: np.ndarray) -> np.ndarray:
        x = obs.reshape(len(obs), -1)
        for layer in self.numpy_layers:
            x = layer(x)
        return x

    def prove(self) -> None:
        """Compare both, before acting, with the weights that will act, if 64 steps were taken since
        the last time. From the first difference on, the agent itself acts."""
        if self.numpy_layers and self.calls >= self.next_proof:
            self.next_proof = self.calls + min(self.calls, 64)  # soon after the first updates
            obs = np.concatenate(self.asked)
            finite = np.isfinite(obs).reshape(len(obs), -1).all(axis=1)
            expected = self.agent_logits(obs)[finite]
            tolerance = 1e-4 * np.abs(expected).max(initial=0)
            try:
                # few rows at a time, which wake none of NumPy's other threads
                found = np.concatenate([self.numpy_logits(rows) for rows in self.asked])[finite]
                close = np.abs(found - expected) <= tolerance  # not where it is NaN
            except ValueError:  # layers that are no chain
                close = np.zeros(1, np.bool_)
            if not (close.all() and np.isfinite(tolerance)):
                self.numpy_layers = []
            self.asked = list(self.always_asked)


def numpy_layer(layer: nn.Linear | nn.Tanh) -> Callable[[np.ndarray], np.ndarray]:
    """The layer as a function of NumPy arrays, on the memory of its parameters."""
    if isinstance(layer, nn.Tanh):
        return np.tanh
    weight = layer.weight.detach().numpy().T
    bias = 0 if layer.bias is None else layer.bias.detach().numpy()
    return lambda x: x @ weight + bias


def compiled(function: Callable) -> Callable:
    """The function as one graph, in which torch.autograd.grad is too. Exits with code 2 if there is
    no compiler, or no header of Python's for it."""
    compiler = os.environ.get("CXX", "g++")  # as torch looks for it
    if shutil.which(compiler) is None:
        fail("compile", True, f"needs a C++ compiler, and there is no {compiler}")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        fail("compile", True, f"needs Python's headers (python3-dev), and there is no {header}")
    torch._dynamo.config.trace_autograd_ops = True
    return torch.compile(function)


def fail(flag: str, value: object, reason: object) -> NoReturn:
    """Say in one line which flag's value cannot work, and exit with code 2."""
    line = f"error: --{flag.replace('_', '-')} {value}: {reason}"
    print(" ".join(line.split()), file=sys.stderr)
    sys.exit(2)


def parse_args(defaults: Args) -> Args:
    """The command line. `--help` shows a group of flags for each class that Args is made of."""
    groups = list(reversed(Args.__bases__))
    inherited = {flag.name for group in groups for flag in fields(group)}
    own = [(flag.name, flag.type) for flag in fields(Args) if flag.name not in inherited]
    if own:  # in a class with the name and place of Args, where tyro finds their texts
        groups.append(make_dataclass("Args", own, namespace={"__module__": __name__}))
    values = {}
    for group in groups:
        title = group.__name__.removesuffix("Args").lower() or "further"
        values[title] = group(*(getattr(defaults, flag.name) for flag in fields(group)))
    types = [(title, tyro.conf.OmitArgPrefixes[type(value)]) for title, value in values.items()]
    Flags = make_dataclass("Flags", types)
    description = __doc__.split("\n\n    ")[0]
    parsed = tyro.cli(Flags, default=Flags(**values), description=description)
    flags = {}
    for group in vars(parsed).values():
        flags |= vars(group)
    return Args(**flags)


def read_command_line() -> tuple[Args, dict]:
    """The flags, and the checkpoint to go on from, if any ({}). The checkpoint's flags are the
    defaults then, but for those by which a file from elsewhere could do harm."""
    args = parse_args(Args())
    if args.resume is None:
        return args, {}
    path = args.resume
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        saved = dict(state["args"])
        imports = ":" in saved["env_id"]
        trained = min(state["global_step"], saved["total_timesteps"])
        for key in ("agent", "optimizer_kind", "optimizer", "random", "log_sizes"):
            state[key]
    except Exception as error:  # a damaged file can raise anything
        cause = str(error).split(". ")[0]  # without torch's advice to trust the file
        fail("resume", path, f"cannot be read as a checkpoint ({type(error).__name__}: {cause})")

    known = {field.name for field in fields(Args)}
    unknown = saved.keys() - known
    if unknown:
        print(f"--resume {path}: has no use for its flags {', '.join(sorted(unknown))}")
    never = {"resume", "track", "wandb_project_name", "wandb_entity"}
    if imports:
        never.add("env_id")  # importing its module would run code
    taken = {flag: value for flag, value in saved.items() if flag in known - never}
    args = parse_args(Args(**taken))
    for flag in ("env_id", *(field.name for field in fields(HeadArgs))):
        if flag in saved and getattr(args, flag) != saved[flag]:
            reason = f"but {path} was trained with {saved[flag]}"
            if flag == "env_id" and imports:
                reason += "; its module is imported only if you repeat that --env-id"
            fail(flag, getattr(args, flag), reason)
    if args.total_timesteps < trained:
        reason = f"but the checkpoint is at step {state['global_step']}"
        fail("total_timesteps", args.total_timesteps, reason)
    return args, state


def check_flags(args: Args) -> None:
    """Refuse flags that cannot work whatever the environment and the algorithm."""
    for flag, (least, most) in LIMITS.items():
        value = getattr(args, flag, None)
        if value is not None and not least <= value <= most:
            fail(flag, value, f"must lie in [{least}, {most}]")
    if 0 < args.feature_norm < 1e-3:
        fail("feature_norm", args.feature_norm, "must be 0 or at least 0.001")
    if args.head_frame != "simplex" and not args.etf_head:
        fail("head_frame", args.head_frame, "needs --etf-head")
    if args.head_trainable and not args.etf_head:
        fail("head_trainable", args.head_trainable, "needs --etf-head")
    if args.feature_activation == "relu" and args.etf_head:
        fail("feature_activation", args.feature_activation, "cannot align with --etf-head")
    wandb = find_spec("wandb")  # a mere directory of that name has no origin
    if args.track and (wandb is None or wandb.origin is None):
        fail("track", args.track, "needs wandb: pip install wandb")


def seed_everything(args: Args) -> None:
    """Seed all generators of this process. Environments have `environment_seed`."""
    random.seed(args.seed)
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    torch.backends.cudnn.deterministic = args.torch_deterministic


def random_state() -> dict:
    """The states of all generators of this process, as a checkpoint can hold them."""
    name, keys, *rest = np.random.get_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": cuda,
    }


def set_random_state(state: dict) -> None:
    """Set what `random_state` returned."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def environment_seed(seed: int, global_step: int = 0) -> int:
    """The seed of the first environment, in the range of every back-end; the others count on from
    it. Runs of seeds below 2,000 begin 1,000,003 apart; an evaluation takes -1 - seed."""
    return (1_000_003 * seed + global_step) % 2**31


class EnvironmentFailed(Exception):
    """An environment raised, exited, or returned what it should not."""


class Environments(gym.vector.VectorWrapper):
    """Environments whose own errors say, below their traceback, whose they are."""

    def __init__(self, envs: VectorEnv, env_id: str):
        super().__init__(envs)
        self.env_id = env_id
        # of observations, rewards, terminated, truncated
        self.shapes = [envs.observation_space.shape] + 3 * [(envs.num_envs,)]

    def reset(self, **kwargs) -> tuple:
        return self.call(self.env.reset, **kwargs)

    def step(self, actions: np.ndarray) -> tuple:
        return self.call(self.env.step, actions)

    def close(self, **kwargs) -> None:
        self.call(self.env.close, **kwargs)

    def call(self, method: Callable, *args, **kwargs) -> tuple | None:
        """Raises EnvironmentFailed if the method raises, exits, or returns other shapes."""
        try:
            returned = method(*args, **kwargs)
            shapes = [np.shape(values) for values in (returned or ())[:-1]]
            if shapes != self.shapes[: len(shapes)]:
                raise ValueError(f"arrays of shapes {shapes}, not {self.shapes[: len(shapes)]}")
        except (Exception, SystemExit) as error:
            reason = f"its {method.__name__}() ended with {error!r}"
            raise EnvironmentFailed(f"--env-id {self.env_id}: {reason}") from error
        return returned


def uint8_scale(space: gym.Space) -> np.ndarray:
    """A factor for each number of the flattened space: 1/255 for uint8 Boxes, else 1."""
    if isinstance(space, gym.spaces.Dict):
        return np.concatenate([uint8_scale(part) for part in space.spaces.values()])
    if isinstance(space, gym.spaces.Tuple):
        return np.concatenate([uint8_scale(part) for part in space.spaces])
    image = isinstance(space, gym.spaces.Box) and space.dtype == np.uint8
    return np.full(gym.spaces.flatdim(space), 1 / 255 if image else 1, np.float32)


def flatten_observations(envs: VectorEnv) -> VectorEnv:
    """Observations as vectors; where images stand beside other numbers, scaled to [0, 1]."""
    scale = uint8_scale(envs.single_observation_space)
    envs = gym.wrappers.vector.FlattenObservation(envs)
    network_scales = envs.single_observation_space.dtype == np.uint8
    if scale.max() < 1 and network_scales:
        return envs
    if scale.min() == 1 and not network_scales:
        return envs
    space = gym.spaces.Box(-np.inf, np.inf, scale.shape, np.float32)
    transform = gym.wrappers.vector.TransformObservation
    return transform(envs, lambda obs: obs * scale, single_observation_space=space)


def make_envs(env_id: str, num_envs: int, render_mode: str | None = None) -> VectorEnv:
    """Environments with vectors or images (3-D) as observations; others are flattened, discrete
    ones to one-hot vectors. Exits with code 2 if it can't have any."""
    kwargs = {"render_mode": render_mode} if render_mode else {}
    try:
        envs = gym.make_vec(env_id, num_envs=num_envs, **kwargs)
    except gym.error.Error as error:
        fail("env_id", env_id, error)
    except (Exception, SystemExit) as error:
        missing_module = getattr(error.__cause__, "name", None)
        if missing_module is None or missing_module != env_id.partition(":")[0]:
            traceback.print_exc()  # for the environment's author
        fail("env_id", env_id, f"cannot be made: {error!r}")

    if env_id.rpartition(":")[2] not in gym.registry:  # so that runs can be told apart for good
        fail("env_id", env_id, f"has no version; the newest is {envs.spec.id}")
    if type(envs.unwrapped).__module__.startswith("ale_py"):  # it clips rewards
        fail("env_id", env_id, "Atari games are for ppo_atari_acpg.py")
    observations = envs.single_observation_space
    actions = envs.single_action_space
    autoreset = envs.metadata.get("autoreset_mode")
    if autoreset != AutoresetMode.NEXT_STEP:
        fail("env_id", env_id, f"resets by {autoreset}, not NEXT_STEP")
    if not isinstance(actions, gym.spaces.Discrete) or actions.n < 2:
        reason = f"has the action space {actions}, not a Discrete one with at least 2 actions"
        fail("env_id", env_id, reason)
    if not observations.is_np_flattenable:
        fail("env_id", env_id, f"has observations without a fixed size, {observations}")
    if not isinstance(observations, gym.spaces.Box) or len(observations.shape) not in (1, 3):
        envs = flatten_observations(envs)
    return Environments(envs, env_id)


def make_agent(envs: VectorEnv, args: Args) -> Agent:
    """The agent for these environments, on its device."""
    shape = envs.single_observation_space.shape
    width_flag = "hidden_size" if args.feature_dim is None else "feature_dim"
    try:
        agent = Agent(shape, int(envs.single_action_space.n), args)
        return agent.to("cuda" if args.cuda and torch.cuda.is_available() else "cpu")
    except ValueError as error:
        if "feature_dim" not in str(error):  # of an edit; else there is no frame of this size
            raise
        fail(width_flag, getattr(args, width_flag), error)
    except (MemoryError, RuntimeError) as error:  # torch's: can't allocate memory
        if "memory" not in str(error):
            raise
        fail("hidden_size", args.hidden_size, error)


def save(path: Path, state: dict) -> None:
    """torch.save, so that a kill or a full disk leaves the old file whole. Raises OSError."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write(path, buffer.getvalue())


def write(path: Path, data: bytes) -> None:
    """Write beside `path`, then rename. Raises OSError."""
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error


@torch.no_grad()
def evaluate(envs: VectorEnv, agent: Agent, episodes: int, seed: int) -> list[tuple[float, int]]:
    """Return and length of greedy episodes: the first of each environment after a reset, as else
    short ones would prevail. Endless ones are cut off after 27,000 steps, as Atari's games are."""
    results = []
    while len(results) < episodes:
        obs, _ = envs.reset(seed=environment_seed(-1 - seed, len(results)))
        policy = Policy(agent, obs)  # anew, as an edited one may remember
        policy.prove()
        returns = np.zeros(envs.num_envs)
        lengths = np.zeros(envs.num_envs, np.int64)
        running = np.ones(envs.num_envs, np.bool_)
        while running.any() and lengths.max() < 27_000:
            actions = policy(obs).argmax(axis=-1) + envs.single_action_space.start
            obs, rewards, terminated, truncated, _ = envs.step(actions)
            returns += np.where(running, rewards, 0)
            lengths += running
            running &= ~(terminated | truncated)
        results.extend(zip(returns.tolist(), lengths.tolist()))
    return results[:episodes]


class Run:
    """A run's directory, logs, checkpoints and progress. Nothing is written before `begin`."""

    def __init__(self, args: Args, checkpoint: dict):
        self.args = args
        self.resumed = checkpoint
        self.path = Path(args.resume).resolve().parent if args.resume else None
        self.iteration = checkpoint.get("iteration", 0)
        self.global_step = checkpoint.get("global_step", 0)
        self.recent = checkpoint.get("recent", [])  # returns of the last 100 episodes
        self.collapse = checkpoint.get("collapse", [])  # all measurements
        self.extra = checkpoint.get("extra", {})  # what else a script wants to find again
        self.episodes = []  # that ended since the last entry in the log
        self.scalars = {}  # of this iteration, for TensorBoard
        self.start = time.monotonic() - checkpoint.get("seconds", 0.0)
        self.next_line = 0.0  # the seconds at which progress is printed again
        self.training = False
        self.signal = 0  # that asked the run to stop
        self.has_skipped = False  # steps of the optimizer, and said so
        self.bar = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.on_signal)

    def begin(self, agent: Agent, optimizer) -> None:
        """Restore the checkpoint, if there is one, and open the logs."""
        self.training = True
        self.agent = agent
        self.optimizer = optimizer
        if self.resumed:
            kind = self.resumed["optimizer_kind"]
            groups = [dict(group) for group in optimizer.param_groups]
            if kind != type(optimizer).__name__:
                fail("resume", self.args.resume, f"has a state of {kind}, no other optimizer's")
            try:
                agent.load_state_dict(self.resumed["agent"])
                optimizer.load_state_dict(self.resumed["optimizer"])
                for group, options in zip(optimizer.param_groups, groups):
                    group.update(options)  # as flags given now say, and torch's would not
                set_random_state(self.resumed["random"])
            except Exception as error:  # of the agent or of any optimizer
                fail("resume", self.args.resume, f"does not fit this script: {error}")
            self.check_logs()
        else:
            self.make_directory()
        self.open_logs()

    def flags(self) -> dict:
        return asdict(self.args) | {"resume": None}

    def make_directory(self) -> None:
        """Make a directory that no other run has."""
        args = self.args
        head = "linear"
        if args.etf_head:
            head = args.head_frame.replace("simplex", "etf")
        if args.head_trainable:
            head += "-trainable"
        while self.path is None:
            now = f"{time.time():.3f}"
            name = f"{args.env_id}__{args.exp_name}__{head}__{args.seed}__{now}"
            path = Path(args.runs_dir, name.replace("/", "-").replace(":", "-"))
            try:
                path.mkdir(parents=True)
                self.path = path
            except FileExistsError as error:
                if not Path(args.runs_dir).is_dir():
                    fail("runs_dir", args.runs_dir, error)
                time.sleep(0.001)  # another run began in the same millisecond
            except OSError as error:
                fail("runs_dir", args.runs_dir, error)

    def logs(self) -> list[Path]:
        """The files that grow while the run trains."""
        files = [self.path / "episodes.csv", *sorted(self.path.glob("events.*.acpg"))]
        return [file for file in files if file.is_file()]

    def check_logs(self) -> None:
        """Refuse to go on where a log lacks what the checkpoint counts. None at all is fine."""
        for file in self.path.iterdir():
            if file.is_symlink():  # it could lead to files that are not this run's
                fail("resume", self.args.resume, f"{file.name} is a symbolic link")
        sizes = {log.name: log.stat().st_size for log in self.logs()}
        for name, counted in self.resumed["log_sizes"].items():
            size = sizes.get(name, 0)
            if sizes and size < counted:
                reason = f"{name} has {size} bytes, but had {counted} at the checkpoint"
                fail("resume", self.args.resume, reason)

    def open_logs(self) -> None:
        """Open the logs, cut back to the checkpoint, and lock episodes.csv for as long."""
        self.episodes_csv = open(self.path / "episodes.csv", "a", buffering=1)
        try:
            fcntl.flock(self.episodes_csv, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fail("resume", self.args.resume, "this run is being trained by another process")
        for log in self.logs():
            counted = self.resumed.get("log_sizes", {}).get(log.name, 0)
            os.truncate(log, min(counted, log.stat().st_size))
        if os.fstat(self.episodes_csv.fileno()).st_size == 0:
            self.episodes_csv.write("global_step,return,length,seconds\n")
        write(self.path / "args.json", json.dumps(self.flags(), indent=2).encode())
        if self.args.track:
            import_module("wandb").init(
                project=self.args.wandb_project_name,
                entity=self.args.wandb_entity,
                id=self.path.name,
                name=self.path.name,
                resume="allow",
                config=self.flags(),
                sync_tensorboard=True,
            )
        self.writer = SummaryWriter(self.path, filename_suffix=".acpg")
        rows = [f"|{flag}|{value}|" for flag, value in self.flags().items()]
        self.writer.add_text("hyperparameters", "\n".join(["|flag|value|", "|-|-|", *rows]))
        total = self.args.total_timesteps
        quiet = not sys.stdout.isatty()
        self.bar = tqdm(total=total, initial=min(self.global_step, total), disable=quiet)
        self.say(f"training on {self.agent.device}, logs in {self.path}")

    def say(self, line: str) -> None:
        """Print a line without tearing the progress bar."""
        with contextlib.suppress(OSError):  # where nobody reads on, as in `... | head`
            tqdm.write(line)
            sys.stdout.flush()

    def on_signal(self, number: int, frame: object) -> None:
        """Let the iteration end, which saves. A second time, or after training, stop at once."""
        at_once = self.signal or not self.training
        self.signal = number
        if at_once:
            raise KeyboardInterrupt

    def is_done(self) -> bool:
        return self.global_step >= self.args.total_timesteps

    def goes_on(self) -> bool:
        return not self.is_done() and not self.signal

    def last_checkpoint(self) -> Path | None:
        path = self.path and self.path / "checkpoint.pt"
        return path if path and path.exists() else None

    def give_up(self, reason: str) -> NoReturn:
        """End a run whose numbers are broken."""
        last = self.last_checkpoint()
        sys.exit(f"iteration {self.iteration}: {reason}; last good checkpoint: {last}")

    def log_rollout(self, rollout: Rollout, episodes: list[Episode]) -> None:
        """Write the episodes of a rollout that began at `global_step` to episodes.csv. Gives up if
        an observation or a reward that is learned from is not finite."""
        self.iteration += 1
        used = torch.cat([rollout.valid[:1], ~rollout.terminated])  # not what follows a termination
        for name, values, rows in (
            ("observation", rollout.obs, used),
            ("reward", rollout.rewards, rollout.valid),
        ):
            finite = values.reshape(*rows.shape, -1).isfinite().all(dim=-1)
            broken = (rows & ~finite).nonzero().tolist()
            if broken:
                t, i = broken[0]
                value = values[t, i].flatten()
                value = value[~value.isfinite()][0]
                self.save()  # what was learned until this rollout is good
                self.give_up(f"the {name} of environment {i} at step {t} is {value}")
        seconds = time.monotonic() - self.start
        for episode in episodes:
            step = self.global_step + episode.steps
            numbers = f"{step},{episode.episode_return},{episode.length},{seconds:.2f}"
            self.episodes_csv.write(numbers + "\n")
        self.episodes += episodes
        self.recent = (self.recent + [episode.episode_return for episode in episodes])[-100:]

    def logs_now(self) -> bool:
        return self.iteration % self.args.log_every == 0 or self.is_done()

    def log_losses(self, losses: dict[str, float]) -> None:
        """Log the results of an update. Gives up if one is not finite, and says so, once, if steps
        of the optimizer were skipped."""
        numbers = losses.items()
        broken = [f"{name} is {value}" for name, value in numbers if not math.isfinite(value)]
        if broken:
            self.give_up(", ".join(broken))
        skipped = losses.get("skipped", 0)
        if skipped > 0 and not self.has_skipped:
            self.has_skipped = True
            self.say(f"iteration {self.iteration}: {skipped} steps skipped that teach nothing")
        self.log("losses", losses)

    def log(self, group: str, scalars: dict[str, float]) -> None:
        """Log scalars, charts and losses every `log_every` iterations and at the end; those that
        are undefined (NaN) are left out."""
        if group in ("charts", "losses") and not self.logs_now():
            return
        for name, value in scalars.items():
            if math.isfinite(value):
                self.scalars[f"{group}/{name}"] = value

    def write_scalars(self) -> None:
        """Write what was logged since the last time to TensorBoard, as one event."""
        if not self.scalars:
            return
        values = [Summary.Value(tag=tag, simple_value=x) for tag, x in self.scalars.items()]
        self.writer.file_writer.add_summary(Summary(value=values), self.global_step)
        self.scalars = {}

    def log_collapse(self, metrics: dict[str, float]) -> None:
        """Log measures of collapse, and keep them in the checkpoint, where the benchmark looks."""
        self.collapse.append({"global_step": self.global_step} | metrics)
        self.log("collapse", metrics)

    def end_iteration(self) -> None:
        """Log speed and the means over the latest episodes, save now and then, and show
        progress."""
        seconds = time.monotonic() - self.start
        speed = self.global_step / seconds
        self.log("charts", {"SPS": speed})
        if self.episodes and self.logs_now():
            _, episode_return, length = np.mean(self.episodes, axis=0)
            self.log("charts", {"episodic_return": episode_return, "episodic_length": length})
            self.episodes = []
        self.write_scalars()
        if self.iteration % self.args.checkpoint_every == 0 or self.is_done():
            self.save()

        recent = np.mean(self.recent) if self.recent else math.nan
        status = f"return {recent:.1f} (last {len(self.recent)} episodes), {speed:.0f} steps/s"
        total = self.args.total_timesteps
        self.bar.set_postfix_str(status, refresh=False)
        self.bar.update(min(self.global_step, total) - self.bar.n)
        if self.bar.disable and (seconds > self.next_line or self.is_done()):
            self.say(f"step {self.global_step}/{total}: {status}")
            self.next_line = seconds + 5

    def save(self) -> None:
        """Write checkpoint.pt, after the logs that it counts have reached the disk."""
        self.writer.flush()
        for log in self.logs():
            with open(log) as file:
                os.fsync(file.fileno())
        state = {
            "script": Path(__file__).stem,
            "args": self.flags(),
            "agent": self.agent.state_dict(),
            "optimizer_kind": type(self.optimizer).__name__,
            "optimizer": self.optimizer.state_dict(),
            "random": random_state(),
            "iteration": self.iteration,
            "global_step": self.global_step,
            "seconds": time.monotonic() - self.start,
            "recent": self.recent,
            "collapse": self.collapse,
            "extra": self.extra,
            "log_sizes": {log.name: log.stat().st_size for log in self.logs()},
        }
        save(self.path / "checkpoint.pt", state)

    def finish(self) -> None:
        """Play greedy episodes, in environments of their own."""
        self.training = False
        if self.signal:
            self.save()
            raise KeyboardInterrupt
        count = self.args.eval_episodes
        if count > 0:
            envs = make_envs(self.args.env_id, min(count, 10))
            results = evaluate(envs, self.agent.eval(), count, self.args.seed)
            lines = [f"{self.global_step},{value},{length}\n" for value, length in results]
            table = "".join(["global_step,return,length\n", *lines])
            write(self.path / "evaluation.csv", table.encode())
            returns, lengths = np.transpose(results)
            self.log("eval", {"episodic_return": returns.mean(), "episodic_length": lengths.mean()})
            spread = f"{returns.mean():.1f} +- {returns.std():.1f}"
            self.say(f"{count} greedy episodes: return {spread}")
            self.write_scalars()
            self.writer.flush()
            envs.close()
        self.say(str(self.path))

    def close(self) -> None:
        """Close the logs, and let signals end the process again."""
        if self.bar is not None:
            self.bar.close()
            for log in (self.writer, self.episodes_csv):
                with contextlib.suppress(OSError):  # a full disk has been reported
                    log.close()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def stop(self) -> NoReturn:
        """After Ctrl-C or SIGTERM: say how to go on, and exit with the code that shells expect."""
        how = "no checkpoint to go on from"
        if self.last_checkpoint():
            command = ["python", sys.argv[0], "--resume", str(self.last_checkpoint())]
            if ":" in self.args.env_id:
                command += ["--env-id", self.args.env_id]
            how = f"go on with: {shlex.join(command)}"
        print(f"stopped at step {self.global_step}; {how}", file=sys.stderr)
        sys.exit(128 + (self.signal or signal.SIGINT))


def main() -> None:
    args, checkpoint = read_command_line()
    check_flags(args)
    run = Run(args, checkpoint)
    try:
        torch.set_num_threads(args.num_threads)
        seed_everything(args)
        envs = make_envs(args.env_id, args.num_envs)
        check_combinations(args, envs)
        agent = make_agent(envs, args)
        train(args, envs, agent, run)
        run.finish()
        envs.close()
    except KeyboardInterrupt:
        run.stop()
    except EnvironmentFailed:
        if run.training:
            run.save()  # what was learned until this rollout is not lost
        raise
    except OSError as error:
        sys.exit(f"error: {error}; the run is in {run.path}")
    finally:
        run.close()


if __name__ == "__main__":
    main()
