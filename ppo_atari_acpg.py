"""PPO (Schulman et al. 2017, arXiv 1707.06347) on Atari; --etf-head freezes its action layer to a simplex ETF (2509.02737).

Lives lost end an episode, and rewards are clipped to their sign, for learning only: the game goes on (after a life lost the
agent has to FIRE by itself), and the returns that are reported are the unclipped scores of whole games."""

import json
import math
import os
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn

import gymnasium as gym
import numpy as np
import torch
import tyro
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm


@dataclass
class Args:
    seed: int = 1  # of the environments, the weights, the frame and the sampled actions
    cuda: bool = False  # train on the GPU
    num_threads: int = os.cpu_count() or 1  # CPU threads of torch, and as many of the environments
    compile: bool = False  # compile the loss: needs a C compiler
    amp: bool = False  # run the convolutions and the layer after them in bfloat16
    channels_last: bool = True  # keep the convolutions' weights channels-last
    pin_memory: bool = False  # with --cuda: copy the frames asynchronously, from pinned memory
    track: bool = False  # log to Weights & Biases too (pip install wandb; WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE apply)
    runs_dir: str = "runs"  # where the run's own directory is made
    save_model: bool = False  # write the trained agent to agent.pt in the run's directory
    checkpoint_every: int = 10  # iterations between checkpoints
    resume: str | None = None  # go on from this checkpoint.pt, in its directory and with its flags; flags given here override
    evaluate: str | None = None  # do not train: play the agent of this agent.pt or checkpoint.pt greedily
    eval_episodes: int = 10  # games that --evaluate plays
    capture_video: bool = False  # with --evaluate: film the game (pip install moviepy)
    collapse_every: int = 10  # iterations between measurements of action collapse
    collapse_center: Literal["actions", "states"] = "actions"  # centre on the mean of the means, or of all states (paper)
    # Environment
    backend: Literal["envpool", "ale"] = "envpool"  # who runs the games: envpool, or ale-py's own vector environment
    env_id: str | None = None  # the game, Breakout-v5 if not said (envpool) or ALE/Breakout-v5 (ale)
    sticky_actions: float = 0.0  # probability that the last action is repeated instead (0.25 in Machado et al. 2018)
    full_action_space: bool = False  # all 18 actions instead of those that the game knows
    # Algorithm (CleanRL's names and defaults)
    total_timesteps: int = 10_000_000  # environment steps (4 frames) of the whole run; those that only reset are not counted
    learning_rate: float = 2.5e-4  # of Adam
    num_envs: int = 8  # parallel environments
    num_steps: int = 128  # steps per environment and rollout
    anneal_lr: bool = True  # anneal the learning rate linearly to zero
    gamma: float = 0.99  # discount factor
    gae_lambda: float = 0.95  # lambda of generalized advantage estimation
    num_minibatches: int = 4  # minibatches per epoch
    update_epochs: int = 4  # epochs per rollout
    norm_adv: bool = True  # normalize the advantages of a minibatch
    clip_coef: float = 0.1  # clip the probability ratio to 1 +- this
    clip_vloss: bool = True  # clip the change of a value by clip_coef too
    ent_coef: float = 0.01  # coefficient of the entropy bonus
    vf_coef: float = 0.5  # coefficient of the value loss
    max_grad_norm: float = 0.5  # clip the gradient's norm to this
    epsilon: float = 0.0  # act by (1 - epsilon) softmax + epsilon / K, and learn with that mixture's log-probabilities
    # Network and head
    hidden_size: int = 512  # width d of the activations
    feature_activation: Literal["tanh", "linear", "relu"] = "tanh"  # before the head; relu (CleanRL) fits no frame
    feature_norm: float = 0.0  # sqrt(E_H): project the activations onto the ball of this radius (0: unbounded)
    head_std: float = 0.01  # initial standard deviation (orthogonal gain) of the learned head
    etf_head: bool = False  # replace the learned head by a frozen simplex ETF
    etf_scale: float = 2.0  # sqrt(E_W): norm of the frame's rows
    head_frame: Literal["simplex", "random", "orthogonal"] = "simplex"  # control: another frame of the same norm
    head_trainable: bool = False  # control: only start at the frame, then learn


# ALGO LOGIC: the head and the agent
def simplex_etf(num_actions: int, feature_dim: int, generator: torch.Generator) -> Tensor:
    """Randomly rotated simplex equiangular tight frame (num_actions, feature_dim) (arXiv 2509.02737, Eq. 3): rows of norm 1
    that sum to zero, with pairwise cosine -1/(K-1). Where the paper rotates K centred axes, this rotates a basis of their
    (K-1)-dimensional span. Raises ValueError if feature_dim < num_actions - 1: there is none."""
    K = num_actions
    if feature_dim < K - 1:
        raise ValueError(f"a simplex ETF of {K} actions needs feature_dim >= {K - 1}, not {feature_dim}")
    basis = torch.linalg.qr(torch.cat([torch.ones(K, 1), torch.eye(K, K - 1)], dim=1).double()).Q[:, 1:]
    rotation = nn.init.orthogonal_(torch.empty(feature_dim, K - 1, dtype=torch.float64), generator=generator)
    return (math.sqrt(K / (K - 1)) * basis @ rotation.T).float()


def layer_init(layer: nn.Module, std: float = math.sqrt(2), bias_const: float = 0.0) -> nn.Module:
    """Orthogonal weights of gain `std` and constant biases."""
    nn.init.orthogonal_(layer.weight, std)
    nn.init.constant_(layer.bias, bias_const)
    return layer


def make_head(num_actions: int, feature_dim: int, args) -> nn.Linear:
    """The action selection layer W h: CleanRL's, learned and with a bias, or a frame with rows of norm `etf_scale`. A frozen
    frame is a buffer, so that no optimizer sees it. Raises ValueError if feature_dim is too small for the frame."""
    if not args.etf_head:
        return layer_init(nn.Linear(feature_dim, num_actions), std=args.head_std)
    generator = torch.Generator().manual_seed(2**32 + args.seed)  # no other weights' random numbers
    if args.head_frame == "simplex":
        frame = simplex_etf(num_actions, feature_dim, generator)
    elif args.head_frame == "random":
        frame = nn.functional.normalize(torch.randn(num_actions, feature_dim, generator=generator))
    elif feature_dim >= num_actions:
        frame = nn.init.orthogonal_(torch.empty(num_actions, feature_dim), generator=generator)
    else:
        raise ValueError(f"{num_actions} orthogonal rows need feature_dim >= {num_actions}, not {feature_dim}")
    head = nn.Linear(feature_dim, num_actions, bias=False)
    head.weight = nn.Parameter(args.etf_scale * frame)
    if not args.head_trainable:
        del head.weight
        head.register_buffer("weight", args.etf_scale * frame)
    return head


class Agent(nn.Module):
    """The network of Mnih et al. 2015 under actor and critic. Frames (batch, 4, 84, 84) of uint8 -> activations h (batch, d),
    logits (batch, K), values (batch,)."""

    def __init__(self, num_actions: int, args: Args):
        super().__init__()
        layers = [layer_init(nn.Conv2d(4, 32, 8, stride=4)), nn.ReLU(), layer_init(nn.Conv2d(32, 64, 4, stride=2)), nn.ReLU()]
        layers += [layer_init(nn.Conv2d(64, 64, 3)), nn.ReLU(), nn.Flatten()]
        self.backbone = nn.Sequential(*layers, layer_init(nn.Linear(64 * 7 * 7, args.hidden_size)))
        self.backbone.to(memory_format=torch.channels_last if args.channels_last else torch.contiguous_format)
        self.head = make_head(num_actions, args.hidden_size, args)
        self.value = layer_init(nn.Linear(args.hidden_size, 1), std=1.0)
        self.activation = {"tanh": nn.Tanh, "linear": nn.Identity, "relu": nn.ReLU}[args.feature_activation]()
        self.amp, self.feature_norm = args.amp, args.feature_norm

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast(obs.device.type, torch.bfloat16, enabled=self.amp):
            features = self.backbone(obs / 255)
        features = self.activation(features.float())
        if self.feature_norm > 0:
            features = features * (self.feature_norm / features.norm(dim=-1, keepdim=True).clamp_min(self.feature_norm))
        return features, self.head(features), self.value(features).squeeze(-1)

    def policy(self, obs: np.ndarray) -> np.ndarray:
        return self(torch.from_numpy(obs).to(self.value.weight.device))[1].numpy(force=True)


def behaviour_log_probs(logits: Tensor, epsilon: float) -> Tensor:
    """Log-probabilities (batch, K) of the policy that acts, (1 - epsilon) softmax + epsilon / K."""
    log_softmax = logits.log_softmax(dim=-1)
    return torch.log((1 - epsilon) * log_softmax.exp() + epsilon / logits.shape[-1]) if epsilon else log_softmax


# ALGO LOGIC: the measures of action collapse
def frame_metrics(prefix: str, vectors: Tensor) -> dict[str, Tensor]:
    """Distance of K >= 2 vectors (K, d) from a simplex ETF (arXiv 2509.02737, Sec. 3): all 0 at one, NaN if undefined."""
    norms, K = vectors.norm(dim=1), len(vectors)
    cosines = (vectors @ vectors.T / norms[:, None] / norms)[*torch.triu_indices(K, K, offset=1)]
    measures = norms.std(correction=0) / norms.mean(), cosines.std(correction=0), (cosines + 1 / (K - 1)).abs().mean()
    return {f"{prefix}_{name}": measure for name, measure in zip(("equinorm", "equiangularity", "maximal_angle"), measures)}


def collapse_metrics(features: Tensor, actions: Tensor, weight: Tensor, center: str) -> dict[str, float]:
    """Action collapse of activations (batch, d) labelled by actions (batch,), and of the head's rows (K, d), in float64.
    head_*, means_*: `frame_metrics` of the rows, and of the centred mean activations of the K' actions seen. self_duality:
    distance of the normalized rows and means (Papyan et al. 2020, arXiv 2008.08186). within_variability: Tr(S_W pinv(S_B)) /
    K', the pseudo-inverse of rank K' - 1. Left out where undefined, or trivial as the angle of two centred means is."""
    features, weight = features.double(), weight.double()
    counts = torch.bincount(actions, minlength=len(weight))
    means = torch.zeros_like(weight).index_add(0, actions, features) / counts[:, None].clamp_min(1)
    centred = means[counts > 0] - (means[counts > 0] if center == "actions" else features).mean(dim=0)
    metrics = frame_metrics("head", weight) | {"feature_norm": features.norm(dim=1).mean(), "actions_seen": (counts > 0).sum()}
    _, scales, directions = torch.linalg.svd(centred, full_matrices=False)
    rank = int((scales[: len(centred) - 1] > 1e-9 * metrics["feature_norm"]).sum())
    if rank > 0:
        deviations = (features - means[actions]) @ directions[:rank].T / scales[:rank]
        metrics["within_variability"] = deviations.square().sum(dim=1).mean()
    if rank > 0 and len(centred) > 2:
        metrics |= frame_metrics("means", centred)
    if rank > 0 and len(centred) == len(weight):
        metrics["self_duality"] = (weight / weight.norm() - centred / centred.norm()).norm()
    return {name: value.item() for name, value in metrics.items() if value.isfinite()}


# ALGO LOGIC: rollout, advantages, loss and update
class Rollout(NamedTuple):
    obs: Tensor  # (num_steps + 1, num_envs, 4, 84, 84), uint8, with the true last observation where a game ended
    features: Tensor  # (num_steps + 1, num_envs, d), as the next two: what the network made of obs
    logits: Tensor  # (num_steps + 1, num_envs, K)
    values: Tensor  # (num_steps + 1, num_envs)
    actions: Tensor  # (num_steps, num_envs), as all that follow
    rewards: Tensor  # clipped
    terminated: Tensor  # for learning: a life lost or the game over
    ended: Tensor  # that, or truncated
    valid: Tensor  # False where the game had ended one row before: there the environment only reset


@torch.inference_mode()
def collect(envs: VectorEnv, agent, frames, over, lives, args: Args) -> tuple[Rollout, tuple, list[tuple], dict[str, float]]:
    """`num_steps` steps from frames (num_envs, 4, 84, 84), where `over` (num_envs,) marks games to be reset next and `lives`
    tells the lives left. Actions are sampled by the Gumbel-max trick; with probability epsilon the noise is so strong that
    logits do not matter. A life counts as lost only while others are left, as some games show none for a while before they
    end (so do OpenAI's baselines). Also returns frames, over and lives for the next rollout, (valid steps so far, return,
    length) of each ended game, and seconds by stage."""
    T, N, K, device = args.num_steps, args.num_envs, envs.single_action_space.n, agent.value.weight.device
    noise = -torch.empty(T, N, K).exponential_().log() * torch.where(torch.rand(T, N, 1) < args.epsilon, 1e9, 1.0)
    obs, noise = torch.empty(T + 1, *frames.shape, dtype=torch.uint8, device=device), noise.to(device)
    actions, rewards = np.empty((T, N), np.int64), np.empty((T, N), np.float32)
    terminated, ended, valid = np.empty((3, T, N), np.bool_)
    outputs, episodes, start, environment = [], [], time.perf_counter(), 0.0
    for t in range(T):
        host = torch.from_numpy(frames).pin_memory() if args.pin_memory else torch.from_numpy(frames)
        outputs.append(agent(obs[t].copy_(host, non_blocking=args.pin_memory)))
        actions[t], valid[t] = (outputs[t][1] + noise[t]).argmax(dim=-1).numpy(force=True), ~over
        acted = time.perf_counter()
        frames, scores, game_over, truncated, info = envs.step(actions[t])
        environment += time.perf_counter() - acted
        rewards[t] = np.sign(scores)
        terminated[t] = game_over | ((info["lives"] < lives) & (info["lives"] > 0))
        ended[t], over, lives = terminated[t] | truncated, game_over | truncated, info["lives"].copy()
        for i in np.flatnonzero(over):
            episodes.append((valid[: t + 1].sum().item(), info["episode"]["r"][i].item(), info["episode"]["l"][i].item()))
    outputs.append(agent(obs[T].copy_(torch.from_numpy(frames))))
    seconds = {"environment": environment, "inference": time.perf_counter() - start - environment}
    columns = (torch.from_numpy(x).to(device) for x in (actions, rewards, terminated, ended, valid))
    return Rollout(obs, *map(torch.stack, zip(*outputs)), *columns), (frames, over, lives), episodes, seconds


def gae(rewards, values, terminated, ended, valid, gamma: float, gae_lambda: float) -> Tensor:
    """Generalized advantage estimation (Schulman et al. 2016, arXiv 1506.02438, Eq. 16) under next-step autoreset.
    Tensors of (num_steps, num_envs), values one row longer. Truncation bootstraps from the true last observation,
    termination does not; both stop the recursion. Invalid rows get 0 and reach no other."""
    deltas = rewards + gamma * torch.where(terminated, 0.0, values[1:]) - values[:-1]
    deltas, discounts = torch.where(valid, deltas, 0.0), torch.where(valid & ~ended, gamma * gae_lambda, 0.0)
    advantages, last = torch.empty_like(deltas), torch.zeros_like(deltas[0])
    for t in reversed(range(len(deltas))):
        last = advantages[t] = deltas[t] + discounts[t] * last
    return advantages


@torch.inference_mode()
def make_batch(rollout: Rollout, args: Args) -> list[Tensor]:
    """What `ppo_loss` takes, flat (rows, ...); all but obs is 0 where invalid, so that nothing there reaches a gradient."""
    obs, _, logits, values, actions, rewards, terminated, ended, valid = rollout
    log_probs = behaviour_log_probs(logits[:-1], args.epsilon).gather(2, actions[:, :, None]).squeeze(2)
    advantages = gae(rewards, values, terminated, ended, valid, args.gamma, args.gae_lambda)
    columns = (actions, log_probs, values[:-1], advantages, advantages + values[:-1], valid)
    return [obs[:-1].flatten(0, 1), *(x.masked_fill(~valid, 0).flatten() for x in columns)]


def ppo_loss(agent, args, obs, actions, old_log_probs, old_values, advantages, returns, valid) -> tuple[Tensor, dict]:
    """Clipped surrogate, value loss and entropy bonus (arXiv 1707.06347, Eq. 9) over the valid rows of a minibatch:
    obs is (batch, *observation), all else (batch,). Returns the loss, and its parts for the log."""
    count = valid.sum().clamp_min(1)
    weights = valid / count  # the product with these is the mean over the valid rows
    _, logits, values = agent(obs)
    log_softmax = logits.log_softmax(dim=-1)
    entropy = -(log_softmax.exp() * log_softmax).sum(dim=-1) @ weights
    log_ratio = behaviour_log_probs(logits, args.epsilon).gather(1, actions[:, None]).squeeze(1) - old_log_probs
    ratio = log_ratio.exp()
    clipped_ratio = ratio.clamp(1 - args.clip_coef, 1 + args.clip_coef)

    if args.norm_adv:
        advantages = advantages - advantages @ weights
        advantages = advantages / ((advantages.square() @ weights * count / (count - 1).clamp_min(1)).sqrt() + 1e-8)
    policy_loss = -torch.minimum(advantages * ratio, advantages * clipped_ratio) @ weights

    value_errors = (values - returns).square()
    if args.clip_vloss:
        clipped_values = old_values + (values - old_values).clamp(-args.clip_coef, args.clip_coef)
        value_errors = torch.maximum(value_errors, (clipped_values - returns).square())
    value_loss = 0.5 * value_errors @ weights

    parts = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
    parts |= {"approx_kl": (ratio - 1 - log_ratio) @ weights, "clipfrac": (ratio != clipped_ratio).float() @ weights}
    return policy_loss - args.ent_coef * entropy + args.vf_coef * value_loss, parts


def update(agent: Agent, loss_fn, optimizer: torch.optim.Optimizer, columns: list[Tensor], args: Args) -> dict[str, float]:
    """Epochs of minibatch steps over one batch. Returns the means of the loss's parts and of the gradient's norm."""
    history, parameters = [], list(agent.parameters())  # a list, as walking the modules is slow
    for _ in range(args.update_epochs):
        order = torch.randperm(len(columns[0])).to(columns[0].device)
        for minibatch in zip(*(x[order].split(len(order) // args.num_minibatches) for x in columns)):
            loss, parts = loss_fn(agent, args, *minibatch)
            optimizer.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(parameters, args.max_grad_norm)
            optimizer.step()
            history.append(torch.stack([*parts.values(), norm]).detach())
    return dict(zip([*parts, "gradient_norm"], torch.stack(history).mean(dim=0).tolist()))


# PLUMBING: errors, environments, files
def fail(flag: str, value: object, reason: object) -> NoReturn:
    """Say in one line which flag's value cannot work, and exit with code 2."""
    print(f"error: --{flag.replace('_', '-')} {value}: {' '.join(str(reason).split())}", file=sys.stderr)
    sys.exit(2)


def check_args(args: Args) -> None:
    """Refuse values that cannot work whatever the game."""
    for flag, value in asdict(args).items():
        least = 1 if type(value) is int and flag != "seed" else 0
        most = 1 if flag in ("epsilon", "gamma", "gae_lambda", "sticky_actions") else 2**32 if flag == "seed" else math.inf
        if isinstance(value, int | float) and not (least <= value <= most and math.isfinite(value)):
            fail(flag, value, f"must be finite and lie in [{least}, {most}]")
    filmable = args.evaluate and find_spec("moviepy") and args.backend == "envpool"
    for flag, wrong, reason in (
        ("num_minibatches", args.num_envs * args.num_steps % args.num_minibatches, "must divide num_envs * num_steps"),
        ("track", args.track and not getattr(find_spec("wandb"), "origin", None), "needs wandb: pip install wandb"),
        ("cuda", args.cuda and not torch.cuda.is_available(), "torch finds no CUDA device"),
        ("pin_memory", args.pin_memory and not args.cuda, "needs --cuda"),
        ("capture_video", args.capture_video and not filmable, "needs --evaluate, moviepy and --backend envpool"),
        ("head_frame", args.head_frame != "simplex" and not args.etf_head, "needs --etf-head"),
        ("head_trainable", args.head_trainable and not args.etf_head, "needs --etf-head"),
        ("feature_activation", args.feature_activation == "relu" and args.etf_head, "cannot align with --etf-head"),
    ):
        if wrong:
            fail(flag, getattr(args, flag), reason)


def make_envs(args: Args, num_envs: int, seed: int, video_folder: Path | None = None) -> VectorEnv:
    """Atari as in "NoFrameskip-v4": grey 84x84 frames, 4 stacked; an action lasts 4 frames, of which the last two are joined
    by their maximum; up to 30 no-ops and FIRE at the start; at most 27,000 steps. Episodes are whole games, rewards are
    unclipped, info["lives"] tells the lives left. At the start envpool fires after the no-ops and fills the stack with that
    frame, ale-py fires before them and fills it with black. envpool takes its seed here, ale-py when reset."""
    package = "envpool" if args.backend == "envpool" else "ale-py"
    options = {"noop_max": 30, "use_fire_reset": True, "episodic_life": False, "full_action_space": args.full_action_space}
    options |= {"repeat_action_probability": args.sticky_actions, "num_threads": min(args.num_threads, num_envs)}
    try:
        if package == "envpool":
            warnings.filterwarnings("ignore", "EnvPool seeds are fixed")
            specs = import_module("envpool.registration").registry.specs
            games = {task: task for task, (module, *_) in specs.items() if module == "envpool.atari"}
            options |= {"env_type": "gymnasium", "render_mode": "rgb_array" if video_folder else None}
            make = partial(import_module("envpool").make, reward_clip=False, seed=seed)
        else:
            gym.register_envs(import_module("ale_py"))
            games = {name: spec.kwargs["game"] for name, spec in gym.registry.items() if name.startswith("ALE/")}
            make = partial(import_module("ale_py.vector_env").AtariVectorEnv, reward_clipping=False)
        if args.env_id not in games:
            other = args.env_id.removeprefix("ALE/") if package == "envpool" else f"ALE/{args.env_id}"
            advice = f"it is {other} there" if other in games else "what is not an Atari game is for ppo_acpg.py"
            fail("env_id", args.env_id, f"is no game of --backend {args.backend}; {advice}")
        envs = make(games[args.env_id], num_envs=num_envs, **options)
    except Exception as error:  # whatever a missing package or ROM raises
        fail("backend", args.backend, f"{error}; pip install --force-reinstall {package} brings it and its ROMs")
    if envs.metadata.get("autoreset_mode") != AutoresetMode.NEXT_STEP:
        fail("backend", args.backend, f"resets by {envs.metadata.get('autoreset_mode')}, not NEXT_STEP")
    if video_folder:
        envs.render = partial(lambda screens: [*screens()], envs.render)  # RecordVideo asks for a list
        envs = gym.wrappers.vector.RecordVideo(envs, str(video_folder), episode_trigger=lambda n: True, fps=15)
    return gym.wrappers.vector.RecordEpisodeStatistics(envs)


def save(path: Path, state: dict) -> None:
    """Write beside `path`, then rename: a kill or a full disk leaves the old file whole."""
    with open(path.with_suffix(".tmp"), "wb", buffering=0) as file:
        torch.save(state, file)
        os.fsync(file.fileno())
    os.replace(path.with_suffix(".tmp"), path)


def load(flag: str, path: str) -> dict:
    """What this script saved at `path`."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        script, keys, _ = state["script"], state["args"].keys(), state["optimizer" if flag == "resume" else "agent"]
    except Exception as error:  # a damaged file can raise anything
        fail(flag, path, f"cannot be read as a checkpoint ({type(error).__name__}: {error})".split("\n")[0])
    if script != Path(__file__).stem or keys != asdict(Args()).keys():
        fail(flag, path, f"was written by {script}.py, or by another version of it")
    return state


@torch.inference_mode()
def evaluate(envs: VectorEnv, policy, episodes: int, seed: int) -> list[float]:
    """Greedy returns, one of each environment per reset, as else short episodes would prevail; endless ones are cut off."""
    returns = []
    while len(returns) < episodes:
        obs, _ = envs.reset(seed=seed + len(returns))
        totals, running, steps = np.zeros(envs.num_envs), np.ones(envs.num_envs, dtype=bool), 0
        while running.any() and (steps := steps + 1) <= 27_000:
            obs, rewards, terminated, truncated, _ = envs.step(policy(obs).argmax(axis=-1) + envs.single_action_space.start)
            totals += np.where(running, rewards, 0)
            running &= ~(terminated | truncated)
        returns.extend(totals)
    return returns


def train(args: Args, envs: VectorEnv, agent: Agent, state: dict, seed: int) -> None:
    """Train in a new directory, or on from a checkpoint's `state` in its own. The seed is the environments'."""
    optimizer = torch.optim.Adam(agent.parameters(), eps=1e-5, fused=True)
    loss_fn = torch.compile(ppo_loss) if args.compile else ppo_loss
    iteration, global_step, start = state["iteration"], state["global_step"], time.time() - state["seconds"]
    frames, info = envs.reset(seed=seed)
    play = frames, np.zeros(args.num_envs, dtype=bool), info["lives"].copy()
    if args.resume:
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
    state |= {"script": Path(__file__).stem, "args": asdict(args) | {"resume": None}}
    head = args.head_frame.replace("simplex", "etf") + "-trainable" * args.head_trainable if args.etf_head else "linear"
    name = f"{args.env_id}__{state['script']}__{head}__{args.seed}__{time.time():.3f}"
    run = Path(args.resume).parent if args.resume else Path(args.runs_dir, name.replace("/", "-").replace(":", "-"))
    run.mkdir(parents=True, exist_ok=bool(args.resume))
    checkpoint = run / "checkpoint.pt"
    (run / "args.json").write_text(json.dumps(state["args"], indent=2))
    if args.track:
        import_module("wandb").init(id=run.name, name=run.name, resume="allow", config=state["args"], sync_tensorboard=True)
    for log in run.glob("e*"):  # episodes.csv and TensorBoard's events: what came after the checkpoint goes
        os.truncate(log, state["log_sizes"].get(log.name, 0))
    writer, recent, episodes_file = SummaryWriter(run), state["recent"], open(run / "episodes.csv", "a", 1)
    episodes_file.write("" if episodes_file.tell() else "global_step,return,length,seconds\n")
    bar, next_line = tqdm(total=args.total_timesteps, initial=global_step, disable=not sys.stdout.isatty()), 0.0

    while global_step < args.total_timesteps:
        iteration += 1
        lr = optimizer.param_groups[0]["lr"] = args.learning_rate * (1 - args.anneal_lr * global_step / args.total_timesteps)
        rollout, play, episodes, stages = collect(envs, agent, *play, args)
        for steps, episode_return, length in episodes:
            episodes_file.write(f"{global_step + steps},{episode_return},{length},{time.time() - start:.2f}\n")
        recent = (recent + [episode_return for _, episode_return, _ in episodes])[-100:]
        global_step += int(rollout.valid.sum())
        last = global_step >= args.total_timesteps

        metrics, learning = {}, time.perf_counter()
        if iteration % args.collapse_every == 0 or last:
            features, labels = rollout.features[:-1][rollout.valid], rollout.logits[:-1][rollout.valid].argmax(dim=1)
            metrics = collapse_metrics(features, labels, agent.head.weight, args.collapse_center)
            state["collapse"].append({"global_step": global_step} | metrics)
        stages["collapse"] = time.perf_counter() - learning
        losses = update(agent, loss_fn, optimizer, make_batch(rollout, args), args)
        stages["learning"] = time.perf_counter() - learning - stages["collapse"]
        if broken := ", ".join(f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)):
            sys.exit(f"iteration {iteration}: {broken}; last good checkpoint: {checkpoint if checkpoint.exists() else None}")

        seconds = time.time() - start
        scalars = {"charts/learning_rate": lr, "charts/SPS": global_step / seconds}
        if episodes:
            _, scalars["charts/episodic_return"], scalars["charts/episodic_length"] = np.mean(episodes, axis=0)
        for group, values in (("losses", losses), ("seconds", stages), ("collapse", metrics)):
            scalars |= {f"{group}/{key}": value for key, value in values.items()}
        for tag, value in scalars.items():
            writer.add_scalar(tag, value, global_step)
        if iteration % args.checkpoint_every == 0 or last:
            writer.flush()
            state |= {"agent": agent.state_dict(), "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()}
            state |= {"iteration": iteration, "global_step": global_step, "seconds": seconds, "recent": recent}
            save(checkpoint, state | {"log_sizes": {log.name: log.stat().st_size for log in run.glob("e*")}})
        status = f"return {np.mean(recent or math.nan):.1f} (last {len(recent)} episodes), {global_step / seconds:.0f} steps/s"
        bar.set_postfix_str(status, refresh=False)
        bar.update(min(global_step, args.total_timesteps) - bar.n)
        if bar.disable and (seconds > next_line or last):
            print(f"step {global_step}/{args.total_timesteps}: {status}", flush=True)
            next_line = seconds + 5

    bar.close()
    writer.close()
    if args.save_model:
        save(run / "agent.pt", {key: state[key] for key in ("script", "args", "agent")})
    print(run)


def main() -> None:
    args, state = tyro.cli(Args), dict(iteration=0, global_step=0, seconds=0.0, recent=[], collapse=[], log_sizes={})
    if path := args.evaluate or args.resume:
        state = load("evaluate" if args.evaluate else "resume", path)
        args = tyro.cli(Args, default=Args(**state["args"]))
        head = ("etf_head", "etf_scale", "head_frame", "head_trainable", "feature_norm", "feature_activation")
        trained, prefix = Args(**state["args"]), "ALE/" * (args.backend == "ale")
        args.env_id, trained.env_id = (prefix + env_id.removeprefix("ALE/") for env_id in (args.env_id, trained.env_id))
        for flag in ("env_id", "full_action_space", "hidden_size", "channels_last", *head):
            if getattr(args, flag) != getattr(trained, flag):
                fail(flag, getattr(args, flag), f"but {path} was trained with {getattr(trained, flag)}")
    args.env_id = args.env_id or {"envpool": "Breakout-v5", "ale": "ALE/Breakout-v5"}[args.backend]
    check_args(args)
    torch.set_num_threads(args.num_threads)
    torch.manual_seed(args.seed)
    num_envs = 1 if args.capture_video else args.eval_episodes if args.evaluate else args.num_envs
    seed = args.seed if args.evaluate else 1_000_003 * args.seed + state["global_step"]  # shares no game with the next seed
    envs = make_envs(args, num_envs, seed := seed % 2**30, Path(path).parent / "videos" if args.capture_video else None)
    try:
        agent = Agent(envs.single_action_space.n, args).to("cuda" if args.cuda else "cpu")
    except ValueError as error:
        fail("hidden_size", args.hidden_size, error)
    if path:
        agent.load_state_dict(state["agent"])
    if args.evaluate:
        returns = evaluate(envs, agent.policy, args.eval_episodes, seed)
        print(f"{len(returns)} greedy episodes of {args.env_id}: return {np.mean(returns):.1f} ± {np.std(returns):.1f}")
    else:
        train(args, envs, agent, state, seed)
    envs.close()


if __name__ == "__main__":
    main()
