# Sourced by its neighbours: runs the lines "DIRECTORY SCRIPT FLAGS..." of its input, WORKERS (2) at a time, each with its own
# --runs-dir. A directory that holds the file "done" is skipped, so the same command goes on where it was cut off.
queue() {
  xargs -P "${WORKERS:-2}" -L 1 sh -c 'test -e "$0/done" && exit
    script=$1 && shift && rm -rf "$0" && mkdir -p "$0" &&
    ${PYTHON:-python} "$script" --runs-dir "$0" "$@" > "$0/log" 2>&1 && touch "$0/done"'
}
