"""A2C, the synchronous A3C (Mnih et al. 2016, arXiv 1602.01783); --etf-head freezes its action layer to a simplex ETF (arXiv
2509.02737). torch's RMSprop divides by sqrt(average) + epsilon, the paper's shared one by sqrt(average + epsilon). Where an
agent is so good that its gradients vanish, an epsilon of 1e-5 keeps the next steps small in the paper's form, but not in
torch's; hence the default of sqrt(1e-5)."""

import json
import math
import os
import sys
import time
from dataclasses import asdict, dataclass, replace
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
    cuda: bool = False  # train on the GPU (the MLP is faster on the CPU)
    num_threads: int = 1  # CPU threads of torch (more slow the MLP down)
    compile: bool = False  # compile the loss: needs a C compiler
    track: bool = False  # log to Weights & Biases too (pip install wandb; WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE apply)
    runs_dir: str = "runs"  # where the run's own directory is made
    save_model: bool = False  # write the trained agent to agent.pt in the run's directory
    checkpoint_every: int = 1000  # iterations between checkpoints
    resume: str | None = None  # go on from this checkpoint.pt, in its directory and with its flags; flags given here override
    evaluate: str | None = None  # do not train: play the agent of this agent.pt or checkpoint.pt greedily
    eval_episodes: int = 10  # episodes that --evaluate plays
    capture_video: bool = False  # with --evaluate: film the episodes (pip install moviepy)
    log_every: int = 100  # iterations between entries of the log
    collapse_every: int = 200  # iterations between measurements of action collapse, on the few states of one rollout
    collapse_center: Literal["actions", "states"] = "actions"  # centre on the mean of the means, or of all states (paper)
    # Algorithm (CleanRL's names; Stable-Baselines3's values, but for num_envs, anneal_lr, learning_rate, rmsprop_eps)
    env_id: str = "CartPole-v1"  # any Gymnasium id with discrete actions; `module:Id` imports module first
    total_timesteps: int = 500_000  # environment steps of the whole run; those that only reset are not counted
    learning_rate: float = 1e-3  # of RMSprop (decay 0.99)
    rmsprop_eps: float = 3.16e-3  # its epsilon (1e-5 in Stable-Baselines3)
    num_envs: int = 8  # parallel environments
    num_steps: int = 5  # steps per environment and rollout
    anneal_lr: bool = True  # anneal the learning rate linearly to zero
    gamma: float = 0.99  # discount factor
    gae_lambda: float = 1.0  # lambda of generalized advantage estimation; 1: n-step returns
    ent_coef: float = 0.0  # coefficient of the entropy bonus
    vf_coef: float = 0.5  # coefficient of the value loss
    max_grad_norm: float = 0.5  # clip the gradient's norm to this
    epsilon: float = 0.0  # act by (1 - epsilon) softmax + epsilon / K, and learn with that mixture's log-probabilities
    # Network and head
    backbone: Literal["auto", "mlp", "cnn"] = "auto"  # auto: cnn for images (3-D observations), mlp for all else
    hidden_size: int | None = None  # width d of the activations (mlp 64, images below 36 pixels 128, larger 512)
    feature_activation: Literal["tanh", "linear", "relu"] = "tanh"  # before the head; relu (CleanRL for images) fits no frame
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


class Backbone(nn.Module):
    """Observations (batch, *shape) -> activations h (batch, d). Vectors: CleanRL's MLP. Images below 36 pixels: the network of
    Young & Tian 2019 (arXiv 1903.03176); larger: of Mnih et al. 2015. An image's channels are its first or last axis."""

    def __init__(self, shape: tuple[int, ...], cnn: bool, args):
        super().__init__()
        self.channels_last = cnn and shape[2] < shape[0]
        self.feature_norm = args.feature_norm
        image = (shape[2], shape[0], shape[1]) if self.channels_last else shape
        small = cnn and min(image[1:]) < 36  # the least that the larger network takes
        self.feature_dim = args.hidden_size or (64 if not cnn else 128 if small else 512)
        if not cnn:
            layers = [nn.Flatten(), layer_init(nn.Linear(math.prod(shape), self.feature_dim)), nn.Tanh()]
        elif small:
            layers = [layer_init(nn.Conv2d(image[0], 16, 3)), nn.ReLU(), nn.Flatten()]
        else:
            layers = [layer_init(nn.Conv2d(image[0], 32, 8, stride=4)), nn.ReLU()]
            layers += [layer_init(nn.Conv2d(32, 64, 4, stride=2)), nn.ReLU()]
            layers += [layer_init(nn.Conv2d(64, 64, 3)), nn.ReLU(), nn.Flatten()]
        width = nn.Sequential(*layers)(torch.zeros(1, *image)).shape[1]
        activation = {"tanh": nn.Tanh, "linear": nn.Identity, "relu": nn.ReLU}[args.feature_activation]()
        self.layers = nn.Sequential(*layers, layer_init(nn.Linear(width, self.feature_dim)), activation)

    def forward(self, obs: Tensor) -> Tensor:
        x = obs.float() / 255 if obs.dtype == torch.uint8 else obs.float()
        features = self.layers(x.movedim(-1, 1) if self.channels_last else x)
        if self.feature_norm > 0:
            features = features * (self.feature_norm / features.norm(dim=-1, keepdim=True).clamp_min(self.feature_norm))
        return features


class Agent(nn.Module):
    """Actor and critic: two MLPs, or one CNN under both, as in CleanRL's ppo.py and ppo_atari.py.
    Observations (batch, *shape) -> activations (batch, d), logits (batch, K), values (batch,)."""

    def __init__(self, shape: tuple[int, ...], num_actions: int, args: Args):
        super().__init__()
        cnn = len(shape) == 3 and args.backbone != "mlp"
        self.actor = Backbone(shape, cnn, args)
        self.critic = None if cnn else Backbone(shape, cnn, replace(args, feature_norm=0.0, feature_activation="tanh"))
        self.head = make_head(num_actions, self.actor.feature_dim, args)
        self.value = layer_init(nn.Linear(self.actor.feature_dim, 1), std=1.0)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.actor(obs)
        values = self.value(features if self.critic is None else self.critic(obs)).squeeze(-1)
        return features, self.head(features), values


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
    obs: Tensor  # (num_steps + 1, num_envs, *observation), with the true last observation where an episode ended
    actions: Tensor  # (num_steps, num_envs), as all that follow
    rewards: Tensor
    terminated: Tensor
    ended: Tensor  # terminated or truncated
    valid: Tensor  # False where the episode had ended one row before: there the environment only reset


def make_policy(agent: nn.Module, space: gym.spaces.Box, args):
    """For acting: a function from observations (num_envs, *shape) of `space` to logits (num_envs, K). The default MLP runs in
    NumPy on the memory of its parameters: a few rows cost less than the calls do, and a call of torch four of NumPy's."""
    layers = [layer for layer in (*agent.actor.layers, agent.head) if isinstance(layer, nn.Linear)]
    device, vectors = agent.head.weight.device, len(space.shape) == 1 and space.dtype not in (np.uint8, np.bool_)
    if device.type != "cpu" or not vectors or args.feature_activation != "tanh" or args.feature_norm:
        return lambda obs: agent.head(agent.actor(torch.from_numpy(obs).to(device))).numpy(force=True)
    w1, w2, w3 = (layer.weight.detach().numpy().T for layer in layers)
    b1, b2, b3 = (0 if layer.bias is None else layer.bias.detach().numpy() for layer in layers)
    return lambda obs: np.tanh(np.tanh(obs @ w1 + b1) @ w2 + b2) @ w3 + b3


@torch.no_grad()
def collect(envs: VectorEnv, policy, obs, ended, args) -> tuple[Rollout, list[tuple]]:
    """`num_steps` steps from observations (num_envs, *observation), where `ended` (num_envs,) marks those to be reset next.
    Actions are sampled by the Gumbel-max trick; with probability epsilon the noise is so strong that logits do not matter.
    Also returns (valid steps so far, return, length) of each ended episode."""
    shape, space = (args.num_steps, args.num_envs), envs.single_action_space
    frames = np.empty((args.num_steps + 1, *obs.shape), obs.dtype if obs.dtype in (np.uint8, np.bool_) else np.float32)
    actions, rewards = np.empty(shape, np.int64), np.empty(shape, np.float32)
    terminated, over, valid = np.empty((3, *shape), np.bool_)
    noise = -torch.empty(*shape, space.n).exponential_().log() * torch.where(torch.rand(*shape, 1) < args.epsilon, 1e9, 1.0)
    noise, episodes, frames[0] = noise.numpy(), [], obs
    for t in range(args.num_steps):
        valid[t] = ~ended
        actions[t] = (policy(frames[t]) + noise[t]).argmax(axis=-1)
        frames[t + 1], rewards[t], terminated[t], truncated, info = envs.step(actions[t] + space.start)
        over[t] = ended = terminated[t] | truncated
        for i in np.flatnonzero(ended):
            episodes.append((valid[: t + 1].sum().item(), info["episode"]["r"][i].item(), info["episode"]["l"][i].item()))
    return Rollout(*map(torch.from_numpy, (frames, actions, rewards, terminated, over, valid))), episodes


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


def a2c_loss(agent, args, obs, actions, rewards, terminated, ended, valid) -> tuple[Tensor, dict, Tensor, Tensor]:
    """Policy gradient, value loss and entropy bonus (arXiv 1602.01783, Sec. 4) over the valid rows of a rollout: obs is
    (num_steps + 1, num_envs, *observation), all else (num_steps, num_envs). Returns the loss, its parts for the log, and
    activations (rows, d) and logits (rows, K). One pass of the network gives the gradient and the values to bootstrap from."""
    over = torch.cat([~valid[:1], terminated])  # what is seen there must not matter
    features, logits, values = agent(obs.masked_fill(over.view(*over.shape, *[1] * (obs.dim() - 2)), 0).flatten(0, 1))
    features, logits, values = features[: actions.numel()], logits[: actions.numel()], values.view_as(over)
    advantages = gae(rewards, values.detach(), terminated, ended, valid, args.gamma, args.gae_lambda)
    weights = valid.flatten() / valid.sum().clamp_min(1)  # the product with these is the mean over the valid rows
    log_softmax = logits.log_softmax(dim=-1)
    entropy = -(log_softmax.exp() * log_softmax).sum(dim=-1) @ weights
    log_probs = behaviour_log_probs(logits, args.epsilon).gather(1, actions.view(-1, 1)).squeeze(1)
    policy_loss = -(log_probs * advantages.flatten()) @ weights
    value_loss = (advantages + values[:-1].detach() - values[:-1]).flatten().square() @ weights
    parts = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
    return policy_loss - args.ent_coef * entropy + args.vf_coef * value_loss, parts, features.detach(), logits.detach()


def update(loss: Tensor, parts: dict[str, Tensor], optimizer: torch.optim.Optimizer, args: Args) -> dict[str, float]:
    """One step of the optimizer. Returns the loss's parts and the gradient's norm."""
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], args.max_grad_norm)
    optimizer.step()
    return dict(zip([*parts, "gradient_norm"], torch.stack([*parts.values(), norm]).tolist()))


# PLUMBING: errors, environments, files
def fail(flag: str, value: object, reason: object) -> NoReturn:
    """Say in one line which flag's value cannot work, and exit with code 2."""
    print(f"error: --{flag.replace('_', '-')} {value}: {' '.join(str(reason).split())}", file=sys.stderr)
    sys.exit(2)


def check_args(args) -> None:
    """Refuse values that cannot work whatever the environment."""
    for flag, value in asdict(args).items():
        least = 1 if type(value) is int and flag != "seed" else 0
        most = 1 if flag in ("epsilon", "gamma", "gae_lambda") else 2**32 if flag == "seed" else math.inf
        if isinstance(value, int | float) and not (least <= value <= most and math.isfinite(value)):
            fail(flag, value, f"must be finite and lie in [{least}, {most}]")
    for flag, wrong, reason in (
        ("track", args.track and not getattr(find_spec("wandb"), "origin", None), "needs wandb: pip install wandb"),
        ("cuda", args.cuda and not torch.cuda.is_available(), "torch finds no CUDA device"),
        ("capture_video", args.capture_video and not (args.evaluate and find_spec("moviepy")), "needs --evaluate and moviepy"),
        ("head_frame", args.head_frame != "simplex" and not args.etf_head, "needs --etf-head"),
        ("head_trainable", args.head_trainable and not args.etf_head, "needs --etf-head"),
        ("feature_activation", args.feature_activation == "relu" and args.etf_head, "cannot align with --etf-head"),
    ):
        if wrong:
            fail(flag, getattr(args, flag), reason)


def make_envs(env_id: str, num_envs: int, video_folder: Path | None = None) -> VectorEnv:
    """Environments with vectors or images (3-D) as observations; others are flattened, discrete ones to one-hot vectors."""
    try:
        envs = gym.make_vec(env_id, num_envs=num_envs, **({"render_mode": "rgb_array"} if video_folder else {}))
        if video_folder:
            envs = gym.wrappers.vector.RecordVideo(envs, str(video_folder), episode_trigger=lambda n: True)
    except (gym.error.Error, ImportError, ValueError) as error:
        fail("env_id", env_id, error)
    actions, observations = envs.single_action_space, envs.single_observation_space
    if envs.metadata.get("autoreset_mode") != AutoresetMode.NEXT_STEP:
        fail("env_id", env_id, f"resets by {envs.metadata.get('autoreset_mode')}, not NEXT_STEP")
    if not isinstance(actions, gym.spaces.Discrete) or actions.n < 2:
        fail("env_id", env_id, f"has the action space {actions}, not a Discrete one with at least 2 actions")
    if not observations.is_np_flattenable:
        fail("env_id", env_id, f"has observations without a fixed size, {observations}")
    if not isinstance(observations, gym.spaces.Box) or len(observations.shape) not in (1, 3):
        envs = gym.wrappers.vector.FlattenObservation(envs)
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


def train(args: Args, envs: VectorEnv, agent: Agent, state: dict) -> None:
    """Train in a new directory, or on from a checkpoint's `state` in its own."""
    optimizer = torch.optim.RMSprop(agent.parameters(), alpha=0.99, eps=args.rmsprop_eps, foreach=True)
    loss_fn = torch.compile(a2c_loss) if args.compile else a2c_loss
    iteration, global_step, start = state["iteration"], state["global_step"], time.time() - state["seconds"]
    policy = make_policy(agent, envs.single_observation_space, args)
    obs, _ = envs.reset(seed=(1_000_003 * args.seed + global_step) % 2**31)  # no environment shared with the next seed
    ended = np.zeros(args.num_envs, dtype=bool)
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
    finished = []

    while global_step < args.total_timesteps:
        iteration += 1
        lr = optimizer.param_groups[0]["lr"] = args.learning_rate * (1 - args.anneal_lr * global_step / args.total_timesteps)
        rollout, episodes = collect(envs, policy, obs, ended, args)
        obs, ended = rollout.obs[-1].numpy(), rollout.ended[-1].numpy()
        for steps, episode_return, length in episodes:
            episodes_file.write(f"{global_step + steps},{episode_return},{length},{time.time() - start:.2f}\n")
        recent = (recent + [episode_return for _, episode_return, _ in episodes])[-100:]
        global_step += int(rollout.valid.sum())
        last = global_step >= args.total_timesteps

        loss, parts, features, logits = loss_fn(agent, args, *(x.to(agent.value.weight.device) for x in rollout))
        measure, store = (iteration % every == 0 or last for every in (args.collapse_every, args.checkpoint_every))
        if measure:
            valid = rollout.valid.flatten().to(features.device)
            labels, weight = logits[valid].argmax(dim=1), agent.head.weight
            metrics = collapse_metrics(features[valid], labels, weight, args.collapse_center)
            state["collapse"].append({"global_step": global_step} | metrics)
        losses = update(loss, parts, optimizer, args)
        if broken := ", ".join(f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)):
            sys.exit(f"iteration {iteration}: {broken}; last good checkpoint: {checkpoint if checkpoint.exists() else None}")

        finished += episodes
        if not (measure or store or iteration % args.log_every == 0):
            continue
        seconds = time.time() - start
        scalars = {"charts/learning_rate": lr, "charts/SPS": global_step / seconds}
        if finished:
            _, scalars["charts/episodic_return"], scalars["charts/episodic_length"] = np.mean(finished, axis=0)
        scalars |= {f"losses/{key}": value for key, value in losses.items()}
        if measure:
            scalars |= {f"collapse/{key}": value for key, value in metrics.items()}
        for tag, value in scalars.items():
            writer.add_scalar(tag, value, global_step)
        finished = []
        if store:
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
        for flag in ("env_id", "backbone", "hidden_size", "baseline", *head):
            if getattr(args, flag, None) != state["args"].get(flag):
                fail(flag, getattr(args, flag), f"but {path} was trained with {state['args'][flag]}")
    check_args(args)
    torch.set_num_threads(args.num_threads)
    torch.manual_seed(args.seed)
    num_envs = 1 if args.capture_video else args.eval_episodes if args.evaluate else args.num_envs
    envs = make_envs(args.env_id, num_envs, Path(path).parent / "videos" if args.capture_video else None)
    if args.backbone == "cnn" and len(envs.single_observation_space.shape) != 3:
        fail("backbone", "cnn", f"needs images, but {args.env_id} shows {envs.single_observation_space}")
    try:
        agent = Agent(envs.single_observation_space.shape, envs.single_action_space.n, args).to("cuda" if args.cuda else "cpu")
    except ValueError as error:
        fail("hidden_size", args.hidden_size, error)
    if path:
        agent.load_state_dict(state["agent"])
    if args.evaluate:
        returns = evaluate(envs, make_policy(agent, envs.single_observation_space, args), args.eval_episodes, args.seed)
        print(f"{len(returns)} greedy episodes of {args.env_id}: return {np.mean(returns):.1f} ± {np.std(returns):.1f}")
    else:
        train(args, envs, agent, state)
    envs.close()


if __name__ == "__main__":
    main()
