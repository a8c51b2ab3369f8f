"""A stand-in for a script that starts in no time. It takes the flags that benchmark.run gives a
script, leaves the same files behind and goes on from its checkpoint. An episode has 10 steps; seed
and step give its return. Files in the working directory: it must be able to lock one of `slot*`,
else it fails, as more run at a time than there may; `pause` holds the seconds that an episode
takes; each line of `crashes` names a seed that ends with exit code 3 in its second half, once;
`habit` is "hang" (in the middle), "forget" (the checkpoint) or "early" (to end at half the steps).
"""

import argparse
import fcntl
import json
import os
import pickle
import sys
import time
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal


@dataclass
class Args:
    env_id: str = "CartPole-v1"
    seed: int = 1
    total_timesteps: int = 500
    runs_dir: str = "runs"
    resume: str | None = None
    checkpoint_every: int = 10
    exp_name: str = Path(__file__).stem
    gamma: float = 0.99
    etf_head: bool = False
    etf_scale: float = 2.0
    head_frame: Literal["simplex", "random", "orthogonal"] = "simplex"
    head_trainable: bool = False
    head_std: float = 0.01


def check_flags(args: Args) -> None:
    if not 0 <= args.gamma <= 1:
        print(f"error: --gamma {args.gamma}: must lie in [0, 1]", file=sys.stderr)
        sys.exit(2)


def parsed() -> Args:
    """The command line, without tyro, whose import takes as long as all else."""
    parser = argparse.ArgumentParser()
    for field in fields(Args):
        options = {"default": field.default}
        if field.type is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif field.type in (int, float):
            options["type"] = field.type
        parser.add_argument(f"--{field.name.replace('_', '-')}", **options)
    return Args(**vars(parser.parse_args()))


def lock_a_slot() -> list:
    """An open file that nobody else has locked; the list keeps it open."""
    for path in Path().glob("slot*"):
        file = open(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        return [file]
    sys.exit("more run at a time than there are slots")


def crashes(seed: int) -> bool:
    """Whether it is this run's turn to crash."""
    lines = said("crashes").split()
    if str(seed) in lines:
        lines.remove(str(seed))
        Path("crashes").write_text("\n".join(lines))
        return True
    return False


def said(name: str) -> str:
    """What the file of that name in the working directory says."""
    try:
        return Path(name).read_text().strip()
    except FileNotFoundError:
        return ""


def save(path: Path, state: dict) -> None:
    """What torch.save would write, without torch, whose import takes a second."""
    with zipfile.ZipFile(path.with_suffix(".tmp"), "w") as archive:
        archive.writestr("checkpoint/data.pkl", pickle.dumps(state, protocol=2))
        archive.writestr("checkpoint/version", "3\n")
        archive.writestr("checkpoint/byteorder", "little")
    os.replace(path.with_suffix(".tmp"), path)


def load(path: Path) -> dict:
    with zipfile.ZipFile(path) as archive:
        return pickle.loads(archive.read("checkpoint/data.pkl"))


def main() -> None:
    args = parsed()
    slot = lock_a_slot()  # noqa: F841
    step = 0
    if args.resume:
        run = Path(args.resume).parent
        state = load(Path(args.resume))
        args = Args(**state["args"])
        step = state["global_step"]
        os.truncate(run / "episodes.csv", state["log_sizes"]["episodes.csv"])
    else:
        stem = Path(__file__).stem
        run = Path(args.runs_dir, f"{args.env_id}__{stem}__{args.seed}__{time.time()}")
        run.mkdir(parents=True)
        (run / "args.json").write_text(json.dumps(vars(args)))
    print(os.environ.get("CUDA_VISIBLE_DEVICES", "no device"), flush=True)
    with open(run / "episodes.csv", "a") as log:
        log.write("" if log.tell() else "global_step,return,length,seconds\n")
        while step < args.total_timesteps:
            step += 10
            log.write(f"{step},{(args.seed * 7919 + step) % 101},10,{time.process_time():.2f}\n")
            log.flush()
            half = step > args.total_timesteps / 2
            ends = step >= args.total_timesteps or (half and said("habit") == "early")
            if (step % 100 == 0 or ends) and said("habit") != "forget":
                state = {"args": vars(args), "global_step": step}
                state["log_sizes"] = {"episodes.csv": log.tell()}
                save(run / "checkpoint.pt", state)
            if half and crashes(args.seed):
                print("Traceback: this seed crashes")
                sys.exit(3)
            while half and said("habit") == "hang":
                time.sleep(0.05)
            if ends:
                break
            time.sleep(float(said("pause") or 0))
    print(f"step {step}/{args.total_timesteps}: return 50.0 (last 100 episodes), 100 steps/s")


if __name__ == "__main__":
    main()
