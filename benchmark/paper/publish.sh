# Sourced by its neighbours: publish RUNS RESULTS ARGUMENTS... collates and reports on what lies in RUNS, unless the arguments,
# which are benchmark.run's, hold --dry-run. The report becomes the folder's README.md; the one in HTML, which holds all
# pictures once more, is not kept.
publish() {
  case " $* " in *" --dry-run "*) return ;; esac
  ${PYTHON:-python} -m benchmark.collate --runs "$1" --out "$2" > /dev/null
  ${PYTHON:-python} -m benchmark.report --results "$2" > /dev/null
  rm "$2/report.html" && mv "$2/report.md" "$2/README.md"
}
