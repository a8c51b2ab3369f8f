"""A stand-in for a script that starts in no time. It takes the flags that benchmark.run gives a script, leaves the same files
behind (its checkpoint is JSON) and goes on from its checkpoint. An episode has 10 steps; seed and step give its return.
Files in the working directory: it must be able to lock one of `slot*`, else it fails, as more run at a time than there may;
`pause` holds the seconds that an episode takes; each line of `crashes` names a seed that ends with exit code 3 in its second
half, once.
"""

import argparse
import fcntl
import json
import os
import sys
import time
from pathlib import Path


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
    lines = Path("crashes").read_text().split() if Path("crashes").exists() else []
    if str(seed) in lines:
        lines.remove(str(seed))
        Path("crashes").write_text("\n".join(lines))
        return True
    return False


def pause() -> float:
    """Seconds to wait after an episode."""
    try:
        return float(Path("pause").read_text())
    except FileNotFoundError:
        return 0.0


def main() -> None:
    parser = argparse.ArgumentParser()
    for flag in ("--env-id", "--runs-dir", "--resume", "--head-frame"):
        parser.add_argument(flag)
    for flag in ("--seed", "--total-timesteps", "--checkpoint-every"):
        parser.add_argument(flag, type=int, default=10)
    for flag in ("--etf-head", "--head-trainable"):
        parser.add_argument(flag, action="store_true")
    args = parser.parse_args()
    slot = lock_a_slot()  # noqa: F841
    step = log_size = 0
    if args.resume:
        run = Path(args.resume).parent
        state = json.loads(Path(args.resume).read_text())
        args, step, log_size = (
            argparse.Namespace(**state["args"]),
            state["global_step"],
            state["log_size"],
        )
        os.truncate(run / "episodes.csv", log_size)
    else:
        run = Path(
            args.runs_dir, f"{args.env_id}__{Path(__file__).stem}__{args.seed}__{time.time()}"
        )
        run.mkdir(parents=True)
        (run / "args.json").write_text(json.dumps(vars(args)))
    with open(run / "episodes.csv", "a") as log:
        log.write("" if log.tell() else "global_step,return,length,seconds\n")
        while step < args.total_timesteps:
            step += 10
            log.write(f"{step},{(args.seed * 7919 + step) % 101},10,{time.process_time():.2f}\n")
            log.flush()
            if step % 100 == 0 or step >= args.total_timesteps:
                state = {"args": vars(args), "global_step": step, "log_size": log.tell()}
                (run / "checkpoint.tmp").write_text(json.dumps(state))
                os.replace(run / "checkpoint.tmp", run / "checkpoint.pt")
            if step > args.total_timesteps / 2 and crashes(args.seed):
                print("Traceback: this seed crashes")
                sys.exit(3)
            time.sleep(pause())
    print(f"step {step}/{args.total_timesteps}: return 50.0 (last 100 episodes), 100 steps/s")


if __name__ == "__main__":
    main()
