#!/usr/bin/env bash
# Sets up the environment, then measures anew, redraws what is published, builds the site, or runs the tests.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started by `sh run_all.sh`
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "$0")"

usage() {
  cat <<'TEXT'
usage: ./run_all.sh [figures|site|test|setup] [--profile smoke|quick|published|paper] [--cores N] [--dry-run]

  ./run_all.sh              measure anew on the shipped weights, below runs/, and compare with what is published
  ./run_all.sh figures      redraw every published figure, notebook and table from the committed records
  ./run_all.sh site         build the site from what is published, with two pages to play with: site/html/index.html
  ./run_all.sh test         run the tests (unit tests, and nbval on the notebooks)
  ./run_all.sh setup        set up the environment only

  --profile NAME            what to measure, see workflow/profiles (default: quick)
  --cores N                 processor cores to use (default: all)
  --dry-run                 say what would be measured, and why

All of them first make .venv, or use the active conda environment made from environment.yml. PYTHON names the interpreter
to make .venv with (default: python3; 3.11 or newer).
TEXT
}

fail() { echo "error: $*" >&2; exit 2; }

task=run profile=quick cores=all dry=()
while [ $# -gt 0 ]; do
  case "$1" in
    figures | setup | site | test) task=$1 ;;
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

# A lock that was cut short, or copied badly, would be installed like any other.
digest="$(sha256sum <requirements.lock 2>/dev/null || shasum -a 256 <requirements.lock)"
[ "${digest%% *}" = "$(sed 's/ .*//' requirements.lock.sha256)" ] ||
  fail "$PWD/requirements.lock is damaged, or was renewed without \`sha256sum requirements.lock >requirements.lock.sha256\`"

# The environment: installed once, and again only when the lock or the checkout's place changes.
# -E and -s: nothing that the user has set for other Pythons.
if [ "${CONDA_DEFAULT_ENV:-}" = dynlib ]; then
  environment="$CONDA_PREFIX"
else
  environment="$PWD/.venv"
  # Without the stamp, an earlier start was cut off: where it got as far as pip, it can go on.
  [ -f "$environment/installed.lock" ] && needed=(-c '') || needed=(-m pip --version)
  if ! "$environment/bin/python" -Es "${needed[@]}" >/dev/null 2>&1; then
    [ ! -L "$environment" ] || fail "$environment is a link to an environment that does not work: remove it"
    python="${PYTHON:-python3}"
    "$python" -Es -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || fail "$python is not Python 3.11 or newer: set PYTHON"
    rm -rf "$environment" # half made, or of a Python that is gone
    "$python" -Es -m venv "$environment" || {
      rm -rf "$environment"
      fail "$python could not make $environment (see above)"
    }
  fi
fi
export PATH="$environment/bin:$PATH"
stamp="$(cat requirements.lock && echo "# for $PWD")"
if [ "$stamp" != "$(cat "$environment/installed.lock" 2>/dev/null)" ]; then
  [ ! -L "$environment" ] || fail "$environment is a link to another checkout's environment: remove it"
  echo "installing the locked packages into $environment (some minutes, once)"
  rm -f "$environment/installed.lock"
  unset PIP_TARGET PIP_PREFIX PIP_ROOT
  pip() { PIP_USER=0 python -Es -m pip install --quiet --disable-pip-version-check "$@" || fail "the packages could not be installed (see above)"; }
  pip -r requirements.lock
  pip --no-deps --editable .
  printf '%s\n' "$stamp" >"$environment/installed.lock"
fi

case "$task" in
  # Two workers of one thread: each file's tests stay together, and so do their fixtures.
  test) OMP_NUM_THREADS=1 exec python -Es -m workflow.environment pytest -n 2 --dist loadfile ;;
  figures) exec python -Es -m workflow.environment workflow.publish --cores "$cores" ;;
  site) exec python -Es -m workflow.environment sphinx -b html -E -W -q -c docs . site/html ;;
  run) exec python -Es -m workflow.environment workflow.run --profile "$profile" --cores "$cores" ${dry[@]+"${dry[@]}"} ;;
esac
