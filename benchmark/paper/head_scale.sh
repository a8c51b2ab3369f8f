#!/usr/bin/env bash
# Which norm of its rows should each head start from? Three tasks, four seeds, 300k steps: 104 runs, about 40 minutes on two
# cores, 8 of which compare the last activation of the learned head on Asterix. The hyper-parameters are ones with which the
# tasks are learned at all in 300k steps, the same for both heads. What follows goes to benchmark.run.
set -euo pipefail
. benchmark/paper/publish.sh
asterix=benchmark.envs:MinAtar/Asterix-v1
flags=(
  "all@LunarLander-v3 --num-envs 16 --num-minibatches 32 --gamma 0.999 --gae-lambda 0.98 --learning-rate 5e-4"
  "all@Taxi-v4 --num-envs 16 --num-minibatches 8 --learning-rate 2.5e-3 --ent-coef 0.05"
)
on_asterix="all@$asterix --num-envs 16 --num-minibatches 8 --learning-rate 1e-3"
seeds="--num-seeds 4 --start-seed 101 --total-timesteps 300000"
run --env-ids LunarLander-v3 $asterix Taxi-v4 --heads linear linear:0.1 linear:1 linear:2 etf:1 etf:2 etf:4 etf:8 \
  --flags "${flags[@]}" "$on_asterix" $seeds --out runs/head_scale/norms "$@"
run --env-ids $asterix --arms "relu=ppo_acpg.py --feature-activation relu" "linear=ppo_acpg.py --feature-activation linear" \
  --flags "$on_asterix" $seeds --out runs/head_scale/activations "$@"
collate runs/head_scale benchmark/results/head_scale "$@"
exit $code
