#!/usr/bin/env bash
# From a fresh checkout to a trained student and its scoreboard: installs emokd into .venv and runs the quickstart.
# Arguments go to emokd.train, for example --config.seed=1; relative paths in them start at the checkout's root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

install_locked requirements.lock
if [[ " $*" != *" --config="* ]]; then
  set -- --config=configs/smkd/quickstart.py "$@"
fi
exec .venv/bin/python -m emokd.train --workdir=runs/quickstart "$@"
