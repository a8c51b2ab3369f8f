"""What agents make of labelled states, and the measures of action collapse there."""

from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from benchmark.files import Damaged

NUM_STATES = 2000  # where the labels are greedy actions


class States(NamedTuple):
    """What all agents of a run are shown."""

    obs: Tensor  # (states, *observation), as the script's network takes them
    labels: Tensor  # (states,)
    meaning: Tensor  # (K,): the label that each action stands for
    names: tuple[str, ...]  # of the K actions
    source: str  # of the labels: "optimal" or "greedy"
    cells: tuple[str, ...]  # names of the states


class Look(NamedTuple):
    """What an agent makes of them."""

    features: Tensor  # (states, d): activations
    labels: Tensor  # (states,)
    weight: Tensor  # (K, d): the head's rows
    logits: Tensor | None = None  # (states, K); for page.html alone


def load_checkpoints(folder: Path) -> list[dict]:
    """The checkpoints that were kept of a run, in order, after an untrained agent (without "agent",
    at step 0). Raises Damaged."""
    by_step = {}
    for path in folder.glob("*.pt"):
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            checkpoint = {
                "args": state["args"],
                "global_step": state["global_step"],
                "agent": state["agent"],
                "num_actions": len(state["agent"]["head.weight"]),
            }
        except Exception as error:  # a damaged file can raise anything
            cause = str(error).split(". ")[0]  # without torch's advice to trust the file
            raise Damaged(f"{path} is damaged ({type(error).__name__}: {cause})") from error
        by_step[checkpoint["global_step"]] = checkpoint
    if not by_step:
        raise Damaged(f"{folder} holds no checkpoint")
    trained = [by_step[step] for step in sorted(by_step)]
    untrained = {key: value for key, value in trained[-1].items() if key != "agent"}
    return [untrained | {"global_step": 0}, *trained]


def restore(script: ModuleType, checkpoint: dict, shape: tuple[int, ...]) -> nn.Module:
    """A saved agent for observations of `shape`; the untrained one, as the script draws it, if its
    checkpoint holds none."""
    args = script.Args(**checkpoint["args"])
    torch.manual_seed(args.seed)
    agent = script.Agent(shape, checkpoint["num_actions"], args).requires_grad_(False)
    if "agent" in checkpoint:
        agent.load_state_dict(checkpoint["agent"])
    return agent


def label_states(script: ModuleType, checkpoint: dict) -> States:
    """The states to look at, with their optimal actions, or else with the greedy actions of the
    trained agent, whose checkpoint this is."""
    try:
        walk = gym.make(checkpoint["args"]["env_id"]).unwrapped
    except gym.error.Error:  # envpool's tasks exist as vector environments only
        walk = None
    if hasattr(walk, "optimal_action"):
        return label_optimally(walk, checkpoint["num_actions"])
    return label_greedily(script, checkpoint)


def label_optimally(walk: gym.Env, num_actions: int) -> States:
    """All states of an environment that tells their optimal actions."""
    space = walk.observation_space
    obs = np.stack([gym.spaces.flatten(space, cell) for cell in walk.CELLS])
    return States(
        obs=torch.from_numpy(obs),
        labels=torch.tensor([walk.optimal_action(cell) for cell in walk.CELLS]),
        meaning=torch.tensor([walk.label(action) for action in range(num_actions)]),
        names=walk.ACTIONS[:num_actions],
        source="optimal",
        cells=tuple(f"cell {cell}" for cell in walk.CELLS),
    )


def label_greedily(script: ModuleType, checkpoint: dict) -> States:
    """NUM_STATES states that the checkpoint's agent meets."""
    args = checkpoint["args"]
    num_actions = checkpoint["num_actions"]
    envs = script.make_envs(args["env_id"], 1)
    agent = restore(script, checkpoint, envs.single_observation_space.shape)
    generator = torch.Generator()
    obs, _ = envs.reset(seed=args["seed"])
    ended = False
    met = []
    while len(met) < NUM_STATES:
        now = torch.from_numpy(obs.copy())
        if not ended:  # else nothing is decided there, and the next step only resets
            met.append(now)
        _, logits, *_ = agent(now)
        action = torch.multinomial(logits.softmax(dim=1)[0], 1, generator=generator).numpy()
        obs, _, terminated, truncated, _ = envs.step(action + envs.single_action_space.start)
        ended = bool(terminated[0] | truncated[0])
    envs.close()
    states = torch.cat(met)
    _, logits, *_ = agent(states)
    return States(
        obs=states,
        labels=logits.argmax(dim=1),
        meaning=torch.arange(num_actions),
        names=tuple(str(action) for action in range(num_actions)),
        source="greedy",
        cells=tuple(f"state {number}" for number in range(1, NUM_STATES + 1)),
    )


def split(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """In float64: the mean (d,) of the mean activations of the labels that occur, these means
    (K', d) less that mean, and the activations (states, d) less their label's."""
    names, index = labels.unique(return_inverse=True)
    means = torch.stack([features[index == k].double().mean(dim=0) for k in range(len(names))])
    centre = means.mean(dim=0)
    return centre, means - centre, features.double() - means[index]


def measure(script: ModuleType, agent: nn.Module, states: States) -> tuple[Look, dict[str, float]]:
    """What an agent makes of the states, and the measures of measures.csv."""
    features, logits, *_ = agent(states.obs)
    weight = agent.head.weight
    agrees = states.meaning[logits.argmax(dim=1)] == states.labels
    row = {"agreement": agrees.double().mean().item()}
    row |= script.collapse_metrics(features, states.labels, weight, "actions")
    if "within_variability" in row:
        _, means, deviations = split(features, states.labels)
        within = deviations.square().sum(dim=1).mean()
        between = means.square().sum(dim=1).mean()
        row["trace_ratio"] = (within / between).item()
    return Look(features, states.labels, weight, logits), row


def why_missing(column: str, rows: list[dict]) -> str:
    """Why a measure is in none of these rows."""
    trivial = column.startswith("means_") and {row["actions_seen"] for row in rows} == {2}
    return "trivial for two actions" if trivial else "undefined"
