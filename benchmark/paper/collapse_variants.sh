#!/usr/bin/env bash
# The tables of docs/action-collapse.md where one of the ideal conditions is broken, and without a bound on the activations:
# 5 times 6 runs (3 seeds, both heads), about 12 minutes on two cores. What no page shows is left out, and the scenes to turn, 2 MB each.
set -euo pipefail
collapse="${PYTHON:-python} -m benchmark.collapse --seeds 3 --total-timesteps 200000"
for variant in Unbalanced Uneven Unexplored Semantic; do
  $collapse --out benchmark/results/collapse/${variant,,} --env-id benchmark.envs:${variant}CliffWalking-v0 --feature-norm 2
done
$collapse --out benchmark/results/collapse/unbounded --env-id benchmark.envs:IdealCliffWalking-v0
for variant in unbalanced uneven unexplored unbounded; do
  rm benchmark/results/collapse/$variant/{measures.png,cosines.png,projection.png,projection.gif,page.html}
done
rm benchmark/results/collapse/semantic/{measures.png,cosines.png,projection.gif,page.html}
