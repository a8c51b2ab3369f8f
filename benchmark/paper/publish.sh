# Sourced by its neighbours, which end with `exit $code`: 1 if a run failed, the others go on.
#
# run ARGUMENTS... is benchmark.run; what follows `RUNS RESULTS` below are its arguments too, as nothing is to be made of the
# runs if they hold --dry-run.
#
# collate RUNS RESULTS ARGUMENTS... makes the tables of what lies in RUNS; tables keeps only those of whole runs.
# publish RUNS RESULTS ARGUMENTS... also reports. The report becomes the folder's README.md. What is large is compressed, and
# what can be made again is left out: the report in HTML, which holds all pictures once more, and the single episodes.
# heads SCRIPT STD sets `arms` to question 3's five, of which the first three are questions 4's and 5's.
# parts VARIABLE NAMES... prints the words of the variable, by default NAMES, and fails with a line at one that is none of NAMES.
# on_small_tasks COMMAND is COMMAND STD STEPS ENVIRONMENT for each task of the small table, where STD makes the learned head's rows,
# less their mean, as long as the frame's: 2 sqrt(K / (K - 1)) for K actions.
code=0
parts() {
  local names="${*:2}" word
  for word in ${!1:-$names}; do
    case " $names " in *" $word "*) ;; *) echo "error: $1 $word: is none of $names" >&2 && exit 2 ;; esac
    echo "$word"
  done
}
run() { ${PYTHON:-python} -m benchmark.run "$@" || { code=$? && [ $code = 1 ] || exit $code; }; }
is_dry() { case " $* " in *" --dry-run "*) ;; *) return 1 ;; esac }
collate() {
  is_dry "$@" && return
  ${PYTHON:-python} -m benchmark.collate --runs "$1" --out "$2" > /dev/null
}
tables() {
  is_dry "$@" && return
  collate "$@"
  rm "$2/curves.csv" "$2/episodes.csv.gz"
}
publish() {
  is_dry "$@" && return
  collate "$@"
  ${PYTHON:-python} -m benchmark.report --results "$2" > /dev/null
  gzip --no-name --force "$2/curves.csv"
  mv "$2/report.md" "$2/README.md" && rm "$2/report.html" "$2/episodes.csv.gz"
}
figure() {
  is_dry "$@" && return
  ${PYTHON:-python} -m benchmark.readme.figure --curves "$1/curves.csv" --out "$1/curves.png"
}
heads() {
  arms=("linear=$1" "matched=$1 --head-std $2" "etf=$1 --etf-head")
  arms+=("etf-trainable=$1 --etf-head --head-trainable" "random=$1 --etf-head --head-frame random")
}
on_small_tasks() {
  "$1" 2.83 200000 CartPole-v1
  "$1" 2.45 200000 benchmark.envs:envpool/Acrobot-v1
  "$1" 2.31 100000 FrozenLake-v1
  "$1" 2.31 50000 benchmark.envs:IdealCliffWalking-v0
}
seeds_per_process() { case $1 in ppo | a2c) echo 20 ;; *) echo 1 ;; esac }
