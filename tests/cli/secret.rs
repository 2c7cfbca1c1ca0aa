//! A secret that cannot be had: before a run starts, and once it has started.

use super::bench::Bench;

/// `other` comes first, because nothing new starts behind a failure. Fails once, so that the run is taken up again: a secret is fetched anew then.
fn pipeline(tolerates: bool) -> String {
    format!(
        "secrets: {{ key: {{ file: ./key }} }}\nsteps:\n  \
         - {{ id: once, uses: command, retry: {{ attempts: 1 }}, with: {{ run: 'test -e again' }} }}\n  \
         - {{ id: needs, uses: command, needs: [once, other], continue_on_error: {tolerates}, with: {{ run: 'true', env: {{ K: '{{{{ secrets.key }}}}' }} }} }}\n  \
         - {{ id: other, uses: file.write, needs: [once], with: {{ path: other.txt, content: x }} }}\n  \
         - {{ id: after, uses: file.write, needs: [needs], with: {{ path: after.txt, content: x }} }}\n"
    )
}

#[test]
fn a_run_does_not_start_without_a_secret_that_a_step_needs() {
    for tolerates in [false, true] {
        let bench = Bench::new();
        bench.write("p.yaml", &pipeline(tolerates));
        let ran = bench.run(&["run", "p.yaml"]).exits(2);
        assert!(ran.stderr.contains("the secret `key` cannot be read"), "{ran:?}");
        assert!(!bench.path(".ferry").exists());
    }
}

#[test]
fn a_secret_that_is_gone_later_fails_the_steps_that_need_it_and_no_others() {
    for tolerates in [false, true] {
        let bench = Bench::new();
        bench.write("p.yaml", &pipeline(tolerates));
        bench.write("key", "correct-horse");
        bench.run(&["run", "p.yaml"]).exits(1);
        bench.write("again", "");
        std::fs::remove_file(bench.path("key")).expect("it was written");
        let ran = bench.run(&["resume", "last"]).exits(1);
        assert!(ran.stdout.contains("step `needs` failed: the secret `key` cannot be read"), "{ran:?}");
        assert!(bench.path("other.txt").exists());
        assert_eq!(bench.path("after.txt").exists(), tolerates, "its failure is tolerated as any other would be: {ran:?}");
        bench.write("key", "correct-horse");
        bench.run(&["resume", "last"]).exits(0);
    }
}
