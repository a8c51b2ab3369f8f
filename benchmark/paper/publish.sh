# Sourced by its neighbours: publish RUNS RESULTS ARGUMENTS... collates and reports on what lies in RUNS, unless the arguments,
# which are benchmark.run's, hold --dry-run. The report becomes the folder's README.md. What is large is compressed, and what
# can be made again is left out: the report in HTML, which holds all pictures once more, and the single episodes.
#
# tables RUNS RESULTS ARGUMENTS... keeps only what tells of whole runs.
publish() {
  case " $* " in *" --dry-run "*) return ;; esac
  ${PYTHON:-python} -m benchmark.collate --runs "$1" --out "$2" > /dev/null
  ${PYTHON:-python} -m benchmark.report --results "$2" > /dev/null
  gzip --no-name --force "$2/curves.csv"
  mv "$2/report.md" "$2/README.md" && rm "$2/report.html" "$2/episodes.csv.gz"
}
tables() {
  case " $* " in *" --dry-run "*) return ;; esac
  ${PYTHON:-python} -m benchmark.collate --runs "$1" --out "$2"
  rm "$2/curves.csv" "$2/episodes.csv.gz"
}
