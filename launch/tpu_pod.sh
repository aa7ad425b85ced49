#!/usr/bin/env bash
# One run on every host of a Cloud TPU pod slice, on which docs/scaling.md has set emokd up. Other options go to
# emokd.train, whose paths are those of the hosts:
#   launch/tpu_pod.sh --name=TPU --zone=ZONE [--project=PROJECT] [--directory=emokd] [--dry_run] --config=FILE ...
# --directory: the checkout on the hosts, relative to the home folder. The workdir must be one folder for all hosts.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

name='' zone='' project='' directory=emokd dry_run=false train=()
for argument in "$@"; do
  case $argument in
    --name=*) name=${argument#*=} ;;
    --zone=*) zone=${argument#*=} ;;
    --project=*) project=${argument#*=} ;;
    --directory=*) directory=${argument#*=} ;;
    --dry_run) dry_run=true ;;
    *) train+=("$argument") ;;
  esac
done
[[ -n $name ]] || fail "--name is missing: give --name=TPU."
[[ -n $zone ]] || fail "--zone is missing: give --zone=ZONE."

# The hosts' shells read this again, so it is quoted once more.
remote="cd $(quoted "$directory") && $(quoted env EMOKD_DISTRIBUTED=auto .venv/bin/python -m emokd.train ${train[@]+"${train[@]}"})"
command=(gcloud compute tpus tpu-vm ssh "$name" "--zone=$zone" ${project:+"--project=$project"} --worker=all
  "--command=$remote")
if $dry_run; then
  quoted "${command[@]}"
  exit
fi
command -v gcloud >/dev/null || fail "there is no gcloud on PATH; install the Google Cloud CLI."
exec "${command[@]}"
