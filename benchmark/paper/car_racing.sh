#!/usr/bin/env bash
# A2C with both heads on DiscreteCarRacing-v0, 300k steps, beside a random policy (32 episodes): 3 runs, about half an hour on two
# cores. What follows goes to benchmark.run.
set -euo pipefail
. benchmark/paper/publish.sh
flags="--feature-activation linear --feature-norm 4 --num-envs 16 --num-steps 16 --gae-lambda 0.95 --learning-rate 5e-4"
flags="$flags --ent-coef 0.01 --log-every 20 --collapse-every 50"
run --arms "linear=a2c_acpg.py" "etf=a2c_acpg.py --etf-head" "random=a2c_acpg.py --epsilon 1 --total-timesteps 32000" \
  --env-ids benchmark.envs:DiscreteCarRacing-v0 --num-seeds 1 --total-timesteps 300000 --flags "all $flags" \
  --out runs/car_racing "$@"
results=benchmark/results/car_racing
collate runs/car_racing $results "$@"
is_dry "$@" && exit
for arm in linear etf random; do
  cp runs/car_racing/runs/*__arms__${arm}__1/*/episodes.csv $results/episodes-$arm.csv
done
exit $code
