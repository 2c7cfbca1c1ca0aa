//! How a run ends that somebody ends, and what of a failure reaches the terminal.

use super::bench::Bench;

#[test]
fn what_a_failing_command_writes_is_no_order_to_the_terminal() {
    let bench = Bench::new();
    let run = r"printf '\033]0;title\007\033[2Jlast\302\233K\n' >&2; exit 1";
    bench.write("p.yaml", &format!("steps:\n  - id: a\n    uses: command\n    with: {{ run: {run:?} }}\n"));
    let ran = bench.run(&["run", "p.yaml"]).exits(1);
    let told = format!("{}{}", ran.stdout, ran.stderr);
    assert!(told.contains("exit code 1: ]0;title[2JlastK"), "{told}");
    assert!(!told.chars().any(|c| c != '\n' && c.is_control()), "{told:?}");
}
