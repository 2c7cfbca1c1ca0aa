//! Step types that move PostgreSQL clusters: copies that follow, and the cutover to them.

mod archive;
mod catch_up;
mod compare;
mod cutover;
mod failback;
mod logical;
mod query;
mod replica;
mod statement;
mod validate;

pub use archive::{BaseBackup, RestoreCluster, WalShip};
pub use catch_up::CatchUp;
pub use compare::Compare;
pub use cutover::Cutover;
pub use failback::Failback;
pub use logical::Logical;
pub use query::Query;
pub use replica::Replica;
pub use validate::ValidateQuery;
