#!/usr/bin/env bash
# Question 1 of benchmark/results/README.md: many actions. PPO on the bandits with 18 and 50 actions, five arms, 20 seeds
# from 1001 on, in 40k steps (1,200 runs, 10 minutes on two cores) and, with 18 actions, in 200k (600 runs, 25 minutes).
# FOLDERS="many_actions_18" makes only that one.
set -euo pipefail
. benchmark/paper/publish.sh
many() { # NAME K NORM STEPS
  local tasks="" kind states
  for kind in Many Ordered Paired; do
    for states in "" x4; do tasks="$tasks benchmark.envs:${kind}Actions$2$states-v0"; done
  done
  run --scripts ppo_acpg --env-ids $tasks --heads linear "linear:$3" etf etf-trainable random \
    --num-seeds 20 --start-seed 1001 --seeds-per-process 20 --total-timesteps "$4" --out "runs/$1" "${more[@]}"
  publish "runs/$1" "benchmark/results/$1" "${more[@]}"
}
more=("$@")
# The norms make the learned head's rows, less their mean, as long as the frame's: 2 sqrt(K / (K - 1)).
for folder in ${FOLDERS:-many_actions_18 many_actions_50 many_actions_18_long}; do
  case $folder in
    many_actions_18) many $folder 18 2.06 40000 ;;
    many_actions_50) many $folder 50 2.02 40000 ;;
    many_actions_18_long) many $folder 18 2.06 200000 ;;
  esac
done
exit $code
