#!/usr/bin/env bash
# A2C with both heads on DiscreteCarRacing-v0, 300k steps, beside a random policy (32 episodes): 3 runs, about half an hour on two cores.
set -euo pipefail
. benchmark/paper/queue.sh
car="a2c_acpg.py --env-id benchmark.envs:DiscreteCarRacing-v0 --feature-activation linear --feature-norm 4 --num-envs 16"
car="$car --num-steps 16 --gae-lambda 0.95 --learning-rate 5e-4 --ent-coef 0.01 --log-every 20 --collapse-every 50"
queue <<END
runs/car_racing/no-etf-head $car --total-timesteps 300000
runs/car_racing/etf-head $car --total-timesteps 300000 --etf-head
runs/car_racing/random $car --total-timesteps 32000 --epsilon 1
END
${PYTHON:-python} -m benchmark.collate --runs runs/car_racing --out benchmark/results/car_racing
for run in no-etf-head etf-head random; do
  cp runs/car_racing/$run/*/episodes.csv benchmark/results/car_racing/episodes-$run.csv
done
