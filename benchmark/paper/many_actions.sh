#!/usr/bin/env bash
# Question 1 of benchmark/results/README.md: many actions. PPO on the bandits with 18 and 50 actions, five arms, 20 seeds
# from 1001 on, in 40k steps (1,200 runs) and, with 18 actions, in 200k (600 runs): about half an hour on two cores.
set -euo pipefail
. benchmark/paper/publish.sh
code=0 # 1 if a run failed; the others go on
run() {
  ${PYTHON:-python} -m benchmark.run --scripts ppo_acpg --num-seeds 20 --start-seed 1001 --seeds-per-process 20 "$@" ||
    { code=$? && [ $code = 1 ] || exit $code; }
}
for actions in 18 50; do
  norm=2.06 # at which the learned head's rows are as long as the frame's, less their mean: 2 sqrt(K / (K - 1))
  if [ $actions = 50 ]; then norm=2.02; fi
  tasks=""
  for kind in Many Ordered Paired; do
    for states in "" x4; do tasks="$tasks benchmark.envs:${kind}Actions$actions$states-v0"; done
  done
  heads="linear linear:$norm etf etf-trainable random"
  run --env-ids $tasks --heads $heads --total-timesteps 40000 --out runs/many_actions_$actions "$@"
  publish runs/many_actions_$actions benchmark/results/many_actions_$actions "$@"
  if [ $actions = 18 ]; then
    run --env-ids $tasks --heads $heads --total-timesteps 200000 --out runs/many_actions_18_long "$@"
    publish runs/many_actions_18_long benchmark/results/many_actions_18_long "$@"
  fi
done
exit $code
