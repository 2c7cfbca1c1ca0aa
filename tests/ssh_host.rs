//! Hosts by SSH, against machines of the lab: what reaches the far end, what comes back, and what ends when.

mod lab;

#[path = "ssh_host/ends.rs"]
mod ends;
#[path = "ssh_host/files.rs"]
mod files;
#[path = "ssh_host/logins.rs"]
mod logins;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ferry::error::{ErrorClass, StepError};
use ferry::hosts::{Endpoint, Finished, Host, Invocation, Owned, SshHost, Streams, Target};
use ferry::secret::{Text, Vault, mark};
use lab::{Lab, patience};
use secrecy::SecretString;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

async fn attempt(host: &SshHost, invocation: &Invocation) -> Result<Finished, StepError> {
    host.execute(invocation, &Vault::default(), &CancellationToken::new(), &|_, _| {}).await
}

async fn run(host: &SshHost, invocation: &Invocation) -> Finished {
    attempt(host, invocation).await.expect("it runs")
}

async fn says(host: &SshHost, line: &str) -> String {
    let finished = run(host, &Invocation::shell(line)).await;
    assert_eq!(finished.code, Some(0), "{line}: {}", finished.stderr_tail);
    String::from_utf8_lossy(&finished.stdout).trim().to_owned()
}

/// Watches until a condition holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_command_runs_there_and_not_here() {
    let lab = Lab::new(&["alpha"]);
    let host = lab.ssh("root", "alpha");
    assert_eq!(says(&host, "hostname; id -un; pwd").await, "alpha\nroot\n/root");
    let (user, trip) = host.reach().await.expect("it answers");
    assert_eq!(user, "root");
    assert!(trip < Duration::from_secs(1));
    assert!(!host.is_local());
}

#[tokio::test]
async fn exit_codes_and_signals_are_exact() {
    let lab = Lab::new(&["alpha"]);
    let host = lab.ssh("root", "alpha");
    for code in [0, 1, 3, 77, 127, 137, 143, 255] {
        assert_eq!(run(&host, &Invocation::shell(format!("exit {code}"))).await.code, Some(code));
    }
    for signal in [9, 15, 6, 1] {
        let finished = run(&host, &Invocation::shell(format!("kill -{signal} $$"))).await;
        assert_eq!((finished.code, finished.signal), (None, Some(signal)));
    }
}

#[tokio::test]
async fn nasty_arguments_arrive_as_they_are() {
    let lab = Lab::new(&["alpha"]);
    let host = lab.ssh("ada", "alpha");
    let mut nasty: Vec<String> = [
        "",
        " ",
        "  two  ",
        "a'b",
        "a\"b",
        "$HOME",
        "`id`",
        "$(id)",
        "\\",
        "\\n",
        "a\nb",
        "\n",
        "\n\n",
        "-n",
        "--",
        "*",
        "~",
        "!!",
        "a;b",
        "a&b|c>d<e",
        "#x",
        "\t",
        "\r",
        "\u{1e}",
        "\u{7f}",
        "%s",
        "{a,b}",
        "[a-z]",
        "ü€𝄞",
        "'\n'",
        "\\'",
        "x=y",
    ]
    .map(str::to_owned)
    .to_vec();
    nasty.push((1_u8..=127).map(char::from).collect());
    nasty.push(('\u{80}'..='\u{7ff}').collect());
    nasty.push("long ".repeat(20_000));
    let mut argv = vec!["printf".to_owned(), "%s\\0".to_owned()];
    argv.extend(nasty.iter().cloned());
    let finished = run(&host, &Invocation::new(argv)).await;
    let got: Vec<String> =
        finished.stdout.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned()).collect();
    for (at, sent) in nasty.iter().enumerate() {
        assert_eq!(&got[at], sent, "argument {at}");
    }
    // The same by way of the environment.
    let env = nasty.iter().enumerate().map(|(at, text)| (format!("V{at}"), Text::new(text.clone()))).collect();
    let line = (0..nasty.len()).map(|at| format!("printf '%s\\0' \"$V{at}\"")).collect::<Vec<_>>().join("; ");
    let finished = run(&host, &Invocation { env, ..Invocation::shell(line) }).await;
    let got: Vec<&[u8]> = finished.stdout.split(|byte| *byte == 0).collect();
    for (at, sent) in nasty.iter().enumerate() {
        assert_eq!(got[at], sent.as_bytes(), "variable {at}");
    }
}

#[tokio::test]
async fn streams_are_exact_and_a_login_shell_may_chatter() {
    let lab = Lab::new(&["alpha"]);
    let noise = "echo Welcome; echo dear ada >&2\n";
    std::fs::write(lab.host("alpha").path("home/ada/.bashrc"), noise).expect("written");
    let host = lab.ssh("ada", "alpha");
    let seen = Mutex::new(Vec::new());
    let invocation = Invocation {
        env: BTreeMap::from([("NAME".to_owned(), Text::new("value"))]),
        stdin: Some(Text::new("first\nsecond")),
        workdir: Some("/".to_owned()),
        ..Invocation::shell("cat; printf '\\000\\377'; echo $NAME >&2; pwd >&2")
    };
    let (vault, cancel) = (Vault::default(), CancellationToken::new());
    let note = |is_stderr: bool, line: &str| seen.lock().expect("not poisoned").push((is_stderr, line.to_owned()));
    let finished = host.execute(&invocation, &vault, &cancel, &note).await.expect("it runs");
    assert_eq!(finished.stdout, b"first\nsecond\0\xff");
    assert!(finished.stderr_tail.ends_with("value\n/"), "{}", finished.stderr_tail);
    let seen = seen.lock().expect("not poisoned").clone();
    assert!(seen.contains(&(false, "first".to_owned())) && seen.contains(&(true, "value".to_owned())), "{seen:?}");
    assert!(!seen.iter().any(|(_, line)| line.contains("Welcome")), "{seen:?}");
}

#[tokio::test]
async fn megabytes_in_and_out_do_not_block_each_other() {
    let lab = Lab::new(&["alpha"]);
    let host = lab.ssh("root", "alpha");
    let text = "0123456789abcde\n".repeat(1 << 17);
    let invocation = Invocation { stdin: Some(Text::new(text)), ..Invocation::shell("tee /dev/stderr") };
    let finished = run(&host, &invocation).await;
    assert!(finished.stdout_cut);
    assert_eq!((finished.code, finished.stdout.len()), (Some(0), 1 << 20));
    // What reads nothing is no error.
    let invocation = Invocation { stdin: Some(Text::new("x".repeat(1 << 22))), ..Invocation::shell("exit 4") };
    assert_eq!(run(&host, &invocation).await.code, Some(4));
}

#[tokio::test]
async fn secrets_reach_the_environment_and_no_argument_list() {
    let lab = Lab::new(&["alpha"]);
    let host = lab.ssh("root", "alpha");
    let (vault, cancel) = (Vault::default(), CancellationToken::new());
    vault.insert("key", SecretString::from("open sesame"));
    let line = "printf %s \"$KEY\"; cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'open sesame' >&2";
    let invocation = Invocation { env: BTreeMap::from([("KEY".to_owned(), Text::new(mark("key")))]), ..Invocation::shell(line) };
    let finished = host.execute(&invocation, &vault, &cancel, &|_, _| {}).await.expect("it runs");
    assert_eq!(finished.stdout, b"open sesame");
    // `grep` finds itself.
    assert_eq!(finished.stderr_tail, "1");
    let refused = host.execute(&Invocation::new(["echo", &mark("key")]), &vault, &cancel, &|_, _| {}).await;
    assert!(refused.expect_err("refused").help.expect("says what to do").contains("`env:`"));
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let lab = Lab::new(&["alpha"]);
    let host = lab.ssh("ada", "alpha");
    lab.host("alpha").says("echo x >/srv/plain; chmod 644 /srv/plain");
    let nowhere = Invocation { workdir: Some("/no/such/folder".to_owned()), ..Invocation::shell("true") };
    for (invocation, says) in [
        (Invocation::new(["no-such-program"]), "no such program"),
        (Invocation::new(["/no/such/program"]), "no such program"),
        (Invocation::new(["-x"]), "no such program"),
        (Invocation::new(["/srv/plain"]), "not allowed"),
        (nowhere, "no directory `/no/such/folder`"),
    ] {
        let error = attempt(&host, &invocation).await.expect_err("refused");
        assert_eq!(error.class, ErrorClass::Permanent);
        assert!(error.message.contains(says), "{}", error.message);
    }
}

/// Not a test by itself: the process that `a_killed_test_leaves_nothing_of_its_lab` kills.
#[tokio::test]
async fn lab_to_be_killed() {
    let Ok(file) = std::env::var("FERRY_TEST_LAB") else { return };
    let lab = Lab::new(&["alpha", "beta"]);
    let host = lab.ssh("ada", "alpha");
    lab.host("beta").weather(lab::link::Weather::default());
    let invocation = Invocation::shell("sleep 4711; true");
    let told = async {
        until("it has started", || lab.host("alpha").running("sleep 4711") > 1).await;
        let pids = ["alpha", "beta"].map(|name| lab.host(name).process().to_string());
        std::fs::write(file, format!("{}\n{}\n", lab.folder().display(), pids.join(" "))).expect("written");
    };
    let _ = tokio::join!(attempt(&host, &invocation), told);
}

#[tokio::test]
async fn a_killed_test_leaves_nothing_of_its_lab() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("told");
    let mut killed = tokio::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "lab_to_be_killed", "--nocapture"])
        .env("FERRY_TEST_LAB", &file)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("started");
    let told = || std::fs::read_to_string(&file).unwrap_or_default();
    until("the lab stands", || told().lines().count() == 2).await;
    killed.kill().await.expect("killed");
    let told = told();
    let (lab, pids) = told.trim().split_once('\n').expect("two lines");
    let lives = |pid: &str| std::fs::metadata(format!("/proc/{pid}/ns/net")).is_ok();
    until("the hosts are gone", || !pids.split(' ').any(lives)).await;
    until("its folder is gone", || !std::path::Path::new(lab).exists()).await;
}
