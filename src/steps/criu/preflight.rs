//! What has to be so before a process is frozen: CRIU on both hosts, the files that it uses, room, and free numbers.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::mode::Mode;
use super::site::Site;
use crate::error::StepError;
use crate::units::ByteSize;

/// `$1` criu, `$2` where images go, `$3` the features that are asked for. Pipes longer than 3.2 MiB, which CRIU keeps pages in, are
/// for those who may pass the limits, or below a limit that is higher. `/dev/shm` may be mounted so that no program there runs.
const HOST: &str = r#"echo kernel $(uname -r); echo machine $(uname -m); echo version $("$1" --version 2>/dev/null | sed -n 's/^Version: //p')
said=$("$1" check 2>&1) && echo check ok || echo check $(printf '%s' "$said" | grep -m1 Error || printf '%s' "$said" | tail -n 1)
command -v nft >/dev/null && echo nft yes; command -v setsid >/dev/null && echo setsid yes
free=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo); echo memory $((free * 1024))
for f in $3; do if "$1" check --feature "$f" >/dev/null 2>&1; then echo "has-$f" yes; fi; done; command -v perl >/dev/null && echo perl yes
caps=$(sed -n 's/^CapEff:[^0-9a-f]*//p' /proc/self/status); if [ $(( (0x$caps >> 24) & 1 )) = 1 ] || [ "$(cat /proc/sys/fs/pipe-max-size)" -ge 3354624 ]; then echo pipes yes; fi
d=$2; until [ -d "$d" ]; do d=${d%/*}; d=${d:-/}; done; m=$(df -P "$d" | awk 'END { print $NF }'); case ",$(awk -v m="$m" '$2 == m { o = $4 } END { print o }' /proc/mounts)," in *,noexec,*) ;; *) echo exec yes;; esac
echo room $(( $(df -Pk "$d" | tail -n 1 | awk '{ print $4 }') * 1024 ))"#;

/// `$1` the process. Its tree, its memory, and the files that it uses with their sizes.
const PROCESS: &str = r#"[ -d "/proc/$1" ] || exit 4; all=$1; next=$1
while [ -n "$next" ]; do more=; for p in $next; do more="$more $(cat /proc/"$p"/task/*/children 2>/dev/null)"; done; next=$(echo $more); all="$all $next"; done
echo sum $(cksum </proc/"$1"/cmdline); echo command $(tr '\0' ' ' </proc/"$1"/cmdline); echo pids $(echo $all | tr ' ' '\n' | sort -n -u)
kb=0; for p in $all; do n=$(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' /proc/"$p"/status 2>/dev/null); kb=$((kb + ${n:-0})); done; echo memory $((kb * 1024))
for p in $all; do readlink "/proc/$p/exe"; readlink "/proc/$p/cwd"; sed -n 's/^[0-9a-f]*-[0-9a-f]* [^ ]* [^ ]* [^ ]* [0-9]* *\(\/.*\)/\1/p' "/proc/$p/maps"
  for f in /proc/"$p"/fd/*; do readlink "$f"; done; done 2>/dev/null | grep '^/' | grep -v -e '^/dev/' -e '^/proc/' -e '^/sys/' -e ' (deleted)$' -e '^/memfd:' | sort -u |
  while read -r f; do if [ -d "$f" ]; then echo "file - $f"; else echo "file $(stat -c %s "$f" 2>/dev/null || echo gone) $f"; fi; done; exit 0"#;

/// What is read from input: `size name` of each file, `-` for a folder. Says those that are missing or different.
const FILES: &str = r#"while read -r size name; do
  if [ "$size" = - ]; then [ -d "$name" ] || echo "the folder $name is missing"; elif [ ! -e "$name" ]; then echo "$name is missing"
  elif [ "$(stat -c %s "$name")" != "$size" ]; then echo "$name is another file"; fi; done; for p in $1; do [ ! -e "/proc/$p" ] || echo "process number $p is taken"; done; exit 0"#;

/// The process as it was at the source before anything was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Of its command line: by it the process is known on either host.
    pub sum: String,
    /// Its command line.
    pub command: String,
    /// All processes of its tree.
    pub pids: Vec<u32>,
    /// What they hold in memory.
    pub memory: ByteSize,
}

/// A host for which all is well, and what is worth knowing of it.
pub(in crate::steps) struct Fit {
    version: String,
    kernel: String,
    machine: String,
    pub memory: u64,
    pub room: u64,
}

/// What is asked of both hosts.
pub(in crate::steps) struct Needs<'a> {
    /// Where images go.
    pub images: &'a str,
    /// Whether an address goes along.
    pub guard: bool,
    pub mode: Mode,
}

/// Looks at a host, and says why it is not fit.
pub(in crate::steps) async fn host(site: &Site<'_>, needs: &Needs<'_>) -> Result<Fit, StepError> {
    let Needs { images, mode, .. } = *needs;
    let features: Vec<&str> = mode.features().iter().map(|(name, _)| *name).collect();
    let facts = site.facts("look at the host", HOST, &[site.criu, images, &features.join(" ")]).await?;
    let fact = |name: &str| facts.get(name).map_or("", String::as_str);
    let no = |what: String, help: &str| Err(StepError::permanent(format!("host `{}` {what}", site.host())).help(help.to_owned()));
    if fact("version").is_empty() {
        return no(format!("has no `{}`", site.criu), "install CRIU there, or say where it is with `criu`");
    }
    if fact("check") != "ok" {
        let what = format!("has CRIU {}, which does not work with its kernel: {}", fact("version"), fact("check"));
        return no(what, "run `criu check` there as root; newer kernels need a newer CRIU");
    }
    if needs.guard && fact("nft").is_empty() {
        return no(
            "has no `nft`".to_owned(),
            "install it (Debian: `nftables`): connections are held by it while nobody can answer",
        );
    }
    if fact("setsid").is_empty() {
        return no("has no `setsid`".to_owned(), "install it (Debian: `util-linux`)");
    }
    for (feature, what) in mode.features() {
        if fact(&format!("has-{feature}")).is_empty() {
            let what = format!("cannot do `{}`: its kernel has no {what}", mode.name());
            return no(what, "take another mode, or a kernel that `criu check --feature` is content with");
        }
    }
    if matches!(mode, Mode::PreCopy | Mode::Hybrid) {
        return no(format!("could do `{}`, but ferry cannot yet", mode.name()), "take `checkpoint` or `post-copy`");
    }
    let no_programs = format!("runs no programs that lie in `{images}`");
    let is_lazy = mode == Mode::PostCopy;
    for (is_needed, name, what, help) in [
        (site.at.is_some(), "perl", "has no `perl`", "install it: it watches over the memory while it is on its way"),
        (is_lazy, "pipes", "lets CRIU have no pipes as long as it needs them", "run `sysctl -w fs.pipe-max-size=4194304` there"),
        (is_lazy, "exec", no_programs.as_str(), "take another folder for `images`, in memory too"),
    ] {
        if is_needed && fact(name).is_empty() {
            return no(what.to_owned(), help);
        }
    }
    let number = |name: &str| fact(name).parse().unwrap_or(0);
    let (kernel, machine) = (fact("kernel").to_owned(), fact("machine").to_owned());
    let version = fact("version").to_owned();
    Ok(Fit { version, kernel, machine, memory: number("memory"), room: number("room") })
}

/// The process as it is, and the files that it uses with their sizes, a line each.
pub(super) async fn process(at: &Site<'_>, pid: u32) -> Result<(Process, String), StepError> {
    let finished = at.shell.try_script(PROCESS, &[&pid.to_string()], None).await?;
    if finished.code == Some(4) {
        return Err(StepError::permanent(format!("there is no process {pid} on `{}`", at.host()))
            .help("correct `process`; a file with its number may be old"));
    }
    at.shell.succeeded("look at the process", &finished)?;
    let said = String::from_utf8_lossy(&finished.stdout).into_owned();
    let fact = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or_default();
    let pids: BTreeSet<u32> = fact("pids").split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let memory = fact("memory").parse().unwrap_or(0);
    let process = Process {
        pid,
        sum: fact("sum").to_owned(),
        command: fact("command").trim().to_owned(),
        pids: pids.into_iter().collect(),
        memory: ByteSize(memory),
    };
    let files: String = said.lines().filter_map(|line| line.strip_prefix("file ")).flat_map(|line| [line, "\n"]).collect();
    Ok((process, files))
}

/// Whether a host has those files, and the numbers of the process free.
pub(super) async fn can_take(to: &Site<'_>, process: &Process, files: String) -> Result<(), StepError> {
    let numbers: Vec<String> = process.pids.iter().map(u32::to_string).collect();
    let found = to.shell.try_script(FILES, &[&numbers.join(" ")], Some(crate::secret::Text::new(files))).await?;
    to.shell.succeeded("look for the files of the process", &found)?;
    let wrong = String::from_utf8_lossy(&found.stdout).into_owned();
    if !wrong.is_empty() {
        let first: Vec<&str> = wrong.lines().take(3).collect();
        let more = wrong.lines().count().saturating_sub(first.len());
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        return Err(StepError::permanent(format!("`{}` cannot take the process: {}{more}", to.host(), first.join(", "))).help(
            "the same programs and files have to be there, and the process numbers free: copy them first (`object.sync`)",
        ));
    }
    Ok(())
}

/// Looks at both hosts and the process, and gives warnings with it.
pub(super) async fn look(
    from: &Site<'_>,
    to: &Site<'_>,
    pid: u32,
    needs: &Needs<'_>,
) -> Result<(Process, Vec<String>), StepError> {
    let (here, there) = tokio::try_join!(host(from, needs), host(to, needs))?;
    let (process, files) = process(from, pid).await?;
    let warnings = alike([from, to], [&here, &there])?;
    if needs.mode == Mode::PostCopy && !speak_alike(&here.version, &there.version) {
        return Err(StepError::permanent(format!(
            "CRIU {} on `{}` and {} on `{}` do not send pages to each other",
            here.version,
            from.host(),
            there.version,
            to.host()
        ))
        .help("install the same CRIU on both, 4.2 or newer, or take `mode: checkpoint`"));
    }
    can_take(to, &process, files).await?;
    has_room([from, to], [&here, &there], process.memory, needs)?;
    Ok((process, warnings))
}

/// Whether what runs on one can run on the other; warnings about what differs.
pub(in crate::steps) fn alike([from, to]: [&Site<'_>; 2], [here, there]: [&Fit; 2]) -> Result<Vec<String>, StepError> {
    if here.machine != there.machine {
        return Err(StepError::permanent(format!(
            "`{}` is a {} and `{}` a {}: memory cannot go from one to the other",
            from.host(),
            here.machine,
            to.host(),
            there.machine
        ))
        .help("take a target of the same machine type"));
    }
    let mut warnings = Vec::new();
    if here.kernel != there.kernel {
        warnings.push(format!("the kernels differ: {} here, {} there", here.kernel, there.kernel));
    }
    Ok(warnings)
}

/// Whether both have room for images of so much memory.
pub(in crate::steps) fn has_room(
    [from, to]: [&Site<'_>; 2],
    [here, there]: [&Fit; 2],
    size: ByteSize,
    needs: &Needs<'_>,
) -> Result<(), StepError> {
    let memory = size.0;
    for (site, fit, images_only) in [(from, here, true), (to, there, false)] {
        // Where images lie in memory, image and process are there side by side for a moment.
        // Where it follows, the frozen one is its own image.
        let (image, needed) = match (needs.mode, images_only) {
            (Mode::PostCopy, true) => (0, 0),
            (Mode::PostCopy, false) => (0, memory),
            (_, true) => (memory, memory),
            (_, false) => (memory, memory * 2),
        };
        if fit.room < image || fit.memory < needed {
            return Err(StepError::needs_person(format!(
                "`{}` has no room for {size}: {} free in `{}`, {} of memory",
                site.host(),
                ByteSize(fit.room),
                needs.images,
                ByteSize(fit.memory)
            ))
            .help("make room there, or take another folder for `images`"));
        }
    }
    Ok(())
}

/// Whether two versions of CRIU speak the same to each other about pages: with 4.2 it became another language.
fn speak_alike(here: &str, there: &str) -> bool {
    let is_new = |version: &str| {
        let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (4, 2)
    };
    is_new(here) && is_new(there)
}
