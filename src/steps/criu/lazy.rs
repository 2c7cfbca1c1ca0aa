//! Post-copy on one host: a process that is frozen while the other host fetches its memory, and one that runs meanwhile.
//!
//! What may go wrong is that a process runs on both hosts, or with zeroes for memory. So the source's is stopped by a signal of
//! its own: whatever becomes of CRIU there, it stays frozen with all of its memory until it is ended, or let go on, by
//! word. And the target's waits for its pages even when CRIU dies there, until it is ended.

use std::net::Ipv4Addr;

use super::super::address::{Address, UNGUARD};
use super::site::{DETACHED, FIND, Found, Site, UNLOCK};
use crate::error::StepError;
use crate::units::ByteSize;

/// What CRIU lacks.
pub(super) const PAGES: &str = include_str!("pages.pl");

/// `$1` the program above, `$2` the folder, `$3` address, `$4` port, `$5` who may fetch.
const GATE: &str = r#"setsid perl -e "$1" gate "$2" "$3" "$4" "$5" </dev/null >/dev/null 2>>"$2/said" &
until [ -e "$2/gate" ]; do if [ -e "$2/shut" ]; then cat "$2/shut" >&2; exit 1; fi; kill -0 $! 2>/dev/null || { cat "$2/said" >&2; exit 1; }; sleep 0.01; done"#;

/// Freezes the process and serves its pages, in a session of its own. It gets a signal to stop while CRIU holds it: when CRIU
/// ends, in whatever way, it stays where it is. Then the address is taken away.
const SERVE: &str = r#"pages=$1 place=$2 full=$3 device=$4 criu=$5 d=$6 pid=$7; shift 7
read -r n port <"$d/gate" || exit 1
setsid sh -c 'd=$1 pages=$2 pid=$3; shift 3; echo $$ >"$d/server"
( until [ -s "$d/ready" ]; do [ ! -e "$d/served" ] || exit; sleep 0.005; done; kill -s STOP -- $(perl -e "$pages" tree "$pid"); : >"$d/frozen" ) &
"$@" 3>"$d/ready" >/dev/null 2>>"$d/said"; echo $? >"$d/served.new"; mv "$d/served.new" "$d/served"; rm -f "$d/server"' \
  serve "$d" "$pages" "$pid" "$criu" dump -t "$pid" -D "$d" -o dump.log -v2 -s --lazy-pages --address 127.0.0.1 --port "$port" --status-fd 3 "$@" \
  </dev/null >/dev/null 2>&1 &
until [ -e "$d/frozen" ]; do [ ! -e "$d/served" ] || exit 1; sleep 0.005; done
[ -z "$place" ] || ip addr del "$full" dev "$device""#;

/// Ends CRIU at the source; the process is stopped then. Without the gate it ends by itself, unless it waits for it still.
/// In `$d` the folder.
const STOP_SERVING: &str = r#"if read -r n _ 2>/dev/null <"$d/gate"; then kill -s KILL "$n" 2>/dev/null; fi
i=0; while n=$(cat "$d/server" 2>/dev/null) && kill -0 "$n" 2>/dev/null; do
  i=$((i+1)); [ $i != 100 ] || kill -s KILL -- $(cat /proc/"$n"/task/"$n"/children); [ $i -lt 1000 ] || exit 1; sleep 0.01; done"#;

/// `$1` the program above, `$2` the folder, `$3` the process, `$4` the guard, `$5` `open`, or `reset`.
const THAW: &str = r#"pages=$1 d=$2 pid=$3 guard=$4
perl -e "$pages" "$5" "$pid" || exit; : >"$d/thawed.new"; kill -s CONT -- $(perl -e "$pages" tree "$pid") && mv "$d/thawed.new" "$d/thawed""#;

/// `$1` the program above, `$2` the folder, `$3` the process, `$4` its command line as a sum.
const FINISH: &str = r#"d=$2; all=; [ "$(cksum </proc/"$3"/cmdline 2>/dev/null)" != "$4" ] || all=$(perl -e "$1" tree "$3")"#;

/// Restores the process and lets its memory follow. What is called `commit` is asked by CRIU before the process runs: from
/// the moment that it has noted `given` on, the one at the source is never let go on by itself.
const FETCH: &str = r#"pages=$1 pid=$2 address=$3 port=$4 guard=$5; shift 5; criu=$1 d=$2
cat >"$d/commit" <<'COMMIT'
#!/bin/sh
[ "$CRTOOLS_SCRIPT_ACTION" = post-restore ] || exit 0
cd "${0%/*}" || exit 1; : >take; i=0
until [ -e held ]; do [ ! -e pages ] && [ $i -lt 2500 ] || exit 1; i=$((i+1)); sleep 0.004; done
: >given; [ ! -e failed ]
COMMIT
chmod 700 "$d/commit"
setsid perl -e "$pages" hold "$d" "$pid" "$criu" lazy-pages --page-server --address "$address" --port "$port" -D "$d" -o lazy.log -v2 </dev/null >/dev/null 2>>"$d/said" &
until [ -S "$d/lazy-pages.socket" ]; do [ ! -e "$d/pages" ] || exit 1; kill -0 $! 2>/dev/null || exit 1; sleep 0.005; done"#;

/// What came of a restore that is not to be goes. `$1` the folder. Waits until nothing fetches any more.
const CALL_OFF: &str = r#"d=$1; i=0; while n=$(cat "$d/fetcher" 2>/dev/null) && kill -s KILL "$n" 2>/dev/null; do i=$((i+1)); [ $i -lt 500 ] || exit 1; sleep 0.01; done"#;

/// Waits a little for the memory to come.
const WAIT: &str = r#"d=$1; i=0; while [ $i -lt 20 ] && [ ! -e "$d/pages" ] && n=$(cat "$d/fetcher" 2>/dev/null) && kill -0 "$n" 2>/dev/null; do i=$((i+1)); sleep 0.05; done"#;

impl Site<'_> {
    /// Where the other host reaches this one.
    pub(super) fn place(&self) -> Result<(Ipv4Addr, u16), StepError> {
        self.at.ok_or_else(|| {
            StepError::permanent("memory that follows its process needs a way from host to host")
                .help("say with `pages` where the two hosts reach each other")
        })
    }

    /// Opens the gate through which `other` will fetch the pages.
    pub(super) async fn open_gate(&self, other: &Site<'_>) -> Result<(), StepError> {
        let ((address, port), (peer, _)) = (self.place()?, other.place()?);
        let arguments = [PAGES, &self.folder, &address.to_string(), &port.to_string(), &peer.to_string()];
        self.shell.script("open a gate for pages", GATE, &arguments).await.map(drop)
    }

    /// Closes it: nobody has asked for anything.
    pub(super) async fn close_gate(&self) -> Result<(), StepError> {
        let script = r#"if read -r n _ 2>/dev/null <"$1/gate"; then kill -s KILL "$n" 2>/dev/null; rm -f "$1/gate"; fi; exit 0"#;
        self.shell.script("close the gate", script, &[&self.folder]).await.map(drop)
    }

    /// Whether there is a way from here to the gate at `source`.
    pub(super) async fn try_gate(&self, source: &Site<'_>) -> Result<(), StepError> {
        let (address, port) = source.place()?;
        let arguments = [PAGES, &address.to_string(), &port.to_string()];
        let tried = self.shell.try_script(r#"exec perl -e "$1" try "$2" "$3""#, &arguments, None).await?;
        if tried.code == Some(0) {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&tried.stdout).trim().to_owned();
        let said = if said.is_empty() { tried.stderr_tail.trim().to_owned() } else { said };
        let (here, there) = (source.host(), self.host());
        Err(StepError::permanent(format!("pages cannot go from `{here}` to `{there}`: {said}"))
            .help("open the port between the two hosts, or correct `pages`; nothing was frozen"))
    }

    /// Freezes the process, takes its address away, and serves its pages.
    pub(super) async fn serve(&self, pid: u32, flags: &[&str], address: Option<&Address>) -> Result<(), StepError> {
        let (place, device) = address.map_or(("", ""), |address| ("yes", address.device(self.is_target)));
        let full = address.map(Address::full).unwrap_or_default();
        let pid = pid.to_string();
        let mut arguments = vec![PAGES, place, full.as_str(), device, self.criu, self.folder.as_str(), &pid];
        arguments.extend(flags);
        let finished = self.shell.try_script(SERVE, &arguments, None).await?;
        if finished.code == Some(0) { Ok(()) } else { Err(self.complaint("freeze", "dump.log").await) }
    }

    /// Restores the process here, and lets its memory come from `source`.
    pub(super) async fn fetch(&self, pid: u32, flags: &[&str], source: &Site<'_>) -> Result<(), StepError> {
        let (address, port) = source.place()?;
        let (pid, address, port) = (pid.to_string(), address.to_string(), port.to_string());
        let commit = format!("{}/commit", self.folder);
        let script = format!("{FETCH}\n( {DETACHED} ); code=$?; [ $code != 0 ] || {{ {UNGUARD}; }}; exit $code");
        let mut arguments = vec![PAGES, pid.as_str(), &address, &port, &self.guard, self.criu, &self.folder, "restore"];
        arguments.extend(["restore", "-D", &self.folder, "-o", "restore.log", "-v2", "-d", "--lazy-pages"]);
        arguments.extend(["--action-script", &commit]);
        arguments.extend(flags);
        let finished = self.shell.try_script(&script, &arguments, None).await?;
        if finished.code == Some(0) { Ok(()) } else { Err(self.complaint("restore", "restore.log").await) }
    }

    /// Waits a little, and looks.
    pub(super) async fn wait(&self, pid: u32, sum: &str) -> Result<Found, StepError> {
        self.found(&format!("{WAIT}\n{FIND}"), pid, sum).await
    }

    /// Takes the guard away, if it is there.
    pub(super) async fn unguard(&self) -> Result<(), StepError> {
        self.shell.script("let clients in", &format!("guard=$1; {UNGUARD}"), &[&self.guard]).await.map(drop)
    }

    /// How much has gone through the gate here.
    pub(super) async fn sent(&self) -> Result<ByteSize, StepError> {
        let said = self.shell.read(&format!("{}/sent", self.folder)).await?.unwrap_or_default();
        Ok(ByteSize(said.trim().parse().unwrap_or(0)))
    }

    /// Ends what was restored here and is not to be.
    pub(super) async fn call_off(&self, pid: u32, sum: &str) -> Result<(), StepError> {
        self.kill(pid, sum).await?;
        self.shell.script("end the transfer of pages", CALL_OFF, &[&self.folder]).await?;
        self.kill(pid, sum).await
    }

    /// The frozen process goes on here. Its connections do too, unless `is_behind`: then they are reset, for those at the
    /// other end have gone on without it.
    pub(super) async fn thaw(&self, pid: u32, is_behind: bool) -> Result<(), StepError> {
        let script = format!("d=$2; {STOP_SERVING}\n{UNLOCK}\n{THAW} && {{ {UNGUARD}; }}");
        let arguments = [PAGES, &self.folder, &pid.to_string(), &self.guard, if is_behind { "reset" } else { "open" }];
        self.shell.script("let the process go on", &script, &arguments).await.map(drop)
    }

    /// The frozen process is ended: it runs on the other host, with all of its memory.
    pub(super) async fn finish(&self, pid: u32, sum: &str) -> Result<(), StepError> {
        let script = format!("{FINISH}\n{STOP_SERVING}\nfor p in $all; do kill -s KILL -- \"$p\" 2>/dev/null; done; exit 0");
        let arguments = [PAGES, &self.folder, &pid.to_string(), sum];
        self.shell.script("end the frozen process", &script, &arguments).await.map(drop)
    }
}
