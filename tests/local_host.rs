//! Programs on this machine: exact exits, whole outputs, and none that outlives a cancel or ferry itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ferry::error::ErrorClass;
use ferry::hosts::{Finished, Host as _, Invocation, LocalHost};
use ferry::secret::{Text, Vault, mark};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

fn shell(line: &str) -> Invocation {
    Invocation { argv: ["sh", "-c", line].map(str::to_owned).to_vec(), ..Invocation::default() }
}

async fn run(invocation: &Invocation) -> Finished {
    let cancel = CancellationToken::new();
    LocalHost::default().execute(invocation, &Vault::default(), &cancel, &|_, _| {}).await.expect("it runs")
}

/// Watches until a condition holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn lives(pid: &str) -> bool {
    // A zombie has ended; only its parent has not looked yet.
    std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
}

fn pids(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn exit_codes_and_signals_are_exact() {
    for code in [0, 1, 3, 77, 255] {
        assert_eq!(run(&shell(&format!("exit {code}"))).await.code, Some(code));
    }
    for signal in [9, 15, 6] {
        let finished = run(&shell(&format!("kill -{signal} $$"))).await;
        assert_eq!((finished.code, finished.signal), (None, Some(signal)));
    }
}

#[tokio::test]
async fn streams_are_exact_and_lines_are_streamed() {
    let seen = Mutex::new(Vec::new());
    let invocation = Invocation {
        env: BTreeMap::from([("NAME".to_owned(), Text::new("value"))]),
        stdin: Some(Text::new("first\nsecond")),
        workdir: Some("/".to_owned()),
        ..shell("cat; printf '\\000\\377'; echo $NAME >&2; pwd >&2")
    };
    let cancel = CancellationToken::new();
    let finished = LocalHost::default()
        .execute(&invocation, &Vault::default(), &cancel, &|is_stderr, line| {
            seen.lock().expect("not poisoned").push((is_stderr, line.to_owned()));
        })
        .await
        .expect("it runs");
    assert_eq!(finished.stdout, b"first\nsecond\0\xff");
    assert_eq!(finished.stderr_tail, "value\n/");
    let seen = seen.into_inner().expect("not poisoned");
    assert!(seen.contains(&(false, "first".to_owned())) && seen.contains(&(true, "value".to_owned())), "{seen:?}");
}

#[tokio::test]
async fn megabytes_in_and_out_do_not_block_each_other() {
    let text = "0123456789abcde\n".repeat(1 << 17);
    let invocation = Invocation { stdin: Some(Text::new(text)), ..shell("tee /dev/stderr") };
    let finished = run(&invocation).await;
    assert!(finished.stdout_cut);
    assert_eq!(finished.stdout.len(), 1 << 20);
}

#[tokio::test]
async fn a_program_that_reads_nothing_is_no_error() {
    let invocation = Invocation { stdin: Some(Text::new("x".repeat(1 << 20))), ..shell("exit 4") };
    assert_eq!(run(&invocation).await.code, Some(4));
}

#[tokio::test]
async fn secrets_reach_the_environment_and_never_the_arguments() {
    let (vault, cancel) = (Vault::default(), CancellationToken::new());
    vault.insert("key", SecretString::from("open sesame"));
    let invocation =
        Invocation { env: BTreeMap::from([("KEY".to_owned(), Text::new(mark("key")))]), ..shell("printf %s \"$KEY\"") };
    let finished = LocalHost::default().execute(&invocation, &vault, &cancel, &|_, _| {}).await.expect("it runs");
    assert_eq!(finished.stdout, b"open sesame");
    let refused = LocalHost::default().execute(&shell(&format!("echo {}", mark("key"))), &vault, &cancel, &|_, _| {}).await;
    let error = refused.expect_err("refused");
    assert!(error.help.expect("says what to do").contains("`env:`"));
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let cancel = CancellationToken::new();
    let missing = Invocation { argv: vec!["no-such-program".to_owned()], ..Invocation::default() };
    let nowhere = Invocation { workdir: Some("/no/such/folder".to_owned()), ..shell("true") };
    for (invocation, says) in [(missing, "no such program"), (nowhere, "no directory `/no/such/folder`")] {
        let error = LocalHost::default().execute(&invocation, &Vault::default(), &cancel, &|_, _| {}).await.expect_err("refused");
        assert_eq!(error.class, ErrorClass::Permanent);
        assert!(error.message.contains(says), "{}", error.message);
    }
}

#[tokio::test]
async fn cancel_asks_first_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pids");
    // The first ends on SIGTERM and says so; the second ignores it and has to be killed.
    for (line, exit) in [
        ("trap 'echo bye; exit 7' TERM; sleep 1000 & echo $! >>$F; echo $$ >>$F; wait", Some(7)),
        ("trap '' TERM; sleep 1000 & echo $! >>$F; echo $$ >>$F; wait; sleep 1000", None),
    ] {
        let _ = std::fs::remove_file(&file);
        let invocation = Invocation { env: BTreeMap::from([("F".to_owned(), Text::new(file.to_string_lossy()))]), ..shell(line) };
        let cancel = CancellationToken::new();
        let host = LocalHost::default().with_grace(Duration::from_millis(300));
        let vault = Vault::default();
        let running = host.execute(&invocation, &vault, &cancel, &|_, _| {});
        let cancelling = async {
            until("both have started", || pids(&file).len() == 2).await;
            cancel.cancel();
        };
        let (finished, ()) = tokio::join!(running, cancelling);
        let finished = finished.expect("it ran");
        assert_eq!(finished.code, exit);
        assert_eq!(finished.signal, if exit.is_none() { Some(9) } else { None });
        until("all are gone", || pids(&file).iter().all(|pid| !lives(pid))).await;
    }
}

#[tokio::test]
async fn dropping_the_wait_ends_the_program() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pids");
    let invocation = shell(&format!("echo $$ >{}; exec sleep 1000", file.display()));
    let (host, vault, cancel) = (LocalHost::default(), Vault::default(), CancellationToken::new());
    {
        let running = host.execute(&invocation, &vault, &cancel, &|_, _| {});
        tokio::select! {
            _ = running => panic!("it sleeps for long"),
            () = until("it has started", || pids(&file).len() == 1) => {}
        }
    }
    until("it is gone", || pids(&file).iter().all(|pid| !lives(pid))).await;
}

#[tokio::test]
async fn what_stays_in_the_background_does_not_hold_the_step_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pids");
    let start = Instant::now();
    let finished = run(&shell(&format!("sleep 30 & echo $! >{}; echo started", file.display()))).await;
    assert_eq!((finished.code, finished.stdout.as_slice()), (Some(0), b"started\n".as_slice()));
    assert!(start.elapsed() < Duration::from_secs(15));
    let left = pids(&file);
    assert!(left.iter().all(|pid| lives(pid)), "what was left behind on purpose lives on");
    run(&shell(&format!("kill {}", left.join(" ")))).await;
}

/// Not a test by itself: the process that `kill_9_of_ferry_ends_all_it_started` kills.
#[tokio::test]
async fn runner_to_be_killed() {
    let Ok(file) = std::env::var("FERRY_TEST_PIDS") else { return };
    // Also a grandchild that ignores what can be ignored, and one whose outputs are elsewhere.
    let line = format!(
        "(trap '' TERM HUP INT; sleep 1000 & echo $! >>{file}; wait) & (sleep 1000 >/dev/null 2>&1 & echo $! >>{file}; wait) & \
         echo $$ >>{file}; wait; sleep 1000"
    );
    let (one, two) = (shell(&line), shell(&line));
    tokio::join!(run(&one), run(&two));
}

#[tokio::test]
async fn kill_9_of_ferry_ends_all_it_started() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pids");
    let mut runner = tokio::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "runner_to_be_killed", "--nocapture"])
        .env("FERRY_TEST_PIDS", &file)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("started");
    until("all have started", || pids(&file).len() == 6).await;
    assert!(pids(&file).iter().all(|pid| lives(pid)));
    runner.kill().await.expect("killed");
    until("all are gone", || pids(&file).iter().all(|pid| !lives(pid))).await;
}
