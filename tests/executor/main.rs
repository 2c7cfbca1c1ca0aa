//! The embedded driver with real pipelines and a real journal: what a run guarantees, by name.

mod edit;
mod forward;
mod lab;
mod limits;
mod people;
mod pivot;
mod plan;
mod secret;
mod stop;
