//! Step types that move PostgreSQL clusters: copies that follow, and the cutover to them.

mod catch_up;
mod cutover;
mod failback;
mod replica;

pub use catch_up::CatchUp;
pub use cutover::Cutover;
pub use failback::Failback;
pub use replica::Replica;
