#!/usr/bin/env bash
# The default tests in fresh environments of every Python and of both ends of setup.cfg's ranges, one after the other:
#   launch/matrix.sh [--rows=NAME,NAME...] [ARGUMENT...]
# Arguments go to pytest, for example -n 1 or tests/losses. The rows are
#   locked-3.11, locked-3.12, locked-3.13   what the lock files name
#   oldest-3.11                             of every package that setup.cfg names its lower bound
#   newest-3.13                             what pip finds within setup.cfg's ranges today
# An interpreter is searched on PATH and among pyenv's. Environments and logs stay in .venv-matrix. Each row takes as
# long as launch/test.sh, and 3 GB of disk (6 where pip brings PyTorch with CUDA). The exit code is 1 where a row failed,
# and 2 where none ran.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

all=(locked-3.11 locked-3.12 locked-3.13 oldest-3.11 newest-3.13)
rows=("${all[@]}")
if [[ ${1:-} == --rows=* ]]; then
  IFS=, read -ra rows <<<"${1#*=}"
  shift
fi
for row in "${rows[@]}"; do
  [[ " ${all[*]} " == *" $row "* ]] || fail "--rows names '$row'; give some of ${all[*]}, joined by commas."
done

# python_of VERSION: the path of an interpreter of this version; nothing where there is none.
python_of() {
  local candidate
  for candidate in "python$1" "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/$1".*/bin/python; do
    if [[ $("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) == "$1" ]]; then
      "$candidate" -c 'import sys; print(sys.executable)'
      return
    fi
  done
}

# lower_bounds PYTHON: every package of setup.cfg and its extras "train" and "test" at its lower bound, as pip's constraints.
lower_bounds() {
  "$1" - <<'PYTHON'
import configparser
import re

parser = configparser.ConfigParser()
parser.read("setup.cfg")
extras = parser["options.extras_require"]
needs = parser["options"]["install_requires"] + extras["train"] + extras["test"]
for need in filter(None, (line.split("#")[0].strip() for line in needs.splitlines())):
    if need.startswith("emokd["):
        continue
    name, version = re.fullmatch(r"([\w.-]+)[>=]=([\w.]+)(?:,<[\w.]+)?", need).groups()
    print(f"{name}=={version}")
PYTHON
}

# install ROW: what the row is about, and the checkout itself, into the environment of that name.
install() {
  local python=.venv-matrix/$1/bin/python pip=(".venv-matrix/$1/bin/python" -m pip install -q --disable-pip-version-check)
  case $1 in
    locked-*)
      install_hashed "$python" requirements.lock requirements-test.lock && "${pip[@]}" --no-deps --no-build-isolation -e .
      ;;
    oldest-*)
      lower_bounds "$python" >".venv-matrix/$1.txt" && "${pip[@]}" -c ".venv-matrix/$1.txt" setuptools -e ".[test]"
      ;;
    newest-*)
      "${pip[@]}" --upgrade setuptools -e ".[test]"
      ;;
  esac
}

# versions ROW: the versions that matter, in one line.
versions() {
  ".venv-matrix/$1/bin/python" - <<'PYTHON'
import importlib.metadata
import platform

NAMES = ("jax", "flax", "numpy", "optax", "ott-jax", "orbax-checkpoint", "grain")
print(f"Python {platform.python_version()},", ", ".join(f"{n} {importlib.metadata.version(n)}" for n in NAMES))
PYTHON
}

unset PYTHONPATH
mkdir -p .venv-matrix
table=() ran=0 failed=0
for row in "${rows[@]}"; do
  python=$(python_of "${row#*-}")
  if [[ -z $python ]]; then
    echo "$row: no interpreter of Python ${row#*-} on PATH or among pyenv's; the row is left out."
    table+=("$row|left out: no interpreter|")
    continue
  fi
  ran=$((ran + 1)) begun=$SECONDS
  echo "$row: installing into .venv-matrix/$row"
  if ! { "$python" -m venv --clear ".venv-matrix/$row" && install "$row"; } >".venv-matrix/$row-install.log" 2>&1; then
    failed=$((failed + 1))
    echo "$row: pip could not install it:"
    tail -n 5 ".venv-matrix/$row-install.log"
    table+=("$row|not installed, see .venv-matrix/$row-install.log|")
    continue
  fi
  installed=$(versions "$row")
  echo "$row: $installed"
  code=0
  ".venv-matrix/$row/bin/python" -m pytest -n 2 --dist loadfile "$@" 2>&1 | tee ".venv-matrix/$row.log" || code=$?
  # pytest's last line: how many passed, failed and were skipped.
  result=$(grep -E '^=+ .* in [0-9.]+s' ".venv-matrix/$row.log" | tail -n 1 | sed -E 's/^=+ | =+$//g' || true)
  ((code == 0)) || failed=$((failed + 1))
  ((code == 0)) && verdict=passed || verdict="failed (exit code $code)"
  echo "$row: $verdict after $((SECONDS - begun)) s"
  table+=("$row|$verdict: ${result:-no tests ran}|$installed")
done

echo
echo "Summary of $(date -u +%Y-%m-%d), commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown):"
for line in "${table[@]}"; do
  IFS='|' read -r row result installed <<<"$line"
  printf '%-12s %s\n' "$row" "$result"
  [[ -z $installed ]] || printf '%-12s %s\n' '' "$installed"
done
((ran > 0)) || exit 2
((failed == 0)) || exit 1
