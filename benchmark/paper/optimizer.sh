#!/usr/bin/env bash
# Question 5 of benchmark/results/README.md: is it the optimizer? The small table's tasks, three heads, 20 seeds from 1001 on:
# PPO with two --adam-eps and A2C with two --rmsprop-eps, 960 runs, 25 minutes on two cores; TRPO with two --cg-damping,
# 480 runs, 65 minutes. The first value is the default. ALGORITHMS="ppo a2c" makes only these.
set -euo pipefail
. benchmark/paper/publish.sh
more=("$@")
optimizer() { # STD STEPS ENVIRONMENT
  local script=${algorithm}_acpg.py arms=() value
  for value in $values; do
    arms+=("linear,$value=$script $flag $value" "matched,$value=$script $flag $value --head-std $1")
    arms+=("etf,$value=$script $flag $value --etf-head")
  done
  run --arms "${arms[@]}" --env-ids "$3" --total-timesteps "$2" --num-seeds 20 --start-seed 1001 \
    --seeds-per-process "$(seeds_per_process $algorithm)" --out "runs/optimizer_$algorithm" "${more[@]}"
}
algorithms=$(parts ALGORITHMS ppo a2c trpo)
for algorithm in $algorithms; do
  case $algorithm in
    ppo) flag=--adam-eps values="1e-5 1e-8" ;;
    a2c) flag=--rmsprop-eps values="3.16e-3 1e-5" ;;
    trpo) flag=--cg-damping values="0.1 0.01" ;;
  esac
  on_small_tasks optimizer
  publish "runs/optimizer_$algorithm" "benchmark/results/optimizer_$algorithm" "${more[@]}"
done
exit $code
