//! Step types that move a cluster through a store: its log, base backups, and clusters made of both.

mod backup;
mod kit;
mod made;
mod restore;
mod ship;

pub use backup::BaseBackup;
pub use made::Made;
pub use restore::RestoreCluster;
pub use ship::WalShip;
