#!/usr/bin/env bash
# How long would table_1.sh take? A short run of each of its scripts, kinds of task and backbones, one at a time on one core: 8
# runs, about 20 minutes. With --gpu first, those expected to gain most from one: PPO and TRPO with a CNN, a minute.
# `hours` in benchmark/readme/evidence.py multiplies. What follows goes to benchmark.run.
set -euo pipefail
. benchmark/paper/publish.sh
folder=table_1_hours
short() {
  run --out "runs/$folder/$backbone" --heads etf --num-seeds 1 --workers 1 --flags "all --backbone $backbone" "$@"
}
atari() { short --scripts ppo_acpg trpo_acpg --env-ids benchmark.envs:Atari/Qbert-v5 --total-timesteps 10000 "$@"; }
if [ "${1-}" = --gpu ]; then
  shift
  folder=table_1_hours_gpu backbone=cnn
  atari "$@"
else
  for backbone in mlp cnn; do
    short --scripts reinforce_acpg a2c_acpg --env-ids benchmark.envs:DiscreteCarRacing-v0 --total-timesteps 20000 "$@"
    atari "$@"
  done
fi
tables runs/$folder benchmark/results/$folder "$@"
exit $code
