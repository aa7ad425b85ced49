#!/usr/bin/env bash
# One run as several processes on this machine, which share the work. Other options go to the command:
#   launch/local.sh --processes=2 [--devices=2] [--port=PORT] [--command=NAME] [--dry_run] --config=FILE --workdir=FOLDER
# --command: train (the default), evaluate or cache_teachers.
# --devices: GPUs (or, without GPUs, CPU devices) of each process, 1 by default. The first process to fail ends all;
# SIGTERM and Ctrl-C are passed on, and the run saves.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

processes='' devices=1 port='' name=train dry_run=false options=()
for argument in "$@"; do
  case $argument in
    --processes=*) processes=${argument#*=} ;;
    --devices=*) devices=${argument#*=} ;;
    --port=*) port=${argument#*=} ;;
    --command=*) name=${argument#*=} ;;
    --dry_run) dry_run=true ;;
    *) options+=("$argument") ;;
  esac
done
[[ -n $processes ]] || fail "--processes is missing: give --processes=N."
positive --processes "$processes"
positive --devices "$devices"
case $name in
  train | evaluate | cache_teachers) ;;
  *) fail "--command is '$name'; give train, evaluate or cache_teachers." ;;
esac
python=$(installed_python)
if [[ -z $port ]]; then
  port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
fi
positive --port "$port"

pids=()
pass_on() { # to processes in groups of their own, so that a terminal's Ctrl-C reaches each of them once, from here
  interrupted=true
  ((${#pids[@]} == 0)) || kill -"$1" "${pids[@]}" 2>/dev/null || true
}
# shellcheck disable=SC2329 # the trap calls it
stop() {
  pass_on TERM
  wait
}
trap stop EXIT
trap 'pass_on INT' INT
trap 'pass_on TERM' TERM
set -m

for ((process = 0; process < processes; process++)); do
  ids=$(seq -s, "$((process * devices))" "$((process * devices + devices - 1))")
  # Of the last two, JAX reads the one for the devices that it finds: the number of CPU devices, or which GPUs.
  command=(env "EMOKD_COORDINATOR=127.0.0.1:$port" "EMOKD_PROCESSES=$processes" "EMOKD_PROCESS=$process"
    "JAX_NUM_CPU_DEVICES=$devices" "JAX_LOCAL_DEVICE_IDS=$ids" "$python" -m "emokd.$name" ${options[@]+"${options[@]}"})
  if $dry_run; then
    quoted "${command[@]}"
  else
    "${command[@]}" &
    pids+=($!)
  fi
done

# A run that is told to end saves, and its processes say by their exit codes how it ended. One that fails ends the others.
code=0
while true; do
  interrupted=false ended=0
  wait -n || ended=$?
  if $interrupted; then continue; fi
  if ((ended == 127)); then break; fi # none is left
  if ((ended != 0 && code == 0)); then
    code=$ended
    pass_on TERM
  fi
done
pids=()
exit "$code"
