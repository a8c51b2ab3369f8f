#!/usr/bin/env bash
# The figures of docs/action-collapse.md from nothing, about 8 minutes on two cores: the ideal cliff walk, 10 seeds, both heads;
# Acrobot (three actions, so a triangle), one seed; and Theorem 1. The same command again goes on where it was cut off.
set -euo pipefail
collapse="${PYTHON:-python} -m benchmark.collapse --total-timesteps 200000"
$collapse --out benchmark/results/collapse/ideal --env-id benchmark.envs:IdealCliffWalking-v0 --feature-norm 2
$collapse --out benchmark/results/collapse/acrobot --env-id benchmark.envs:envpool/Acrobot-v1 --feature-norm 2 --seeds 1 --checkpoint-every 10
${PYTHON:-python} -m benchmark.layer_peeled --out benchmark/results/layer_peeled
