//! How the memory of a process goes along, and what a mode needs of the hosts.

use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::StepError;

/// How the memory of a process goes along.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(in crate::steps) enum Mode {
    /// With it: the freeze is as long as the memory is large.
    #[default]
    Checkpoint,
    /// After it: it runs at the target, and what it asks for comes first.
    PostCopy,
    /// Before it, in rounds. Not built yet: the plan says whether the kernels could do it.
    PreCopy,
    /// Before it and after it. Not built yet either.
    Hybrid,
}

/// The way that memory takes from host to host: straight, and in the clear. Nobody but the other host is let in.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Pages {
    /// The address of the source, as the target reaches it.
    pub from: Ipv4Addr,
    /// The address of the target, as the source sees it.
    pub to: Ipv4Addr,
    /// The port; 27500 unless given.
    #[serde(default = "port")]
    #[schemars(range(min = 1))]
    pub port: u16,
}

fn port() -> u16 {
    27500
}

impl Mode {
    /// Whether the configuration has what the mode asks for.
    pub(super) fn has_all(self, pages: Option<&Pages>) -> Result<(), StepError> {
        if self == Self::PostCopy && pages.is_none() {
            return Err(StepError::permanent("`post-copy` needs `pages`: its memory goes straight from host to host")
                .help("write `pages: { from: ADDRESS, to: ADDRESS }` with the addresses at which the hosts reach each other"));
        }
        Ok(())
    }

    /// The features of the kernel that it needs, as `criu check` calls them, with what they are.
    pub(super) fn features(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Checkpoint => &[],
            Self::PostCopy => &[("uffd-noncoop", "page faults answered by a program (userfaultfd)")],
            Self::PreCopy => &[("mem_dirty_track", "tracking of the pages that a process writes to (soft-dirty)")],
            Self::Hybrid => &[
                ("mem_dirty_track", "tracking of the pages that a process writes to (soft-dirty)"),
                ("uffd-noncoop", "page faults answered by a program (userfaultfd)"),
            ],
        }
    }

    /// As it is written.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::PostCopy => "post-copy",
            Self::PreCopy => "pre-copy",
            Self::Hybrid => "hybrid",
        }
    }
}
