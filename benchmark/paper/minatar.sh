#!/usr/bin/env bash
# PPO with both heads on MinAtar, 500k steps, 3 seeds, beside a random policy: 35 runs, about 45 minutes on two cores. What follows
# goes to benchmark.run.
set -euo pipefail
. benchmark/paper/publish.sh
tasks=""
for game in Breakout SpaceInvaders Asterix Freeway Seaquest; do
  tasks="$tasks benchmark.envs:MinAtar/$game-v1"
done
layout="all --image-layout channels_first" # which Seaquest's shape, three times 10, does not tell
minatar() { run --env-ids $tasks --flags "$layout" --out runs/minatar "$@"; }
minatar --arms "linear=ppo_acpg.py" "etf=ppo_acpg.py --etf-head" --num-seeds 3 --total-timesteps 500000 "$@"
minatar --arms "random=ppo_acpg.py --epsilon 1" --num-seeds 1 --total-timesteps 50000 "$@"
publish runs/minatar benchmark/results/minatar "$@"
exit $code
