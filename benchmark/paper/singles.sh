#!/usr/bin/env bash
# Do many seeds of one process learn as single runs do? PPO and A2C on CartPole and Acrobot, 200k steps, both heads, seeds 1001
# to 1020 in processes of their own: 160 runs, 25 minutes on two cores, beside those of again.sh.
set -euo pipefail
. benchmark/paper/publish.sh
run --scripts ppo_acpg a2c_acpg --heads linear etf --env-ids CartPole-v1 benchmark.envs:envpool/Acrobot-v1 \
  --total-timesteps 200000 --num-seeds 20 --start-seed 1001 --out runs/singles "$@"
tables runs/singles benchmark/results/singles "$@"
exit $code
