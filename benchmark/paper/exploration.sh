#!/usr/bin/env bash
# The paper's exploration ablation: PPO on Pong, epsilon-greedy with five epsilons, 20 seeds: 200 runs of 10M steps, for a cluster
# (what follows goes to benchmark.run). With --small first, on MinAtar Breakout, 3 seeds, 200k steps: 30 runs, 20 minutes on
# two cores.
set -euo pipefail
. benchmark/paper/publish.sh
out=runs/exploration
size="--env-ids benchmark.envs:Atari/Pong-v5 --num-seeds 20 --total-timesteps 10000000"
if [ "${1-}" = --small ]; then
  shift
  out=runs/exploration_small
  size="--env-ids benchmark.envs:MinAtar/Breakout-v1 --num-seeds 3 --start-seed 201 --total-timesteps 200000"
fi
for epsilon in 0 0.001 0.01 0.1 1; do
  run --scripts ppo_acpg $size --flags "all --epsilon $epsilon" --out $out/$epsilon "$@"
done
exit $code
