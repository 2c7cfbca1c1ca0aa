//! The command line, on the real binary: what each command prints, and how it exits.

mod cli {
    //! One file per concern; `bench` holds what they share.
    #[allow(dead_code, reason = "tests of whole runs use the rest")]
    mod bench;
    mod edited;
    mod ended;
    mod places;
    mod readme;
    mod redirect;
    mod remotes;
    mod running;
    mod secret;
    mod surface;
    mod told;
    mod trial;
}

#[path = "parts/mod.rs"]
mod parts;
