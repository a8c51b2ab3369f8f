#!/usr/bin/env bash
# What is it about the head? PPO with the learned head and with {simplex, random, orthogonal} x {frozen, trainable} rows of the
# same norm: on MinAtar and LunarLander, 20 seeds, 840 runs, for a cluster (what follows goes to benchmark.run). With --small
# first, on CartPole and Acrobot, 10 seeds: 140 runs, 25 minutes on two cores; its seeds are not
# table_1.sh's, as those would be the same runs.
set -euo pipefail
. benchmark/paper/publish.sh
heads="linear etf random orthogonal etf-trainable random-trainable orthogonal-trainable"
controls() { run --scripts ppo_acpg --heads $heads "$@"; }
if [ "${1-}" = --small ]; then
  shift
  tasks="CartPole-v1 benchmark.envs:envpool/Acrobot-v1"
  controls --env-ids $tasks --num-seeds 10 --start-seed 301 --total-timesteps 200000 --out runs/controls_small "$@"
  publish runs/controls_small benchmark/results/controls_small "$@"
  exit $code
fi
tasks="LunarLander-v3"
for game in Asterix Breakout Freeway Seaquest SpaceInvaders; do
  tasks="$tasks benchmark.envs:MinAtar/$game-v1"
done
layout="all --image-layout channels_first" # which Seaquest's shape, three times 10, does not tell
controls --env-ids $tasks --num-seeds 20 --total-timesteps 5000000 --flags "$layout" --out runs/controls "$@"
exit $code
