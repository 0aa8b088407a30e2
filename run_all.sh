#!/usr/bin/env bash
# Sets up the environment, then regenerates every figure and the claims table, or passes the tests.
set -euo pipefail
cd "$(dirname "$0")"

usage() {
  cat <<'TEXT'
usage: ./run_all.sh [setup|test] [--profile smoke|quick|overnight|paper] [--cores N] [--dry-run]

  ./run_all.sh              regenerate every figure and the claims table from the shipped weights
  ./run_all.sh test         pass the tests (unit tests, and nbval on the notebooks)
  ./run_all.sh setup        set up the environment only

  --profile NAME            scale of the run, see workflow/profiles (default: quick)
  --cores N                 processor cores to use (default: all)
  --dry-run                 say what would be done, and why

All of them first make .venv, or use the active conda environment made from environment.yml. PYTHON names the interpreter
to make .venv with (default: python3; 3.11 or newer).
TEXT
}

fail() { echo "error: $*" >&2; exit 2; }

task=figures profile=quick cores=all dry=()
while [ $# -gt 0 ]; do
  case "$1" in
    setup | test) task=$1 ;;
    --profile) profile="${2:?--profile needs a name}"; shift ;;
    --cores) cores="${2:?--cores needs a number}"; shift ;;
    --dry-run) dry=(--dry-run) ;;
    -h | --help) usage; exit ;;
    *) usage >&2; fail "unknown argument $1" ;;
  esac
  shift
done
[ -f "workflow/profiles/$profile.yaml" ] || fail "unknown profile $profile: choose one of$(cd workflow/profiles && printf ' %s' *.yaml | sed 's/\.yaml//g')"
[[ "$cores" =~ ^([1-9][0-9]*|all)$ ]] || fail "--cores $cores: need a positive number"

# The environment: installed once, and again only when the lock changes.
if [ "${CONDA_DEFAULT_ENV:-}" = dynlib ]; then
  environment="$CONDA_PREFIX"
else
  environment="$PWD/.venv"
  if [ ! -x "$environment/bin/python" ]; then
    python="${PYTHON:-python3}"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || fail "$python is not Python 3.11 or newer: set PYTHON"
    "$python" -m venv "$environment"
  fi
fi
export PATH="$environment/bin:$PATH"
if ! cmp -s requirements.lock "$environment/installed.lock"; then
  echo "installing the locked packages into $environment (some minutes, once)"
  python -m pip install --quiet --disable-pip-version-check -r requirements.lock || fail "the packages could not be installed (see above)"
  python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
  cp requirements.lock "$environment/installed.lock"
fi

case "$task" in
  test) exec python -m pytest ;;
  figures) exec python -m workflow.run --profile "$profile" --cores "$cores" ${dry[@]+"${dry[@]}"} ;;
esac
