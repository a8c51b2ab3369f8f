#!/usr/bin/env bash
# How long would table_1.sh take? A short run of each of its scripts, kinds of task and backbones, one at a time on one core: 8
# runs, about 20 minutes. `hours` in benchmark/readme/evidence.py multiplies.
# What follows goes to benchmark.run.
set -euo pipefail
. benchmark/paper/publish.sh
short() {
  run --out "runs/table_1_hours/$backbone" --heads etf --num-seeds 1 --workers 1 --flags "all --backbone $backbone" "$@"
}
for backbone in mlp cnn; do
  short --scripts reinforce_acpg a2c_acpg --env-ids benchmark.envs:DiscreteCarRacing-v0 --total-timesteps 20000 "$@"
  short --scripts ppo_acpg trpo_acpg --env-ids benchmark.envs:Atari/Qbert-v5 --total-timesteps 10000 "$@"
done
tables runs/table_1_hours benchmark/results/table_1_hours "$@"
exit $code
