//! Containers that move with their memory, their files and their connections.
//!
//! In: a container of Podman on one host. Out: the same container on the other. CRIU's part is that of `criu`: its images, its
//! guard, its locks. Never here: the content of volumes, an image that a registry has.

mod archive;
mod carry;
mod migrate;
mod place;
mod preflight;

pub use archive::{ContainerCheckpoint, ContainerRestore};
pub use migrate::ContainerMigrate;
