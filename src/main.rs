//! The `ferry` binary: calls `cli::main` and nothing else.

fn main() -> std::process::ExitCode {
    ferry::cli::main()
}
