#!/usr/bin/env bash
# PPO with both heads on Pong, side by side on a core each: about 40 minutes on two cores. What follows goes to benchmark.run.
set -euo pipefail
. benchmark/paper/publish.sh
run --scripts ppo_atari_acpg --env-ids Pong-v5 --num-seeds 1 --total-timesteps 1000000 \
  --flags "all --learning-rate 5e-4 --num-threads 1 --compile --amp" --out runs/pong "$@"
collate runs/pong benchmark/results/pong "$@"
figure benchmark/results/pong "$@"
exit $code
