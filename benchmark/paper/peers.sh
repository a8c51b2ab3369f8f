#!/usr/bin/env bash
# Learning curves beside Stable-Baselines3's A2C and sb3-contrib's TRPO on CartPole-v1, five seeds, 200k steps: 20 runs, about
# 10 minutes on two cores. `python -m benchmark.speed` makes the peers' virtual environment.
set -euo pipefail
. benchmark/paper/queue.sh
for seed in 1 2 3 4 5; do
  for algorithm in a2c trpo; do
    echo "runs/peers/$algorithm/ours-$seed ${algorithm}_acpg.py --seed $seed --total-timesteps 200000"
  done
done | queue
for seed in 1 2 3 4 5; do
  for algorithm in a2c trpo; do
    echo "runs/peers/$algorithm/sb3-$seed benchmark/sb3.py $algorithm --seed $seed --total-timesteps 200000"
  done
done | PYTHON=.venv-peers/bin/python queue
for algorithm in a2c trpo; do
  ${PYTHON:-python} -m benchmark.collate --runs runs/peers/$algorithm --out benchmark/results/peers_$algorithm
done
