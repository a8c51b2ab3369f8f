#!/usr/bin/env bash
# Learning curves beside Stable-Baselines3's A2C (20 seeds) and sb3-contrib's TRPO (5) on CartPole-v1, 200k steps: 50 runs,
# about 15 minutes on two cores. `python -m benchmark.speed` makes the peers' virtual environment.
set -euo pipefail
. benchmark/paper/queue.sh
ours() { echo "runs/peers/$1/ours-$2 $1_acpg.py --seed $2 --total-timesteps 200000"; }
theirs() { echo "runs/peers/$1/sb3-$2 benchmark/speed/sb3.py $1 --seed $2 --total-timesteps 200000"; }
both() { for seed in $(seq 20); do "$1" a2c "$seed"; test "$seed" -gt 5 || "$1" trpo "$seed"; done; }
both ours | queue
both theirs | PYTHON=.venv-peers/bin/python queue
for algorithm in a2c trpo; do
  ${PYTHON:-python} -m benchmark.collate --runs runs/peers/$algorithm --out benchmark/results/peers_$algorithm
done
