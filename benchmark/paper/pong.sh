#!/usr/bin/env bash
# PPO with both heads on Pong, side by side on a core each: about 40 minutes on two cores.
set -euo pipefail
. benchmark/paper/queue.sh
pong="ppo_atari_acpg.py --env-id Pong-v5 --total-timesteps 1000000 --learning-rate 5e-4 --num-threads 1 --compile --amp"
for head in no-etf-head etf-head; do
  echo "runs/pong/$head $pong --$head"
done | queue
${PYTHON:-python} -m benchmark.collate --runs runs/pong --out benchmark/results/pong
${PYTHON:-python} -m benchmark.readme.figure --curves benchmark/results/pong/curves.csv --out benchmark/results/pong/curves.png
