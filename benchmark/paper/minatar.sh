#!/usr/bin/env bash
# PPO with both heads on MinAtar, 500k steps, 3 seeds, beside a random policy: 35 runs, about 45 minutes on two cores.
set -euo pipefail
. benchmark/paper/queue.sh
for game in Breakout SpaceInvaders Asterix Freeway Seaquest; do
  minatar="ppo_acpg.py --env-id benchmark.envs:MinAtar/$game-v1 --image-layout channels_first"
  echo "runs/minatar/$game-random $minatar --epsilon 1 --total-timesteps 50000"
  for seed in 1 2 3; do
    for head in no-etf-head etf-head; do
      echo "runs/minatar/$game-$head-$seed $minatar --$head --seed $seed"
    done
  done
done | queue
${PYTHON:-python} -m benchmark.collate --runs runs/minatar --out benchmark/results/minatar
