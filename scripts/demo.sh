#!/usr/bin/env bash
# Moves a bucket between two S3 servers with pipelines/bucket-to-bucket.yaml, with a `kill -9` in the middle: check, plan,
# run, kill, resume, compare, show. Installs what is missing, builds ferry, and stops everything it started, also when
# it fails. FERRY=path/to/ferry runs that one and builds nothing; FERRY_DEMO_FILES says how many files are moved.
set -euo pipefail
cd "$(dirname "$0")/.."

bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'
if [ ! -t 1 ] || [ -n "${NO_COLOR:-}" ]; then bold='' dim='' plain=''; fi
heading() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
say() { printf '%s\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }
# Shows the command line, then runs it.
run() { printf '%s$ %s%s\n' "$dim" "${*/#$ferry/ferry}" "$plain"; "$@"; }

work="$(mktemp -d "${TMPDIR:-/tmp}/ferry-demo.XXXXXX")"
servers=()
runner=''
clean() {
    status=$?
    trap - EXIT INT TERM
    if [ -n "$runner" ]; then kill -9 "$runner" 2>/dev/null || true; fi
    for server in "${servers[@]:+${servers[@]}}"; do kill "$server" 2>/dev/null || true; done
    wait 2>/dev/null || true
    if [ "$status" -ne 0 ]; then
        printf '\ndemo: failed with status %s; the servers are stopped. Their last words:\n' "$status" >&2
        tail -n 5 "$work"/*.log >&2 2>/dev/null || true
    fi
    rm -rf "$work"
    exit "$status"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

heading "Parts: an S3 server (rclone)"
scripts/install-parts.sh rclone
rclone="${FERRY_PARTS:-${XDG_CACHE_HOME:-$HOME/.cache}/ferry/parts}/venv/bin/rclone"
say "$("$rclone" version | head -n 1)"

ferry="${FERRY:-}"
if [ -z "$ferry" ]; then
    heading "Build: ferry, release"
    cargo build --release --locked
    ferry="${CARGO_TARGET_DIR:-target}/release/ferry"
fi
ferry="$(realpath "$ferry")"
started=$SECONDS

heading "Files: a tree of real ones, and four of 64 MiB"
bucket="$work/old/uploads"
mkdir -p "$bucket/large" "$work/new/uploads"
count="${FERRY_DEMO_FILES:-3000}"
for folder in /usr/share /usr/lib /usr/include /etc; do
    # A reader that stops early is no failure of the writer.
    { find "$folder" -xdev -type f -readable -size -512k -print0 2>/dev/null || true; }
done | { head -z -n "$count" || true; } | (cd / && xargs -0 cp --parents --no-preserve=ownership -t "$bucket")
for number in 1 2 3 4; do head -c 64M /dev/urandom > "$bucket/large/$number.bin"; done
total="$(find "$bucket" -type f | wc -l)"
say "$total files, $(du -sh --apparent-size "$bucket" | cut -f1)"

heading "Servers: two, with two sets of keys"
export OLD_KEY=DEMOOLDKEY0000001 OLD_SECRET="old-$RANDOM$RANDOM$RANDOM" NEW_KEY=DEMONEWKEY0000002 NEW_SECRET="new-$RANDOM$RANDOM$RANDOM"
# Starts a server on a free port; the port is in $port afterwards.
serve() {
    local name="$1" key="$2"
    for _ in 1 2 3 4 5; do
        port=$((20000 + RANDOM % 20000))
        "$rclone" serve s3 --config /dev/null --auth-key "$key" --addr "127.0.0.1:$port" "$work/$name" > "$work/$name.log" 2>&1 &
        local pid=$!
        for _ in $(seq 200); do
            if (exec 3<> "/dev/tcp/127.0.0.1/$port") 2>/dev/null && kill -0 "$pid" 2>/dev/null; then
                servers+=("$pid")
                say "$name: http://127.0.0.1:$port (process $pid)"
                return
            fi
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.05
        done
        kill "$pid" 2>/dev/null || true
    done
    fail "the S3 server \`$name\` did not start"
}
serve old "$OLD_KEY,$OLD_SECRET"; old="http://127.0.0.1:$port"
serve new "$NEW_KEY,$NEW_SECRET"; new="http://127.0.0.1:$port"
export FERRY_STORE="$work/runs"
pipeline=pipelines/bucket-to-bucket.yaml
inputs=(-i "old_endpoint=$old" -i "new_endpoint=$new")

heading "Check: nothing is contacted"
run "$ferry" check "$pipeline"

heading "Plan: everything is looked at, nothing is changed"
run "$ferry" plan "$pipeline" "${inputs[@]}"
[ "$(find "$work/new/uploads" -type f | wc -l)" = 0 ] || fail "the plan has changed the target"

heading "Run, in the background"
printf '%s$ ferry run %s %s --yes --json > events.jsonl &%s\n' "$dim" "$pipeline" "${inputs[*]}" "$plain"
"$ferry" run "$pipeline" "${inputs[@]}" --yes --json > "$work/events.jsonl" 2> "$work/run.log" &
runner=$!
# A third of the objects has arrived, a checkpoint is on disk, and the run is still at it: the right moment.
arrived() { find "$work/new/uploads" -type f ! -name '*.partial' | wc -l; }
until [ "$(arrived)" -ge $((total / 3)) ] && grep -q '"event":"checkpoint"' "$work/events.jsonl"; do
    if ! kill -0 "$runner" 2>/dev/null; then cat "$work/run.log" >&2; fail "the run was over before it could be killed"; fi
    sleep 0.02
done

heading "kill -9, in mid-transfer"
kill -0 "$runner" 2>/dev/null || fail "the run was over before it could be killed"
say "\$ kill -9 $runner"
kill -9 "$runner"
wait "$runner" 2>/dev/null || true
runner=''
# Which files are there: by inode and time of change, which no rewriting leaves alone.
list() { find "$work/new/uploads" -type f ! -name '*.partial' -printf '%P\t%i %C@\n' | LC_ALL=C sort; }
# An upload that the dead runner had sent whole may still be written by the server.
list > "$work/before"
until list > "$work/now"; cmp -s "$work/before" "$work/now"; do mv "$work/now" "$work/before"; sleep 0.05; done
there="$(wc -l < "$work/before")"
say "$there of $total objects have arrived"
[ "$there" -lt "$total" ] || fail "everything had arrived: nothing is left to resume"
run "$ferry" runs

heading "Resume"
run "$ferry" resume last

heading "Proof"
list > "$work/after"
[ "$(wc -l < "$work/after")" = "$total" ] || fail "$(wc -l < "$work/after") objects are there, and not $total"
again="$(LC_ALL=C comm -23 "$work/before" "$work/after" | wc -l)"
say "of the $there objects that were there at the kill, $again were written again"
# What was under way at the kill has no checkpoint yet and may count as not arrived.
[ "$again" -le 24 ] || fail "$again objects were copied twice"
say "object.compare found every object with the same content; diff agrees:"
run diff -r --brief "$work/old/uploads" "$work/new/uploads"
say "identical"

heading "Show: the story of the run"
run "$ferry" show last
if "$ferry" report --help > /dev/null 2>&1; then
    run "$ferry" report last --html "$work/report.html"
fi

heading "Secrets: in no file of the run"
if grep -rlF -e "$OLD_SECRET" -e "$NEW_SECRET" "$FERRY_STORE" "$work/events.jsonl" "$work/run.log"; then fail "a secret was written down"; fi
say "none found"

heading "Done, $((SECONDS - started)) s after the build"
