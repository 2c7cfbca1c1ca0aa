//! CRIU on one host: what it is like there, and a process dumped and restored.
//!
//! Dumps and restores run in a session of their own and note how they ended: when the runner dies in the middle, they come
//! to their end all the same, and the next attempt reads it. Cut off half-way, CRIU would leave a process that is neither
//! whole nor gone.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::super::address::{Address, UNGUARD};
use crate::error::StepError;
use crate::hosts::Shell;

/// One of the two hosts.
pub(in crate::steps) struct Site<'a> {
    pub shell: Shell,
    /// The program.
    pub criu: &'a str,
    /// The images of this step on this host.
    pub folder: String,
    /// The name of the guard.
    pub guard: String,
    /// Whether it is the one that the pipeline calls the target.
    pub is_target: bool,
    /// Where the other host reaches it, for pages that follow their process.
    pub at: Option<(Ipv4Addr, u16)>,
}

/// What is at work there, and what is left of what was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, found on the host")]
pub(super) struct Found {
    /// Whether the process runs there.
    pub runs: bool,
    /// Whether its images are there and whole.
    pub is_dumped: bool,
    /// Whether it is frozen there with all of its memory, which the other host fetches or is to fetch.
    pub is_held: bool,
    /// Whether it was restored there before its memory had come: from then on it may have run.
    pub is_given: bool,
    /// Whether its memory is still coming.
    pub is_fetching: bool,
    /// Whether all of its memory has come.
    pub is_fetched: bool,
    /// Whether what fetched it has died: the process was ended.
    pub is_cut_off: bool,
}

/// `$1` criu, `$2` the folder of images, `$3` a name for how it ended, then what CRIU is told. Says nothing; ends as CRIU
/// ended. Its own descriptors are not what a process inherits.
pub(in crate::steps) const DETACHED: &str = r#"criu=$1 d=$2 name=$3; shift 3; rm -f "$d/$name"
setsid sh -c 'd=$1 name=$2; shift 2; echo $$ >"$d/busy"; "$@" >/dev/null 2>>"$d/said"; echo $? >"$d/$name.new"; mv "$d/$name.new" "$d/$name"; rm -f "$d/busy"' \
  criu "$d" "$name" "$criu" "$@" </dev/null >/dev/null 2>&1 & wait $!; code=$(cat "$d/$name" 2>/dev/null) || exit 9; exit "$code""#;

/// What CRIU complained of, without what does no harm. `$1` the log.
const COMPLAINTS: &str = r#"grep -h Error "$1" 2>/dev/null | grep -v 'RLIMIT_NOFILE' | sed 's/^([0-9. ]*) *[0-9]*: *//; s/Error ([^)]*): //' | tail -n 3"#;

/// `$1` the folder, `$2` the process, `$3` its command line as a sum. Waits for a CRIU that is at work.
pub(super) const FIND: &str = r#"d=$1; i=0; alive() { n=$(cat "$d/$1" 2>/dev/null) && kill -0 "$n" 2>/dev/null; }
while alive busy || { alive server && [ ! -e "$d/frozen" ] && [ ! -e "$d/served" ]; }; do i=$((i+1)); [ $i -lt 1200 ] || exit 8; sleep 0.05; done
if [ "$(cksum </proc/"$2"/cmdline 2>/dev/null)" = "$3" ]; then case $(sed -n 's/^State:.\(.\).*/\1/p' /proc/"$2"/status) in
  Z) ;; [Tt]) if [ -e "$d/frozen" ] && [ ! -e "$d/thawed" ]; then echo held; else echo runs; fi;; *) echo runs;; esac; fi
if [ "$(cat "$d/dump" 2>/dev/null)" = 0 ] && [ -s "$d/inventory.img" ]; then echo dumped; fi
c=$(cat "$d/restore" 2>/dev/null) || c=0; if [ -e "$d/given" ] && { [ "$c" = 0 ] || [ "$c" -gt 128 ]; }; then echo given; fi
if alive fetcher; then echo fetching; fi; if [ -e "$d/failed" ]; then echo failed; elif [ -e "$d/pages" ]; then echo fetched; fi"#;

/// Removes the lock that CRIU has put on the connections of the process: it bears the beginning of the number that is in
/// the images, in `$d`. The kernel has closed them silently when the process was gone.
pub(super) const UNLOCK: &str = r#"id=$(grep -a -o -E '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}' "$d/inventory.img" 2>/dev/null | head -n 1)
if [ -n "$id" ]; then nft list tables 2>/dev/null | while read -r table inet name; do
  case "CRIU-$id" in "$name"*) nft delete table inet "$name";; esac; done; fi"#;

/// Removes the images, `$1`, the guard, `$2`, what watches over them, and the lock on the connections.
fn tidy_up() -> String {
    let end = r#"for f in gate fetcher; do if read -r n _ 2>/dev/null <"$d/$f"; then kill -s KILL "$n" 2>/dev/null; fi; done"#;
    format!("d=$1; {end}\n{UNLOCK}\nnft delete table inet \"$2\" 2>/dev/null; rm -rf -- \"$1\"")
}

impl Site<'_> {
    pub(in crate::steps) fn host(&self) -> &str {
        self.shell.host()
    }

    /// Whether the process runs here, and whether its images are here. `sum` is that of its command line.
    pub(super) async fn find(&self, pid: u32, sum: &str) -> Result<Found, StepError> {
        self.found(FIND, pid, sum).await
    }

    /// The same by a script that says what [`FIND`] says.
    pub(super) async fn found(&self, script: &str, pid: u32, sum: &str) -> Result<Found, StepError> {
        let finished = self.shell.try_script(script, &[&self.folder, &pid.to_string(), sum], None).await?;
        if finished.code == Some(8) {
            return Err(StepError::transient(format!("CRIU has been at work on `{}` for a minute", self.host()))
                .help("look there what it waits for; the step is tried again as `retry` says"));
        }
        let said = String::from_utf8_lossy(&finished.stdout).into_owned();
        let has = |word: &str| said.lines().any(|line| line == word);
        Ok(Found {
            runs: has("runs"),
            is_dumped: has("dumped"),
            is_held: has("held"),
            is_given: has("given"),
            is_fetching: has("fetching"),
            is_fetched: has("fetched"),
            is_cut_off: has("failed"),
        })
    }

    /// An empty folder for images. What attempts that died have left goes.
    pub(in crate::steps) async fn make_folder(&self) -> Result<(), StepError> {
        let script = format!("{}\nmkdir -p -m 700 -- \"$1\"", tidy_up());
        self.shell.script("make a folder for images", &script, &[&self.folder, &self.guard]).await.map(drop)
    }

    /// The images go, the guard, and what CRIU has left of its lock on the connections.
    pub(in crate::steps) async fn tidy(&self) -> Result<(), StepError> {
        self.shell.script("remove the images", &tidy_up(), &[&self.folder, &self.guard]).await.map(drop)
    }

    /// Dumps the process, which is gone then, and takes its address away.
    pub(super) async fn dump(&self, pid: u32, flags: &[&str], address: Option<&Address>) -> Result<(), StepError> {
        let (place, device) = address.map_or(("", ""), |address| ("yes", address.device(self.is_target)));
        let full = address.map(Address::full).unwrap_or_default();
        let script = format!(
            "place=$1 full=$2 device=$3; shift 3\n( {DETACHED} ) || exit\n[ -z \"$place\" ] || ip addr del \"$full\" dev \"$device\""
        );
        let pid = pid.to_string();
        let mut arguments = vec![place, full.as_str(), device, self.criu, self.folder.as_str(), "dump"];
        arguments.extend(["dump", "-t", &pid, "-D", &self.folder, "-o", "dump.log", "-v2"]);
        arguments.extend(flags);
        let finished = self.shell.try_script(&script, &arguments, None).await?;
        if finished.code == Some(0) { Ok(()) } else { Err(self.complaint("dump", "dump.log").await) }
    }

    /// Makes the process of its images. When it is there the guard goes. When it is not, the guard stays until the address has
    /// gone: without it the kernel would reset the connections.
    pub(super) async fn restore(&self, flags: &[&str]) -> Result<(), StepError> {
        let script = format!("guard=$1; shift; ( {DETACHED} ); code=$?; [ $code != 0 ] || {{ {UNGUARD}; }}; exit $code");
        let mut arguments = vec![self.guard.as_str(), self.criu, self.folder.as_str(), "restore"];
        arguments.extend(["restore", "-D", &self.folder, "-o", "restore.log", "-v2", "-d"]);
        arguments.extend(flags);
        let finished = self.shell.try_script(&script, &arguments, None).await?;
        if finished.code == Some(0) { Ok(()) } else { Err(self.complaint("restore", "restore.log").await) }
    }

    /// What CRIU's log says, for its own end says nothing.
    pub(super) async fn complaint(&self, doing: &str, log: &str) -> StepError {
        let said = self.shell.try_script(COMPLAINTS, &[&format!("{}/{log}", self.folder)], None).await;
        let said = said.map(|finished| String::from_utf8_lossy(&finished.stdout).trim().to_owned()).unwrap_or_default();
        let said = said.lines().collect::<Vec<_>>().join("; ");
        let said = if said.is_empty() { "its log names no error" } else { &said };
        StepError::transient(format!("CRIU cannot {doing} the process on `{}`: {said}", self.host()))
            .help("the message names what CRIU does not take along: close it, or give CRIU the option for it with `options`")
    }

    /// Ends a process that was made of the images and is not to be.
    pub(super) async fn kill(&self, pid: u32, sum: &str) -> Result<(), StepError> {
        let script = r#"[ "$(cksum </proc/"$1"/cmdline 2>/dev/null)" != "$2" ] || kill -s KILL -- "$1"; exit 0"#;
        self.shell.script("end the half-made process", script, &[&pid.to_string(), sum]).await.map(drop)
    }

    /// Facts as `name value` lines of a script.
    pub(in crate::steps) async fn facts(
        &self,
        doing: &str,
        script: &str,
        arguments: &[&str],
    ) -> Result<BTreeMap<String, String>, StepError> {
        let said = self.shell.script(doing, script, arguments).await?;
        Ok(said
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect())
    }
}
