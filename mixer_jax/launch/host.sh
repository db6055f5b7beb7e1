#!/bin/bash
# Runs one launch of mixer_jax on a host of a TPU slice. It is the machine's startup script, so a machine that comes back goes on.
#
#   host.sh            fetch the job, install what it needs, and supervise it until it ends
#   host.sh start      the same in the background, after a stop of what runs
#   host.sh stop       send SIGTERM, wait until all is saved, and exit with the supervisor's code; this job is not started again
#   host.sh terminate  the same, but a machine that comes back goes on (its shutdown script)
set -uo pipefail
LAUNCH=@LAUNCH@ # gs://BUCKET/PATH/launches/NAME
ROOT=${LAUNCH%/launches/*} NAME=${LAUNCH##*/}
FOLDER=${MIXER_JAX_FOLDER:-/var/lib/mixer_jax}/$NAME
STORAGE=${STORAGE_EMULATOR_HOST:-https://storage.googleapis.com}
STOPPED=75 TIMED_OUT=124
ATTEMPTS=5 PAUSE_SECONDS=${MIXER_JAX_PAUSE_SECONDS:-20} UPLOAD_SECONDS=60
export HOME=${HOME:-/root}

say() { echo "host.sh: $(date -u +%H:%M:%S) $*"; }

metadata() { curl -sf --max-time 5 -H 'Metadata-Flavor: Google' "http://${GCE_METADATA_HOST:-metadata.google.internal}/computeMetadata/v1/instance/$1"; }

request() { # METHOD_AND_URL_OF_CURL...: a request with the rights of this machine
  local token
  token=$(metadata service-accounts/default/token | sed -n 's/.*"access_token": *"\([^"]*\)".*/\1/p')
  curl -sSf --retry 5 --retry-all-errors --max-time 600 -H "Authorization: Bearer $token" "$@"
}

quoted() { local path=${1#gs://*/}; echo "${path//\//%2F}"; }
bucket() { local path=${1#gs://}; echo "${path%%/*}"; }
fetch() { request -o "$2" "$STORAGE/storage/v1/b/$(bucket "$1")/o/$(quoted "$1")?alt=media"; }
upload() { request -o /dev/null --data-binary "@$1" "$STORAGE/upload/storage/v1/b/$(bucket "$2")/o?uploadType=media&name=$(quoted "$2")"; }

set_up() {
  fetch "$LAUNCH/job.env" job.env && . ./job.env || return 1
  fetch "$ROOT/bundles/$BUNDLE.tar" bundle.tar && echo "$BUNDLE  bundle.tar" | sha256sum --check --quiet || return 1
  rm -rf source && mkdir source && tar -xf bundle.tar -C source || return 1
  case $PYTHON in
    /*) python=$PYTHON ;;
    *) python=$FOLDER/venv/bin/python && install_packages ;;
  esac
}

install_packages() { # uv by its hash in the lock; it brings Python, and the packages by their hashes
  local locks=(source/requirements.txt source/requirements-tpu.txt source/requirements-gcs.txt) wanted
  wanted=$(echo "$PYTHON" | cat - "${locks[@]}" | sha256sum)
  [ "$wanted" = "$(cat installed 2>/dev/null)" ] && return
  rm -rf tools venv installed
  sed -n '/^uv==/,/# via/p' source/requirements-dev.txt >uv.txt
  python3 -m pip install --quiet --no-deps --require-hashes --target tools -r uv.txt || return 1
  UV_PYTHON_INSTALL_DIR=$FOLDER/python tools/bin/uv venv --no-config --quiet --python "$PYTHON" venv || return 1
  tools/bin/uv pip install --no-config --quiet --require-hashes --python "$python" "${locks[@]/#/-r}" || return 1
  echo "$wanted" >installed
}

clear_lockfile() { # libtpu refuses a device whose lockfile another user has left. /proc/locks has the lockfiles that are held.
  local file=${TPU_LOCKFILE:-/tmp/libtpu_lockfile}
  if [ -e "$file" ] && ! grep -q ":$(stat -c %i "$file") " /proc/locks; then rm -f "$file" && say "removed $file, which nobody held"; fi
}

supervise() { # sets `code`
  local end now
  now=$(date +%s)
  [ -s "deadline-$LAUNCHED" ] || echo $((now + SECONDS_ALLOWED)) >"deadline-$LAUNCHED"
  end=$(cat "deadline-$LAUNCHED")
  code=$TIMED_OUT
  if [ "$end" -gt "$now" ] && [ ! "$is_asked_to_stop" ]; then
    cd source
    timeout --foreground --preserve-status --signal=TERM $((end - now + 1)) "$python" -m mixer_jax supervise -- "${WORDS[@]}" 9>&- &
    child=$!
    if [ "$is_asked_to_stop" ]; then kill -TERM "$child"; fi # The signal may have come just before.
    cd ..
    until
      is_interrupted=
      wait "$child"
      code=$?
      [ ! "$is_interrupted" ]
    do :; done
  elif [ "$is_asked_to_stop" ]; then
    code=$STOPPED
  fi
  if [ "$code" = "$STOPPED" ] && [ "$end" -le "$(date +%s)" ]; then code=$TIMED_OUT; fi
}

report() { echo "$1" >code && upload code "$LAUNCH/hosts/${LAUNCHED:-0}/$(hostname)"; }

finish() { # CODE: leave it for `host.sh stop` and for the laptop; when the run has ended for good, give the machines back
  report "$1"
  say "ended with $1"
  case $1 in
    0 | 2 | "$TIMED_OUT")
      if [ "$(metadata attributes/agent-worker-number)" = 0 ]; then
        sleep "$UPLOAD_SECONDS" # The other hosts upload the ends of their logs.
        "${DELETE[@]}" || say "$NAME could not be deleted from here: if it is still there, delete it (launch delete $NAME)"
      fi
      ;;
  esac
}

run() {
  mkdir -p "$FOLDER" && cd "$FOLDER" || exit 1
  [ "$0" -ef host.sh ] || cp "$0" host.sh
  exec 9>lock
  flock --nonblock 9 || { say "$NAME is running" && exit 0; }
  rm -f code
  child='' is_asked_to_stop='' is_interrupted=''
  trap 'is_asked_to_stop=1 is_interrupted=1; if [ "$child" ]; then kill -TERM "$child"; fi' TERM
  echo $$ >pid
  for attempt in $(seq "$ATTEMPTS"); do
    say "setting up, attempt $attempt of $ATTEMPTS" | tee -a set_up.log
    is_set_up=
    if set_up >>set_up.log 2>&1; then is_set_up=1; fi
    upload set_up.log "$ROOT/runs/$NAME/logs/$(hostname)-0.log"
    if [ "$is_set_up" ] || [ "$is_asked_to_stop" ]; then break; fi
    sleep "$PAUSE_SECONDS"
  done
  tail -n 3 set_up.log
  if [ "$(cat stopped 2>/dev/null)" = "${LAUNCHED:-0}" ]; then say "$NAME was stopped" && exit 0; fi
  code=1
  if [ "$is_set_up" ]; then
    report running
    clear_lockfile
    supervise
  fi
  finish "$code"
}

stop() {
  cd "$FOLDER" 2>/dev/null || { say "$NAME is not here" && exit 0; }
  exec 9>lock
  if ! flock --nonblock 9; then
    kill -TERM "$(cat pid)"
    flock 9
  fi
  exec 9>&-
}

case ${1:-} in
  '') run ;;
  start)
    stop
    rm -f stopped
    setsid nohup bash host.sh </dev/null >/dev/null 2>&1 &
    ;;
  stop)
    stop
    sed -n 's/^LAUNCHED=//p' job.env >stopped
    exit "$(cat code)"
    ;;
  terminate) stop ;;
esac
