//! The watchdog of a pause: a process on the router's host that ends the pause when nobody else does.
//!
//! It is in a session of its own, so that it outlives the runner and its connection. It knows nothing of the cutover: it
//! only lets clients go on, to wherever the router leads then. Behind the fence they get errors instead of an answer
//! that never comes; two primaries cannot come of it.

use crate::error::StepError;
use crate::postgres::Owner;

/// Says a command to a console of PgBouncer over its socket. `$ARGV`: the socket, the user, the commands.
const PERL: &str = r#"
use Socket; use strict; my ($path, $user, @orders) = @ARGV; my $s;
socket($s, PF_UNIX, SOCK_STREAM, 0) and connect($s, pack_sockaddr_un($path)) or exit 9;
my $start = pack("N", 196608) . "user\0$user\0database\0pgbouncer\0\0"; syswrite($s, pack("N", 4 + length $start) . $start); ready();
for my $order (@orders) { syswrite($s, "Q" . pack("N", 5 + length $order) . "$order\0"); ready() }
sub ready { while (1) { my ($kind, $body) = ("", ""); full(5, \my $head) or exit 8; ($kind, my $n) = unpack("a N", $head);
  full($n - 4, \$body) or exit 8; return if $kind eq "Z"; exit 7 if $kind eq "R" && unpack("N", $body) != 0 } }
sub full { my ($n, $to) = @_; $$to = ""; while (length $$to < $n) { sysread($s, $$to, $n - length $$to, length $$to) or return 0 } 1 }
"#;

/// `$1` the flag, `$2` seconds, `$3` the program, then what it is given. The flag holds the watchdog's number.
const START: &str = r#"f=$1; n=$2; p=$3; shift 3; rm -f "$f"
setsid sh -c 'f=$1; n=$2; p=$3; shift 3; echo $$ >"$f.new" && mv "$f.new" "$f"; sleep "$n"
  [ "$(cat "$f" 2>/dev/null)" = $$ ] || exit 0; perl -e "$p" "$@"; rm -f "$f"' watchdog "$f" "$n" "$p" "$@" </dev/null >/dev/null 2>&1 &
i=0; until [ -s "$f" ]; do i=$((i+1)); [ $i -lt 200 ] || exit 3; sleep 0.01; done"#;

/// `$1` the flag.
const END: &str = r#"n=$(cat "$1" 2>/dev/null) || exit 0; rm -f "$1"; kill -s TERM -- "-$n" 2>/dev/null; exit 0"#;

fn flag(key: &str) -> String {
    format!("/tmp/{key}.watchdog")
}

/// Starts it: in so many seconds it says these commands to the console.
pub(super) async fn start(
    owner: &Owner,
    key: &str,
    seconds: u64,
    socket: &str,
    user: &str,
    orders: &[String],
) -> Result<(), StepError> {
    let (flag, seconds) = (flag(key), seconds.to_string());
    let mut arguments = vec![flag.as_str(), &seconds, PERL.trim(), socket, user];
    arguments.extend(orders.iter().map(String::as_str));
    owner.script("start the watchdog of the pause", START, &arguments).await.map(drop)
}

/// Ends it, if there is one.
pub(super) async fn end(owner: &Owner, key: &str) -> Result<(), StepError> {
    owner.script("end the watchdog of the pause", END, &[&flag(key)]).await.map(drop)
}

/// Whether the host has what it needs.
pub(super) async fn can(owner: &Owner) -> Result<bool, StepError> {
    let needs = "command -v setsid >/dev/null && perl -MSocket -e 1 2>/dev/null";
    Ok(owner.try_script(needs, &[], None).await?.code == Some(0))
}
