#!/usr/bin/env bash
# A2C with both heads on DiscreteCarRacing-v0, 300k steps, beside a random policy (24 episodes): 3 runs.
set -euo pipefail
. benchmark/paper/queue.sh
car="a2c_acpg.py --env-id benchmark.envs:DiscreteCarRacing-v0"
queue <<END
runs/car_racing/no-etf-head $car --total-timesteps 300000
runs/car_racing/etf-head $car --total-timesteps 300000 --etf-head
runs/car_racing/random $car --total-timesteps 24000 --epsilon 1
END
${PYTHON:-python} -m benchmark.collate --runs runs/car_racing --out benchmark/results/car_racing
for run in no-etf-head etf-head random; do
  cp runs/car_racing/$run/*/episodes.csv benchmark/results/car_racing/episodes-$run.csv
done
