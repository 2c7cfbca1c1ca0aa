//! What has to be so before a container is frozen: CRIU and podman on both hosts, its image, its mounts, a free name, room.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::criu::mode::Mode;
use super::super::criu::preflight::{Needs, alike, has_room, host};
use super::place::Place;
use crate::error::StepError;
use crate::secret::Text;
use crate::units::ByteSize;

/// `$1` podman, `$2` the container's runtime.
const RUNTIME: &str = r#"podman=$("$1" --version 2>/dev/null) || exit 0; echo podman ${podman##* }; echo cgroups $("$1" info --format '{{.Host.CgroupsVersion}}')
said=$("$2" --version 2>/dev/null) || exit 0; echo runtime $(printf '%s' "$said" | head -n 1)
case "$said" in crun*) case "$said" in *+CRIU*) echo criu yes;; esac;; *) echo criu yes;; esac"#;

/// `$1` its first process. What all below it hold in memory.
const MEMORY: &str = r#"all=$1; next=$1
while [ -n "$next" ]; do more=; for p in $next; do more="$more $(cat /proc/"$p"/task/*/children 2>/dev/null)"; done; next=$(echo $more); all="$all $next"; done
kb=0; for p in $all; do n=$(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' /proc/"$p"/status 2>/dev/null); kb=$((kb + ${n:-0})); done; echo $((kb * 1024))"#;

/// `$1` podman, `$2` and `$3` the image's name and number, `$4` and `$5` those of the container. Of input: what is mounted. Says
/// what is in the way.
const TARGET: &str = r#"i=$("$1" image inspect --format '{{.Id}}' "$2" 2>/dev/null); i=${i#sha256:}
if [ -z "$i" ]; then echo "the image $2 is missing"; elif [ "$i" != "$3" ]; then echo "$2 is another image"; fi
for name in "$4" ${5:+"$5"}; do "$1" container exists "$name" && { echo "there is a container $4 already"; break; }; done
while read -r f; do [ -e "$f" ] || echo "$f, which is mounted, is missing"; done; exit 0"#;

/// The container as it was at the source before anything was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its number: by it, it is known on either host.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The name of its image.
    pub image: String,
    /// What its processes hold in memory.
    pub memory: ByteSize,
}

/// What podman says of a container, as far as it is asked here.
struct Facts(Value);

impl Facts {
    fn text(&self, pointer: &str) -> &str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    fn list(&self, pointer: &str) -> impl Iterator<Item = &Value> {
        self.0.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
    }

    /// The folders and files of the host that are mounted, a line each.
    fn mounted(&self) -> String {
        let mounted = self.list("/Mounts").filter_map(|mount| mount.get("Source").and_then(Value::as_str));
        mounted.flat_map(|source| [source, "\n"]).collect()
    }

    /// Why this one cannot go, if it cannot, and what can be done about it.
    fn obstacle(&self, name: &str, has_address: bool) -> Option<(String, &'static str)> {
        let status = self.text("/State/Status");
        if status != "running" {
            return Some((format!("container `{name}` is {status}"), "start it; one that does not run has no memory to move"));
        }
        if !self.text("/Pod").is_empty() || self.list("/Dependencies").next().is_some() {
            return Some((
                format!("container `{name}` shares namespaces with others"),
                "podman takes no checkpoint of members of a pod out of their host: run it by itself",
            ));
        }
        if self.0.pointer("/HostConfig/AutoRemove").and_then(Value::as_bool) == Some(true) {
            return Some((
                format!("container `{name}` was started with `--rm`"),
                "it would be gone with its checkpoint, and could not run again where it was: start it without",
            ));
        }
        let volume = self.list("/Mounts").find(|mount| mount.get("Type").and_then(Value::as_str) == Some("volume"));
        if let Some(volume) = volume {
            let volume = volume.get("Name").and_then(Value::as_str).unwrap_or_default();
            return Some((
                format!("container `{name}` has the volume `{volume}`, whose content does not go along"),
                "mount a folder that both hosts have in its place",
            ));
        }
        let network = self.text("/HostConfig/NetworkMode");
        (has_address && network != "host").then(|| {
            (
                format!("container `{name}` is in the network `{network}`, and its connections do not go to the address itself"),
                "run it with `--network host`, or leave `address` out and move it by `address.move`: connections then break",
            )
        })
    }
}

/// Whether podman is there.
async fn has_podman(place: &Place<'_>) -> Result<(), StepError> {
    let finished = place.site.shell.try_script(r#"command -v "$1" >/dev/null"#, &[place.podman], None).await?;
    if finished.code == Some(0) {
        return Ok(());
    }
    Err(StepError::permanent(format!("host `{}` has no `{}`", place.host(), place.podman))
        .help("install it (Debian: `podman`), or say where it is with `podman`"))
}

/// The versions of podman, of the runtime of the container and of cgroups on one host.
async fn runtime(place: &Place<'_>, runtime: &str) -> Result<[String; 3], StepError> {
    let facts = place.site.facts("look for podman", RUNTIME, &[place.podman, runtime]).await?;
    let fact = |name: &str| facts.get(name).map_or("", String::as_str);
    let no =
        |what: String, help: &str| Err(StepError::permanent(format!("host `{}` {what}", place.host())).help(help.to_owned()));
    if fact("runtime").is_empty() {
        return no(format!("has no `{runtime}`, which runs the container"), "install the same runtime on both hosts");
    }
    if fact("criu").is_empty() {
        return no(
            format!("has {}, which is built without CRIU", fact("runtime")),
            "create the container anew with another runtime: `podman --runtime runc run …`",
        );
    }
    Ok(["podman", "runtime", "cgroups"].map(|name| fact(name).to_owned()))
}

/// What is asked of CRIU. Runtimes lock connections always, and so by nftables.
fn needs(images: &str) -> Needs<'_> {
    Needs { images, guard: true, mode: Mode::Checkpoint }
}

/// A container that can be checkpointed, and what podman says of it.
async fn known(place: &Place<'_>, name: &str, has_address: bool) -> Result<(Container, Facts), StepError> {
    let shell = &place.site.shell;
    let script = r#""$1" container exists "$2" || { [ $? != 1 ] || exit 44; exit 45; }; "$1" inspect --type container "$2""#;
    let finished = shell.try_script(script, &[place.podman, name], None).await?;
    if finished.code == Some(44) {
        return Err(StepError::permanent(format!("there is no container `{name}` on `{}`", place.host()))
            .help("correct `container`; `podman ps --all` there lists them, for each user their own"));
    }
    shell.succeeded("look at the container", &finished)?;
    let said: Value = serde_json::from_slice(&finished.stdout)
        .map_err(|error| StepError::permanent(format!("podman on `{}` says no JSON", place.host())).cause(error))?;
    let facts = Facts(said.get(0).cloned().unwrap_or_default());
    if let Some((what, help)) = facts.obstacle(name, has_address) {
        return Err(StepError::permanent(format!("{what} on `{}`", place.host())).help(help));
    }
    let pid = facts.0.pointer("/State/Pid").and_then(Value::as_u64).unwrap_or_default();
    let memory = shell.script("look at the container's memory", MEMORY, &[&pid.to_string()]).await?;
    let container = Container {
        id: facts.text("/Id").to_owned(),
        name: facts.text("/Name").to_owned(),
        image: facts.text("/ImageName").to_owned(),
        memory: ByteSize(memory.parse().unwrap_or(0)),
    };
    Ok((container, facts))
}

/// Looks at both hosts and the container, and gives warnings with it.
pub(super) async fn look(
    from: &Place<'_>,
    to: &Place<'_>,
    name: &str,
    images: &str,
    has_address: bool,
) -> Result<(Container, Vec<String>), StepError> {
    tokio::try_join!(has_podman(from), has_podman(to))?;
    let (needs, sites) = (needs(images), [&from.site, &to.site]);
    let (here, there) = tokio::try_join!(host(&from.site, &needs), host(&to.site, &needs))?;
    let (container, facts) = known(from, name, has_address).await?;
    let program = facts.text("/OCIRuntime");
    let (ours, theirs) = (runtime(from, program).await?, runtime(to, program).await?);
    if ours[2] != theirs[2] {
        return Err(StepError::permanent(format!(
            "`{}` has cgroups {} and `{}` {}: a container does not go from one to the other",
            from.host(),
            ours[2],
            to.host(),
            theirs[2]
        ))
        .help("take a target with the same version of cgroups"));
    }
    is_free(to, &container, facts.text("/Image"), &facts.mounted()).await?;
    let mut warnings = alike(sites, [&here, &there])?;
    has_room(sites, [&here, &there], container.memory, &needs)?;
    for (ours, theirs) in ours.iter().zip(&theirs).filter(|(ours, theirs)| ours != theirs) {
        warnings.push(format!("podman or its runtime differ: {ours} here, {theirs} there"));
    }
    Ok((container, warnings))
}

/// Looks at a container that is to be checkpointed where it is.
pub(super) async fn alone(place: &Place<'_>, name: &str) -> Result<Container, StepError> {
    has_podman(place).await?;
    host(&place.site, &needs("/dev/shm")).await?;
    let (container, facts) = known(place, name, false).await?;
    runtime(place, facts.text("/OCIRuntime")).await?;
    Ok(container)
}

/// Looks at a container in a file, and whether it can be restored here, under this name if one is given.
pub(super) async fn saved(place: &Place<'_>, file: &str, name: Option<&str>) -> Result<Container, StepError> {
    let Some(size) = place.size(file).await? else {
        return Err(StepError::permanent(format!("there is no `{file}` on `{}`", place.host())).help("correct `file`"));
    };
    has_podman(place).await?;
    host(&place.site, &needs("/dev/shm")).await?;
    let said = place.site.shell.script("read the checkpoint", r#"tar -xOf "$1" config.dump"#, &[file]).await?;
    let facts: Value = serde_json::from_str(&said).map_err(|error| {
        StepError::permanent(format!("`{file}` on `{}` is no checkpoint of podman", place.host())).cause(error)
    })?;
    let facts = Facts(facts);
    let container = Container {
        // Under another name it gets another number.
        id: if name.is_some() { String::new() } else { facts.text("/id").to_owned() },
        name: name.unwrap_or(facts.text("/name")).to_owned(),
        image: facts.text("/rootfsImageName").to_owned(),
        memory: size,
    };
    runtime(place, facts.text("/runtime")).await?;
    is_free(place, &container, facts.text("/rootfsImageID"), "").await?;
    Ok(container)
}

/// Whether the target has what the container needs, and nothing in its place. `mounted` has a line for each mount.
async fn is_free(to: &Place<'_>, container: &Container, image: &str, mounted: &str) -> Result<(), StepError> {
    let arguments = [to.podman, &container.image, image, &container.name, &container.id];
    let finished = to.site.shell.try_script(TARGET, &arguments, Some(Text::new(mounted))).await?;
    to.site.shell.succeeded("look for what the container needs", &finished)?;
    let wrong = String::from_utf8_lossy(&finished.stdout).into_owned();
    if wrong.is_empty() {
        return Ok(());
    }
    let first: Vec<&str> = wrong.lines().take(3).collect();
    let (host, image) = (to.host(), &container.image);
    Err(StepError::permanent(format!("`{host}` cannot take the container: {}", first.join(", "))).help(format!(
        "the same image and mounts have to be there, and the name free; an image goes by `podman save {image} | ssh … podman load`"
    )))
}
