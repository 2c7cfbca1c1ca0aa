//! Podman on one host: a container looked for, checkpointed into memory, restored, removed.
//!
//! Podman writes images below the container's own folder, on a disk, and once more into an archive. Here its place for images
//! is a link to a folder in memory: they are written there and nowhere else, and the archive that goes beside them is small.

use super::super::address::{Address, UNGUARD};
use super::super::criu::site::{DETACHED, Site};
use crate::error::StepError;
use crate::units::ByteSize;

/// One of the two hosts.
pub(super) struct Place<'a> {
    pub site: Site<'a>,
    /// The program.
    pub podman: &'a str,
}

/// What there is of the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Whether it is known there.
    pub exists: bool,
    /// Whether it runs there.
    pub runs: bool,
    /// Whether it was checkpointed there, and all of it is in memory.
    pub is_dumped: bool,
}

/// `$1` the folder, `$2` podman, `$3` the container. Waits for a podman that is at work.
const FIND: &str = r#"d=$1; i=0; while n=$(cat "$d/busy" 2>/dev/null) && kill -0 "$n" 2>/dev/null; do i=$((i+1)); [ $i -lt 1200 ] || exit 8; sleep 0.05; done
"$2" container exists "$3"; case $? in 0) echo exists;; 1) ;; *) exit 7;; esac
case "$("$2" inspect --type container --format '{{.State.Status}}' "$3" 2>/dev/null)" in running | paused) echo runs;; esac
if [ "$(cat "$d/dump" 2>/dev/null)" = 0 ] && [ -s "$d/inventory.img" ] && [ -s "$d/container.tar" ]; then echo dumped; fi"#;

/// Runtimes start the `criu` of their path and say nothing of how connections are to be locked: both is said by a program in
/// front of it. In shell: `$d` the folder, `$criu` the program.
const PREPARE: &str = r#"real=$(command -v "$criu") || { echo "there is no $criu" >&2; exit 5; }
mkdir -p "$d/bin" "$d/.criu" && echo 'network-lock nftables' >"$d/.criu/default.conf" && : >"$d/said" &&
printf '#!/bin/sh\nHOME="%s" exec "%s" "$@"\n' "$d" "$real" >"$d/bin/criu" && chmod 755 "$d/bin/criu" || exit"#;

/// Podman's place for images of the container becomes the folder in memory. In shell: `$podman`, `$id` the container, `$d`.
const LINK: &str = r#"own=$("$podman" inspect --type container --format '{{.StaticDir}}' "$id") && [ -n "$own" ] || exit
rm -rf -- "$own/checkpoint" && ln -s "$d" "$own/checkpoint" || exit"#;

/// A checkpoint in a file, which has its name when it is whole. In shell: what `PREPARE` has, `$id`, `$file`, `$@` options.
const SAVE: &str = r#"own=$("$podman" inspect --type container --format '{{.StaticDir}}' "$id") && [ -n "$own" ] && rm -rf -- "$own/checkpoint" || exit
set -- sh "$d" dump -c 'bin=$1 podman=$2 file=$3 id=$4; shift 4
PATH=$bin:$PATH "$podman" container checkpoint --export "$file.part" --compress none "$@" "$id" && mv -- "$file.part" "$file"' save "$d/bin" "$podman" "$file" "$id" "$@""#;

/// What went wrong: what CRIU says in its log, else what podman says. `$1` the folder, `$2` podman, `$3` the container, `$4`
/// the name of the log.
const COMPLAINTS: &str = r#"own=$("$2" inspect --type container --format '{{.StaticDir}}' "$3" 2>/dev/null)
said=$(grep -h Error "$own/$4" 2>/dev/null | grep -v -e RLIMIT_NOFILE | sed 's/^([0-9. ]*) *[0-9]*: *//; s/Error ([^)]*): //' | tail -n 3)
[ -n "$said" ] || said=$(grep -v '^log file: ' "$1/said" 2>/dev/null | tail -n 3); printf '%s\n' "$said""#;

/// Podman, on the path.
pub(super) fn podman() -> String {
    "podman".to_owned()
}

impl Place<'_> {
    pub(super) fn host(&self) -> &str {
        self.site.host()
    }

    pub(super) async fn find(&self, id: &str) -> Result<Found, StepError> {
        let finished = self.site.shell.try_script(FIND, &[&self.site.folder, self.podman, id], None).await?;
        if finished.code == Some(8) {
            return Err(StepError::transient(format!("podman has been at work on `{}` for a minute", self.host()))
                .help("look there what it waits for; the step is tried again as `retry` says"));
        }
        self.site.shell.succeeded("look for the container", &finished)?;
        let said = String::from_utf8_lossy(&finished.stdout).into_owned();
        let has = |word: &str| said.lines().any(|line| line == word);
        Ok(Found { exists: has("exists"), runs: has("runs"), is_dumped: has("dumped") })
    }

    /// Makes room for a checkpoint of the container, in memory.
    pub(super) async fn prepare(&self, id: &str) -> Result<(), StepError> {
        self.site.make_folder().await?;
        let script = format!("podman=$1 criu=$2 d=$3 id=$4\n{PREPARE}\n{LINK}");
        let arguments = [self.podman, self.site.criu, &self.site.folder, id];
        self.site.shell.script("prepare the container's checkpoint", &script, &arguments).await.map(drop)
    }

    /// Checkpoints the container, whose processes are gone then, and takes its address away.
    pub(super) async fn dump(&self, id: &str, flags: &[&str], address: Option<&Address>) -> Result<(), StepError> {
        let (place, device) = address.map_or(("", ""), |address| ("yes", address.device(self.site.is_target)));
        let full = address.map(Address::full).unwrap_or_default();
        let script = format!(
            "place=$1 full=$2 device=$3 podman=$4 d=$5 id=$6; shift 6\n\
             set -- env \"$d\" dump \"PATH=$d/bin:$PATH\" \"$podman\" container checkpoint --export \"$d/container.tar\" --compress none \"$@\" \"$id\"\n\
             ( {DETACHED} ) || exit\n[ -z \"$place\" ] || ip addr del \"$full\" dev \"$device\""
        );
        let mut arguments = vec![place, full.as_str(), device, self.podman, self.site.folder.as_str(), id];
        arguments.extend(flags);
        let finished = self.site.shell.try_script(&script, &arguments, None).await?;
        if finished.code == Some(0) { Ok(()) } else { Err(self.complaint("checkpoint", id, "dump.log").await) }
    }

    /// Makes the container of what was brought here. When it runs the guard goes.
    pub(super) async fn restore(&self, id: &str, flags: &[&str]) -> Result<(), StepError> {
        self.make(id, flags, "set -- --import \"$d/container.tar\" \"$@\"").await
    }

    /// Lets the container run again where it was checkpointed.
    pub(super) async fn restore_here(&self, id: &str, flags: &[&str]) -> Result<(), StepError> {
        self.make(id, flags, &format!("{LINK}\nset -- \"$@\" \"$id\"")).await
    }

    /// Lets the container run again of what podman itself has kept of it.
    pub(super) async fn wake(&self, id: &str, flags: &[&str]) -> Result<(), StepError> {
        self.make(id, flags, "set -- \"$@\" \"$id\"").await
    }

    /// Makes a container of a file.
    pub(super) async fn load(&self, name: &str, file: &str, flags: &[&str]) -> Result<(), StepError> {
        self.site.make_folder().await?;
        self.make(name, &[&[file][..], flags].concat(), "file=$1; shift; set -- --import \"$file\" \"$@\"").await
    }

    /// Checkpoints the container into a file, whose size it gives. When that fails, it runs on.
    pub(super) async fn save(&self, id: &str, file: &str, flags: &[&str]) -> Result<ByteSize, StepError> {
        self.site.make_folder().await?;
        let script = format!("podman=$1 criu=$2 d=$3 id=$4 file=$5; shift 5\n{PREPARE}\n{SAVE}\n( {DETACHED} )");
        let mut arguments = vec![self.podman, self.site.criu, self.site.folder.as_str(), id, file];
        arguments.extend(flags);
        let finished = self.site.shell.try_script(&script, &arguments, None).await?;
        if finished.code != Some(0) {
            let error = self.complaint("checkpoint", id, "dump.log").await;
            if !self.find(id).await?.runs {
                self.wake(id, &[]).await?;
            }
            return Err(error);
        }
        self.size(file).await?.ok_or_else(|| StepError::transient(format!("podman has left no `{file}` on `{}`", self.host())))
    }

    /// How large a file is, if it is there.
    pub(super) async fn size(&self, file: &str) -> Result<Option<ByteSize>, StepError> {
        let finished = self.site.shell.try_script(r#"[ -e "$1" ] || exit 44; stat -c %s "$1""#, &[file], None).await?;
        if finished.code == Some(44) {
            return Ok(None);
        }
        self.site.shell.succeeded(&format!("look at `{file}`"), &finished)?;
        Ok(Some(ByteSize(String::from_utf8_lossy(&finished.stdout).trim().parse().unwrap_or(0))))
    }

    /// Removes a file and what a podman that died has left of it.
    pub(super) async fn delete(&self, file: &str) -> Result<(), StepError> {
        self.site.shell.script("remove the checkpoint", r#"rm -f -- "$1" "$1.part""#, &[file]).await.map(drop)
    }

    async fn make(&self, id: &str, flags: &[&str], what: &str) -> Result<(), StepError> {
        let script = format!(
            "guard=$1 podman=$2 criu=$3 d=$4 id=$5; shift 5\n{PREPARE}\n{what}\n\
             set -- env \"$d\" restore \"PATH=$d/bin:$PATH\" \"$podman\" container restore \"$@\"\n\
             ( {DETACHED} ); code=$?; [ $code != 0 ] || {{ {UNGUARD}; }}; exit $code"
        );
        let site = &self.site;
        let mut arguments = vec![site.guard.as_str(), self.podman, site.criu, site.folder.as_str(), id];
        arguments.extend(flags);
        let finished = site.shell.try_script(&script, &arguments, None).await?;
        if finished.code == Some(0) { Ok(()) } else { Err(self.complaint("restore", id, "restore.log").await) }
    }

    async fn complaint(&self, doing: &str, id: &str, log: &str) -> StepError {
        let said = self.site.shell.try_script(COMPLAINTS, &[&self.site.folder, self.podman, id, log], None).await;
        let said = said.map(|finished| String::from_utf8_lossy(&finished.stdout).trim().to_owned()).unwrap_or_default();
        let said = said.lines().collect::<Vec<_>>().join("; ");
        let said = if said.is_empty() { "neither podman nor CRIU says why" } else { &said };
        StepError::transient(format!("podman cannot {doing} the container on `{}`: {said}", self.host()))
            .help("the message names what CRIU does not take along: close it, or give podman the option for it with `options`")
    }

    /// Removes what there is of the container here; none is no error. Volumes that have a name stay.
    pub(super) async fn remove(&self, id: &str) -> Result<(), StepError> {
        let script =
            r#""$1" container exists "$2"; case $? in 0) "$1" rm --force --time 0 "$2" >/dev/null;; 1) ;; *) exit 7;; esac"#;
        self.site.shell.script("remove the container", script, &[self.podman, id]).await.map(drop)
    }
}
