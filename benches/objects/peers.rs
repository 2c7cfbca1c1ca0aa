//! The tools that are measured, each with the command line that serves it best.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::jobs::{Ends, Job};
use super::place::{Place, REGION};

/// A tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Tool {
    /// This repository's.
    Ferry,
    /// Between two remotes.
    Rclone,
    /// The Rust tool on crates.io.
    S3sync,
    /// Down to a directory, then up: it knows one endpoint at a time.
    S5cmd,
    /// Python, one object after the other.
    Boto3,
}

/// A tool with flags.
#[derive(Debug, Clone)]
pub struct Entrant {
    /// The tool.
    pub tool: Tool,
    /// What the table calls it.
    pub label: String,
    /// Flags of this one.
    pub flags: Vec<&'static str>,
    /// Of those with the same label only the fastest stays after the first round.
    pub is_variant: bool,
}

impl Tool {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Ferry, Self::Rclone, Self::S3sync, Self::S5cmd, Self::Boto3];

    fn name(self) -> &'static str {
        match self {
            Self::Ferry => "ferry",
            Self::Rclone => "rclone",
            Self::S3sync => "s3sync",
            Self::S5cmd => "s5cmd",
            Self::Boto3 => "boto3",
        }
    }

    fn program(self) -> PathBuf {
        match self {
            // Another build of it, to compare with.
            Self::Ferry => std::env::var_os("FERRY").map_or_else(|| env!("CARGO_BIN_EXE_ferry").into(), PathBuf::from),
            Self::Rclone => parts().join("venv/bin/rclone"),
            Self::S3sync => parts().join("bin/s3sync"),
            Self::S5cmd => parts().join("venv/bin/s5cmd"),
            Self::Boto3 => parts().join("venv/bin/python"),
        }
    }

    /// Which version it is; an error that says how to install it when it is not there.
    pub fn version(self) -> Result<String, String> {
        let arguments: &[&str] = match self {
            Self::S5cmd => &["version"],
            Self::Boto3 => &["-c", "import boto3; print('boto3', boto3.__version__)"],
            // Built without the crates that tell it.
            Self::S3sync => &["--help"],
            _ => &["--version"],
        };
        let output = Command::new(self.program()).args(arguments).output();
        match output {
            Ok(output) if output.status.success() => {
                if self == Self::S3sync {
                    return Ok(installed("s3sync").unwrap_or_else(|| "s3sync".to_owned()));
                }
                let line = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned();
                Ok(if line.contains(self.name()) { line } else { format!("{} {line}", self.name()) })
            }
            _ => Err(format!("{0} is missing: run `scripts/install-parts.sh {0}`, or choose others with --tool", self.name())),
        }
    }
}

/// Name and version of a crate that cargo has installed there, as cargo wrote it down: `"s3sync 1.62.4 (registry+…)" = …`.
fn installed(crate_name: &str) -> Option<String> {
    let text = std::fs::read_to_string(parts().join(".crates.toml")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix('"')?.strip_prefix(&format!("{crate_name} ")))?;
    Some(format!("{crate_name} {}", line.split(' ').next()?))
}

/// Where `scripts/install-parts.sh` puts programs.
pub fn parts() -> PathBuf {
    if let Some(parts) = std::env::var_os("FERRY_PARTS") {
        return parts.into();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache")).join("ferry/parts")
}

const RCLONE: &[&str] = &["--s3-no-check-bucket", "--s3-no-head", "--fast-list"];
const RCLONE_SMALL: &[&[&str]] = &[
    &["--transfers=64", "--checkers=64"],
    &["--transfers=64", "--checkers=64", "--s3-no-head-object", "--use-server-modtime"],
    &["--transfers=64", "--checkers=64", "--s3-no-head-object", "--use-server-modtime", "--s3-use-unsigned-payload=true"],
    &["--transfers=32", "--checkers=32", "--s3-no-head-object", "--use-server-modtime", "--s3-use-unsigned-payload=true"],
    &["--transfers=128", "--checkers=64", "--s3-no-head-object", "--use-server-modtime", "--s3-use-unsigned-payload=true"],
];
const RCLONE_LARGE: &[&[&str]] = &[
    &["--transfers=2", "--s3-upload-concurrency=8", "--s3-chunk-size=8M", "--multi-thread-streams=8"],
    &["--transfers=64", "--s3-upload-concurrency=8", "--s3-chunk-size=8M", "--multi-thread-streams=8", "--s3-disable-checksum"],
    &[
        "--transfers=2",
        "--s3-upload-concurrency=8",
        "--s3-chunk-size=8M",
        "--multi-thread-streams=8",
        "--s3-disable-checksum",
        "--s3-use-unsigned-payload=true",
    ],
    &[
        "--transfers=2",
        "--s3-upload-concurrency=16",
        "--s3-chunk-size=16M",
        "--multi-thread-streams=16",
        "--multi-thread-chunk-size=16M",
        "--s3-disable-checksum",
    ],
];
/// The last two give up that what arrives is checked.
const S3SYNC: &[&[&str]] = &[
    &["--worker-size=64", "--max-parallel-uploads=16"],
    &["--worker-size=128", "--max-parallel-uploads=32"],
    &["--worker-size=64", "--max-parallel-uploads=16", "--disable-payload-signing"],
    &[
        "--worker-size=64",
        "--max-parallel-uploads=16",
        "--disable-payload-signing",
        "--disable-content-md5-header",
        "--disable-etag-verify",
        "--disable-multipart-verify",
    ],
];
/// The flags under which rclone asks each object for its modification time, as it does by default, and two without.
const RCLONE_UNCHANGED: &[(&str, &[&str])] = &[
    ("rclone", &["--transfers=64", "--checkers=64"]),
    ("rclone --size-only", &["--transfers=64", "--checkers=64", "--size-only"]),
    ("rclone --checksum", &["--transfers=64", "--checkers=64", "--checksum"]),
];

/// Who takes part in a job.
pub fn entrants(job: &Job, tools: &[Tool]) -> Vec<Entrant> {
    let mut found = Vec::new();
    let mut add = |tool: Tool, label: &str, flags: &[&'static str], is_variant: bool| {
        found.push(Entrant { tool, label: label.to_owned(), flags: flags.to_vec(), is_variant });
    };
    for tool in tools {
        let is_azure = job.ends == Ends::GarageToAzure;
        match tool {
            Tool::S3sync | Tool::S5cmd | Tool::Boto3 if is_azure => {}
            Tool::Rclone if job.is_unchanged => {
                for (label, flags) in RCLONE_UNCHANGED {
                    add(*tool, label, flags, false);
                }
            }
            Tool::Rclone => {
                let variants = if job.is_large() { RCLONE_LARGE } else { RCLONE_SMALL };
                for flags in variants {
                    add(*tool, "rclone", flags, true);
                }
            }
            Tool::S3sync => {
                for flags in S3SYNC {
                    add(*tool, "s3sync", flags, true);
                }
            }
            Tool::S5cmd | Tool::Boto3 if job.is_unchanged => {}
            Tool::Boto3 if job.is_long_one_by_one() => {}
            Tool::Ferry | Tool::S5cmd | Tool::Boto3 => add(*tool, tool.name(), &[], false),
        }
    }
    found
}

/// The command that copies `from` to `to`. `scratch` is an empty folder.
pub fn command(entrant: &Entrant, is_large: bool, from: &Place, to: &Place, scratch: &Path) -> std::io::Result<Command> {
    let mut command = Command::new(entrant.tool.program());
    // Nothing of the person's own settings.
    command.env("HOME", scratch).env_remove("AWS_PROFILE").env("AWS_EC2_METADATA_DISABLED", "true");
    let keys = scratch.join("credentials");
    let profile = |name: &str, place: &Place| {
        format!("[{name}]\naws_access_key_id = {}\naws_secret_access_key = {}\n", place.id, place.secret)
    };
    std::fs::write(&keys, profile("old", from) + &profile("new", to))?;
    std::fs::write(scratch.join("config"), format!("[profile old]\nregion = {REGION}\n[profile new]\nregion = {REGION}\n"))?;
    command.env("AWS_SHARED_CREDENTIALS_FILE", &keys).env("AWS_CONFIG_FILE", scratch.join("config")).env("AWS_REGION", REGION);
    match entrant.tool {
        Tool::Ferry => {
            if to.is_azure {
                command.env("AZURE_STORAGE_KEY", &to.secret);
            }
            command.args(["sync", &url(from, "old"), &url(to, "new"), "--store"]).arg(scratch.join("journal"));
        }
        Tool::Rclone => {
            remote(&mut command, "OLD", from);
            remote(&mut command, "NEW", to);
            command.args(["sync", &format!("old:{}", from.bucket), &format!("new:{}", to.bucket), "--config", "/dev/null"]);
            command.args(RCLONE);
        }
        Tool::S3sync => {
            command.args([
                "--source-profile=old",
                "--target-profile=new",
                "--source-force-path-style",
                "--target-force-path-style",
            ]);
            command.args(["--source-endpoint-url", &from.endpoint, "--target-endpoint-url", &to.endpoint]);
            command.args(["--source-region", REGION, "--target-region", REGION, "--disable-tagging", "--show-no-progress"]);
            command.args([format!("s3://{}/", from.bucket), format!("s3://{}/", to.bucket)]);
        }
        Tool::S5cmd => {
            let program = Tool::S5cmd.program();
            let large = if is_large { "--concurrency 8 --part-size 8" } else { "" };
            let line = |endpoint: &str, profile: &str, from: &str, to: &str| {
                format!(
                    "{} --endpoint-url {endpoint} --credentials-file {} --profile {profile} --numworkers 64 cp {large} '{from}' '{to}'",
                    program.display(),
                    keys.display()
                )
            };
            let down = line(&from.endpoint, "old", &format!("s3://{}/*", from.bucket), "down/");
            let up = line(&to.endpoint, "new", "down/", &format!("s3://{}/", to.bucket));
            command = shell(&command, &format!("{down} && {up}"));
        }
        Tool::Boto3 => {
            command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/objects/serial.py"));
            command.args([&from.endpoint, &from.bucket, &to.endpoint, &to.bucket]);
        }
    }
    command.args(&entrant.flags);
    Ok(command)
}

/// A shell with the environment of another command.
fn shell(settings: &Command, line: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    command.envs(settings.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

fn url(place: &Place, profile: &str) -> String {
    if place.is_azure {
        return format!("azblob://{}/?endpoint={}&account_name={}", place.bucket, place.endpoint, place.id);
    }
    format!("s3://{}/?endpoint={}&region={REGION}&profile={profile}", place.bucket, place.endpoint)
}

fn remote(command: &mut Command, name: &str, place: &Place) {
    let mut set = |key: &str, value: &str| {
        command.env(format!("RCLONE_CONFIG_{name}_{key}"), value);
    };
    set("ENDPOINT", &place.endpoint);
    if place.is_azure {
        set("TYPE", "azureblob");
        set("ACCOUNT", &place.id);
        set("KEY", &place.secret);
    } else {
        set("TYPE", "s3");
        set("PROVIDER", "Other");
        set("REGION", REGION);
        set("ACCESS_KEY_ID", &place.id);
        set("SECRET_ACCESS_KEY", &place.secret);
    }
}
