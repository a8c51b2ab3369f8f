#!/usr/bin/env bash
# REINFORCE, A2C and TRPO with both heads and their defaults: 72 runs, about 40 minutes on two cores. What follows goes to
# benchmark.run.
set -euo pipefail
. benchmark/paper/publish.sh
for script in a2c trpo reinforce; do
  checks() { run --scripts ${script}_acpg --total-timesteps 500000 --out runs/other_checks/$script "$@"; }
  checks --env-ids CartPole-v1 --num-seeds 10 "$@"
  test $script = reinforce || checks --env-ids Acrobot-v1 --num-seeds 3 "$@"
  collate runs/other_checks/$script benchmark/results/${script}_checks "$@"
done
exit $code
