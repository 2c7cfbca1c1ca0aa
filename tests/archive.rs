//! A cluster's log in an archive: pushed and fetched by the real binary as PostgreSQL does it, on real stores.

mod archive {
    //! One file per concern; `stage` holds what they share.
    mod fetch;
    mod push;
    mod stage;
}

#[path = "parts/mod.rs"]
mod parts;
