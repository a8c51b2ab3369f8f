#!/usr/bin/env bash
# PPO with both heads on Pong, one after the other: 2 runs of half an hour on two cores.
set -euo pipefail
. benchmark/paper/queue.sh
for head in no-etf-head etf-head; do
  echo "runs/pong/$head ppo_atari_acpg.py --env-id Pong-v5 --$head --total-timesteps 1000000 --learning-rate 5e-4 --compile --amp"
done | WORKERS=1 queue
${PYTHON:-python} -m benchmark.collate --runs runs/pong --out benchmark/results/pong
