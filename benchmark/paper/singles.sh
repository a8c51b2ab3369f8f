#!/usr/bin/env bash
# Do many seeds of one process learn as single runs do? PPO and A2C on CartPole and Acrobot, 200k steps, both heads, seeds 1001
# to 1020 in processes of their own, beside those of again.sh: 160 runs, 15 minutes on two cores. And, as there two cells with
# the frozen ETF differed by more than 5 %, within intervals that were wider, 40 further seeds of these in both ways: 160 runs,
# 10 minutes.
set -euo pipefail
. benchmark/paper/publish.sh
acrobot=benchmark.envs:envpool/Acrobot-v1
run --scripts ppo_acpg a2c_acpg --heads linear etf --env-ids CartPole-v1 $acrobot \
  --total-timesteps 200000 --num-seeds 20 --start-seed 1001 --out runs/singles "$@"
tables runs/singles benchmark/results/singles "$@"

further() { # OUT SEEDS_PER_PROCESS, and further arguments
  local flags=(--heads etf --total-timesteps 200000 --num-seeds 40 --start-seed 1021 --seeds-per-process $2 "${@:3}")
  run --scripts ppo_acpg --env-ids $acrobot --out "runs/$1" "${flags[@]}"
  run --scripts a2c_acpg --env-ids CartPole-v1 --out "runs/$1" "${flags[@]}"
  tables "runs/$1" "benchmark/results/$1" "${@:3}"
}
further singles_more 1 "$@"
further together_more 20 "$@"
exit $code
