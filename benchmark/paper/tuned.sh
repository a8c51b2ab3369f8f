#!/usr/bin/env bash
# Question 7 of benchmark/results/README.md: tuned with equal budgets. PPO; each of three heads tries 3 learning rates x 4 norms of
# its rows with five tuning seeds from 2001 on, and the setting of the largest mean area gets 20 fresh seeds from 1001 on.
# For each task 180 and 60 runs, on two cores: Acrobot 20 minutes, LunarLander 36, Taxi 46.
# TASKS="acrobot lander" makes only these. The tables are of the runs that lie in runs/tuning and runs/tuned, so keep these
# until all tasks are made. With --minatar first, on MinAtar Breakout, 1M steps, one seed a process: 11 hours.
set -euo pipefail
. benchmark/paper/publish.sh
suffix="" # of the folders
if [ "${1-}" = --minatar ]; then
  shift
  suffix=_minatar
fi
more=("$@")
arm() { # NAME HEAD RATE NORM
  case $2 in
    linear) echo "$1=ppo_acpg.py --learning-rate $3 --head-std $4" ;;
    etf) echo "$1=ppo_acpg.py --learning-rate $3 --etf-head --etf-scale $4" ;;
    etf-trainable) echo "$1=ppo_acpg.py --learning-rate $3 --etf-head --head-trainable --etf-scale $4" ;;
  esac
}
grid() {
  local head rate norm norms
  for head in linear etf etf-trainable; do
    if [ $head = linear ]; then norms="0.01 0.5 1 2"; else norms="0.5 1 2 4"; fi
    for rate in 2.5e-4 8e-4 2.5e-3; do
      for norm in $norms; do arm "$head,$rate,$norm" $head $rate "$norm"; done
    done
  done
}
winners() { # ENVIRONMENT
  local head rate norm
  ${PYTHON:-python} -m benchmark.readme.tuned --env-id "$1" --folder "tuning$suffix" | while read -r head rate norm; do
    arm "$head" "$head" "$rate" "$norm"
  done
}
tuned() { # STEPS ENVIRONMENT, and how many of the tuning seeds and of the fresh ones share a process
  local settings=(--env-ids "$2" --total-timesteps "$1") arms chosen
  local tuning=(--start-seed 2001 --num-seeds 5 --seeds-per-process "$3" --out "runs/tuning$suffix")
  local fresh=(--start-seed 1001 --num-seeds 20 --seeds-per-process "$4" --out "runs/tuned$suffix")
  mapfile -t arms < <(grid)
  run --arms "${arms[@]}" "${settings[@]}" "${tuning[@]}" "${more[@]}"
  is_dry "${more[@]}" && return # the winners are known when these have run
  tables "runs/tuning$suffix" "benchmark/results/tuning$suffix"
  chosen=$(winners "$2") # by itself, so that an error ends the script
  mapfile -t arms <<< "$chosen"
  run --arms "${arms[@]}" "${settings[@]}" "${fresh[@]}" "${more[@]}"
  publish "runs/tuned$suffix" "benchmark/results/tuned$suffix"
}
if [ -n "$suffix" ]; then
  tuned 1000000 benchmark.envs:MinAtar/Breakout-v1 1 1 # images, which train one seed a process
  exit $code
fi
tasks=$(parts TASKS acrobot lander taxi)
for task in $tasks; do
  case $task in
    acrobot) tuned 200000 benchmark.envs:envpool/Acrobot-v1 5 20 ;;
    lander) tuned 300000 benchmark.envs:envpool/LunarLander-v3 5 20 ;;
    taxi) tuned 200000 Taxi-v4 5 20 ;;
  esac
done
exit $code
