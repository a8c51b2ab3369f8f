#!/usr/bin/env bash
# Question 6 of benchmark/results/README.md: exploration. PPO with five --epsilon and three heads, 20 seeds from 1001 on, on
# FrozenLake and a bandit with 18 actions: 600 runs, 15 minutes on two cores. With --minatar first, on MinAtar Breakout, 1M
# steps and ten seeds: 150 runs, 7 hours of two cores.
set -euo pipefail
. benchmark/paper/publish.sh
epsilons() { # STD ENVIRONMENT and what else benchmark.run takes
  local arms=() epsilon
  for epsilon in 0 0.001 0.01 0.1 0.3; do
    arms+=("linear,$epsilon=ppo_acpg.py --epsilon $epsilon")
    arms+=("matched,$epsilon=ppo_acpg.py --epsilon $epsilon --head-std $1")
    arms+=("etf,$epsilon=ppo_acpg.py --epsilon $epsilon --etf-head")
  done
  run --arms "${arms[@]}" --env-ids "$2" --start-seed 1001 "${@:3}"
}
if [ "${1-}" = --minatar ]; then
  shift
  epsilons 2.45 benchmark.envs:MinAtar/Breakout-v1 --num-seeds 10 --total-timesteps 1000000 --out runs/epsilon_minatar "$@"
  publish runs/epsilon_minatar benchmark/results/epsilon_minatar "$@"
  exit $code
fi
vectors=(--num-seeds 20 --seeds-per-process 20 --out runs/epsilon "$@")
epsilons 2.31 FrozenLake-v1 --total-timesteps 100000 "${vectors[@]}"
epsilons 2.06 benchmark.envs:ManyActions18-v0 --total-timesteps 40000 "${vectors[@]}"
publish runs/epsilon benchmark/results/epsilon "$@"
exit $code
