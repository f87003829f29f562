#!/usr/bin/env bash
# The servers that tests talk to: PostgreSQL, and RabbitMQ with --amqp.
#
# Some tests kill, freeze and wipe a RabbitMQ, or kill a PostgreSQL: they start one of their own, which takes Debian's
# packages rabbitmq-server and postgresql; and one talks to a NestJS client, which takes node 18 or newer and npm. With --amqp they are
# installed if they are missing and that is allowed.
#
#   scripts/test-services.sh [--amqp] run CMD…
#
# Runs CMD with VESTNIK_TEST_PG_URL (and VESTNIK_TEST_AMQP_URL) set and stops afterwards what it started.
# Each server is the first of these that can be had:
#   1. the URL given in that variable;
#   2. a server on 127.0.0.1 at the usual port;
#   3. a throw-away container, if a Docker engine answers;
#   4. a throw-away server from Debian's packages, installed with apt-get where that is allowed.
#
# Variables:
#   VESTNIK_TEST_ALLOW_SKIP=1  go on without a server that cannot be had, and say so at the end
#   VESTNIK_TEST_INSTALL=0     install nothing
#   VESTNIK_TEST_PG_PORT, VESTNIK_TEST_AMQP_PORT   the usual ports, if yours are not 5432 and 5672
#   VESTNIK_TEST_RABBITMQ_SERVER=PATH   the program rabbitmq-server, with rabbitmqctl beside it, that tests start theirs
#                                       from; that of another version than the installed one, say
set -euo pipefail

readonly PG_IMAGE=postgres:17
readonly AMQP_IMAGE=rabbitmq:4
readonly START_TIMEOUT_SECONDS=90 # RabbitMQ takes 15 s on a busy machine, an image has to be unpacked first

dir=          # of the throw-away servers
containers=() # to remove
pg_bin=       # of the throw-away PostgreSQL, once it runs
amqp_pid=     # of the throw-away RabbitMQ, once it runs
found=        # the URL that the last successful step found
reason=       # why the last step found none
skipped=()

say() { printf 'test services: %s\n' "$*" >&2; }

usage() {
  echo 'usage: scripts/test-services.sh [--amqp] run CMD…' >&2
  exit 2
}

# --- what is on this machine --------------------------------------------------------------------------------------

# Where PostgreSQL's program $1 is: PATH first, then Debian's folders, the newest version first.
pg_program() {
  local path
  path=$(command -v "$1" || find /usr/lib/postgresql/*/bin -name "$1" 2>/dev/null | sort -V | tail -n 1)
  [[ -n $path ]] && echo "$path"
}

port_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000)) # below the range that Linux gives to outgoing connections
    port_answers "$port" || break
  done
  echo "$port"
}

engine_answers() {
  command -v docker >/dev/null || { reason='no docker command'; return 1; }
  timeout 10 docker info >/dev/null 2>&1 || { reason='no Docker engine answers'; return 1; }
}

# Installs Debian's packages, if that is allowed and possible.
install_packages() {
  local root=()
  [[ ${VESTNIK_TEST_INSTALL:-1} != 0 ]] || { reason="not installed: $* (VESTNIK_TEST_INSTALL=0)"; return 1; }
  command -v apt-get >/dev/null || { reason="not installed: $*, and no apt-get to install with"; return 1; }
  if ((EUID != 0)); then
    sudo -n true 2>/dev/null || { reason="not installed: $*, and apt-get needs root or sudo without a password"; return 1; }
    root=(sudo -n)
  fi
  say "installing with apt-get: $* (VESTNIK_TEST_INSTALL=0 forbids it)"
  { "${root[@]}" apt-get -qq update &&
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends "$@"; } >"$dir/apt.log" 2>&1 </dev/null ||
    { reason="apt-get could not install $*: $(tail -n 1 "$dir/apt.log")"; return 1; }
}

# Runs a command as the account that PostgreSQL may run under: it refuses to be root.
as_postgres() {
  if ((EUID != 0)); then
    "$@"
  else
    runuser -u "$(pg_account)" -- env -C "$dir" "$@"
  fi
}

pg_account() { if id -u postgres >/dev/null 2>&1; then echo postgres; else echo nobody; fi; }

# --- PostgreSQL ---------------------------------------------------------------------------------------------------

# Whether tests can use the server at URL $1: it lets us in, lets us create databases, and keeps what it commits
# (Vestnik does not start on one that does not).
pg_usable() {
  local psql answer
  psql=$(pg_program psql) || { reason='there is no psql to ask it with'; return 1; }
  # -w: never ask for a password.
  answer=$(PGCONNECT_TIMEOUT=5 "$psql" -wXAtq "$1" 2>&1 <<'SQL'
SELECT CASE
  WHEN NOT (SELECT rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = current_user)
    THEN current_user || ' may not create databases'
  WHEN 'off' IN (current_setting('fsync'), current_setting('synchronous_commit'), current_setting('full_page_writes'))
    THEN 'fsync, synchronous_commit or full_page_writes is off, and Vestnik refuses such a server'
  ELSE 'usable'
END
SQL
  ) || true
  [[ $answer == usable ]] || { reason=${answer//$'\n'/ }; return 1; }
}

pg_given() {
  found=$VESTNIK_TEST_PG_URL
  pg_program psql >/dev/null || { say 'no psql: the given VESTNIK_TEST_PG_URL is taken unchecked'; return 0; }
  pg_usable "$found"
}

pg_running() {
  local port=${VESTNIK_TEST_PG_PORT:-5432} user
  port_answers "$port" || { reason="nothing listens on 127.0.0.1:$port"; return 1; }
  for user in postgres root; do
    found=postgres://$user@127.0.0.1:$port/postgres
    pg_usable "$found" && return
  done
  reason="the server on 127.0.0.1:$port: $reason"
  return 1
}

pg_container() {
  local id port waited
  engine_answers || return 1
  id=$(docker run -d --rm -e POSTGRES_HOST_AUTH_METHOD=trust -p 127.0.0.1::5432 "$PG_IMAGE" 2>"$dir/docker.log") ||
    { reason="docker run $PG_IMAGE: $(tail -n 1 "$dir/docker.log")"; return 1; }
  containers+=("$id")
  port=$(docker port "$id" 5432/tcp | head -n 1)
  found=postgres://postgres@127.0.0.1:${port##*:}/postgres
  for ((waited = 0; waited < START_TIMEOUT_SECONDS; waited++)); do
    # While it sets itself up, the image listens inside the container only.
    port_answers "${port##*:}" && docker exec "$id" pg_isready -q -h 127.0.0.1 && return
    sleep 1
  done
  reason="the container of $PG_IMAGE did not answer within $START_TIMEOUT_SECONDS s"
  return 1
}

pg_binaries() {
  local initdb folder data=$dir/postgres port try
  if ! pg_program initdb >/dev/null; then
    install_packages postgresql || return 1
  fi
  initdb=$(pg_program initdb) || { reason='no initdb on PATH or in /usr/lib/postgresql/*/bin'; return 1; }
  folder=$(dirname "$(readlink -f "$initdb")") # a link on PATH may stand alone: pg_ctl is beside the real one
  mkdir "$data"
  ((EUID != 0)) || chown "$(pg_account)" "$dir" "$data"
  as_postgres "$folder/initdb" -D "$data" -U postgres -A trust -E UTF8 --locale=C --no-sync >"$dir/initdb.log" 2>&1 ||
    { reason="initdb: $(tail -n 1 "$dir/initdb.log")"; return 1; }
  # Between the look at a port and the start somebody else may take it.
  for try in 1 2 3; do
    port=$(free_port)
    if as_postgres "$folder/pg_ctl" -D "$data" -l "$data/log" -w -t "$START_TIMEOUT_SECONDS" start -o "-p $port -k $data \
      -c listen_addresses=127.0.0.1 -c max_connections=200 \
      -c fsync=on -c synchronous_commit=on -c full_page_writes=on" >"$dir/pg_ctl.log" 2>&1; then
      pg_bin=$folder
      found=postgres://postgres@127.0.0.1:$port/postgres
      return
    fi
    reason="pg_ctl start, try $try: $(tail -n 1 "$data/log" 2>/dev/null || tail -n 1 "$dir/pg_ctl.log")"
  done
  return 1
}

# --- RabbitMQ -----------------------------------------------------------------------------------------------------

# Whether a broker answers at port $1: it opens the talk with a method frame, whose first byte is 1.
amqp_answers() {
  local first
  port_answers "$1" || return 1
  first=$(
    exec 3<>"/dev/tcp/127.0.0.1/$1"
    printf 'AMQP\0\0\11\1' >&3
    timeout 5 head -c 1 <&3 | od -An -tu1
  )
  [[ ${first// /} == 1 ]]
}

amqp_wait() {
  local waited
  for ((waited = 0; waited < START_TIMEOUT_SECONDS; waited++)); do
    amqp_answers "$1" && return
    sleep 1
  done
  reason="$2 did not answer within $START_TIMEOUT_SECONDS s"
  return 1
}

amqp_given() { found=$VESTNIK_TEST_AMQP_URL; }

amqp_running() {
  local port=${VESTNIK_TEST_AMQP_PORT:-5672}
  found=amqp://guest:guest@127.0.0.1:$port/%2f
  amqp_answers "$port" || { reason="no broker answers on 127.0.0.1:$port"; return 1; }
}

amqp_container() {
  local id port
  engine_answers || return 1
  id=$(docker run -d --rm -p 127.0.0.1::5672 "$AMQP_IMAGE" 2>"$dir/docker.log") ||
    { reason="docker run $AMQP_IMAGE: $(tail -n 1 "$dir/docker.log")"; return 1; }
  containers+=("$id")
  port=$(docker port "$id" 5672/tcp | head -n 1)
  # From outside the container guest is let in only because the image says so.
  found=amqp://guest:guest@127.0.0.1:${port##*:}/%2f
  amqp_wait "${port##*:}" "the container of $AMQP_IMAGE"
}

# Debian's wrapper in /usr/sbin demands root or rabbitmq; the script behind it does not.
amqp_script() {
  if [[ ${VESTNIK_TEST_RABBITMQ_SERVER:-} ]]; then
    echo "$VESTNIK_TEST_RABBITMQ_SERVER"
  else
    find /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin -name rabbitmq-server 2>/dev/null | sort -V | tail -n 1
  fi
}

amqp_binaries() {
  local data=$dir/rabbitmq port script
  if [[ -z $(amqp_script) ]]; then
    install_packages rabbitmq-server || return 1
  fi
  script=$(amqp_script)
  [[ -n $script ]] || { reason='no rabbitmq-server in /usr/lib/rabbitmq/lib'; return 1; }
  port=$(free_port)
  mkdir "$data"
  printf 'listeners.tcp.1 = 127.0.0.1:%s\n' "$port" >"$data/rabbitmq.conf"
  echo '[].' >"$data/enabled_plugins"
  # A node of its own in every respect: nothing is shared with a broker of the machine but epmd, which stays.
  # A session of its own too, so that Ctrl-C reaches it only through stop_all.
  env HOME="$data" RABBITMQ_NODENAME="vestnik_test_$$@localhost" RABBITMQ_CONF_ENV_FILE=/dev/null \
    RABBITMQ_CONFIG_FILE="$data/rabbitmq.conf" RABBITMQ_ENABLED_PLUGINS_FILE="$data/enabled_plugins" \
    RABBITMQ_MNESIA_BASE="$data/mnesia" RABBITMQ_LOG_BASE="$data/log" RABBITMQ_PID_FILE="$data/pid" \
    RABBITMQ_DIST_PORT="$(free_port)" RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='+S 1:1' \
    setsid "$script" >"$data/output" 2>&1 </dev/null &
  amqp_pid=$!
  found=amqp://guest:guest@127.0.0.1:$port/%2f
  amqp_wait "$port" "$script" || { reason+=": $(tail -n 1 "$data/output")"; return 1; }
}

# --- all together -------------------------------------------------------------------------------------------------

# Finds server $1 ($2: pg, amqp) and leaves its URL in `found`, or else why there is none in `reason`.
find_server() {
  local given=VESTNIK_TEST_${2^^}_URL source others= # why the ones before were not taken
  if [[ -n ${!given:-} ]]; then
    "$2_given" || { reason="the given $given does not work: $reason"; return 1; }
    say "$1: the given $given"
    return
  fi
  for source in running container binaries; do
    # RabbitMQ is started only for those who ask for it.
    [[ $source == running || $2 == pg || $with_amqp ]] || continue
    if "$2_$source"; then
      case $source in
        running) say "$1: the server running on this machine, $found" ;;
        container) say "$1: a throw-away container, $found ($others)" ;;
        binaries) say "$1: a throw-away server of the installed packages, $found ($others)" ;;
      esac
      return
    fi
    others+=${others:+; }$reason
  done
  reason=$others
  return 1
}

# Goes on without server $1, or not.
skip_or_fail() {
  local hint="set VESTNIK_TEST_$2_URL, or VESTNIK_TEST_ALLOW_SKIP=1 to go on without it"
  if [[ ${VESTNIK_TEST_ALLOW_SKIP:-} != 1 ]]; then
    say "no $1: $reason"
    say "hint: $hint"
    exit 1
  fi
  say "no $1, and skipping is allowed: $reason"
  skipped+=("$1: $reason")
}

stop_all() {
  local name
  trap - EXIT
  trap '' INT TERM HUP # a second Ctrl-C must not leave half of them behind
  if [[ $pg_bin ]]; then
    # Nothing in it is worth an orderly end.
    as_postgres "$pg_bin/pg_ctl" -D "$dir/postgres" -m immediate -w stop >/dev/null 2>&1 || say 'PostgreSQL did not stop'
  fi
  if [[ $amqp_pid ]]; then
    kill -TERM -- "-$amqp_pid" 2>/dev/null || true
    wait "$amqp_pid" 2>/dev/null || true
  fi
  if ((${#containers[@]})); then docker rm -f "${containers[@]}" >/dev/null 2>&1 || say 'a container was not removed'; fi
  rm -rf -- "$dir"
  for name in ${skipped[@]+"${skipped[@]}"}; do say "SKIPPED, its tests did not run: $name"; done
}

with_amqp=
if [[ ${1:-} == --amqp ]]; then
  with_amqp=1
  shift
fi
[[ ${1:-} == run && $# -ge 2 ]] || usage
shift

dir=$(mktemp -d -t vestnik-test.XXXXXX)
trap stop_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

if find_server PostgreSQL pg; then
  export VESTNIK_TEST_PG_URL=$found
else
  unset VESTNIK_TEST_PG_URL
  skip_or_fail PostgreSQL PG
fi
if find_server RabbitMQ amqp; then
  export VESTNIK_TEST_AMQP_URL=$found
elif [[ $with_amqp ]]; then
  unset VESTNIK_TEST_AMQP_URL
  skip_or_fail RabbitMQ AMQP
else
  say "RabbitMQ: none, and none asked for (--amqp): $reason"
fi
# Goes on without what tests need beside servers ($1, and the packages it comes with), or not.
skip_or_fail_beside() {
  if [[ ${VESTNIK_TEST_ALLOW_SKIP:-} == 1 ]]; then
    skipped+=("$1: $reason")
  else
    say "no $1: $reason"
    say "hint: install $2, or set VESTNIK_TEST_ALLOW_SKIP=1 to go on without it"
    exit 1
  fi
}

# Whether there is node, new enough to have fetch, and npm.
node_usable() { command -v npm >/dev/null && node -e 'process.exit(typeof fetch === "function" ? 0 : 1)' 2>/dev/null; }

if [[ $with_amqp ]]; then
  if [[ -n $(amqp_script) ]] || install_packages rabbitmq-server; then
    say "RabbitMQ to break: tests start $(amqp_script)"
  else
    skip_or_fail_beside 'RabbitMQ to break' 'the package rabbitmq-server'
  fi
  if pg_program initdb >/dev/null || install_packages postgresql; then
    say "PostgreSQL to break: tests start the one beside $(pg_program initdb)"
  else
    skip_or_fail_beside 'PostgreSQL to break' 'the package postgresql'
  fi
  if node_usable || { install_packages nodejs npm && { node_usable || { reason='node is older than 18'; false; }; }; }; then
    say "NestJS: node $(node --version)"
  else
    skip_or_fail_beside 'node and npm for a NestJS client' 'node 18 or newer and npm'
  fi
fi

"$@"
