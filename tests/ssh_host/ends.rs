//! What ends a command on a host by SSH: a cancel, a lost wait, a cut network; and what does not.

use super::*;
use crate::lab::link::Weather;

#[tokio::test]
async fn cancel_asks_first_and_leaves_nothing_behind() {
    let lab = Lab::new(&["alpha"]);
    let host = lab.ssh("ada", "alpha");
    for (line, exit) in [
        ("trap 'echo bye; exit 7' TERM; sleep 4711 & sleep 4712 & wait", Some(7)),
        ("trap '' TERM; sleep 4711 & sleep 4712 & wait; sleep 4713", None),
    ] {
        let (vault, cancel, invocation) = (Vault::default(), CancellationToken::new(), Invocation::shell(line));
        let running = host.execute(&invocation, &vault, &cancel, &|_, _| {});
        let cancelling = async {
            until("both have started", || lab.host("alpha").running("sleep 471") >= 3).await;
            cancel.cancel();
        };
        let (finished, ()) = tokio::join!(running, cancelling);
        let finished = finished.expect("it ran");
        assert!(finished.was_asked);
        assert_eq!(finished.code, exit);
        assert_eq!(finished.signal, if exit.is_none() { Some(9) } else { None });
        until("all are gone", || lab.host("alpha").running("sleep 471") == 0).await;
    }
}

#[tokio::test]
async fn dropping_the_wait_ends_the_program() {
    let lab = Lab::new(&["alpha"]);
    let host = lab.ssh("ada", "alpha");
    let (vault, cancel, invocation) = (Vault::default(), CancellationToken::new(), Invocation::shell("sleep 4711; true"));
    {
        let running = host.execute(&invocation, &vault, &cancel, &|_, _| {});
        tokio::select! {
            _ = running => panic!("it sleeps for long"),
            () = until("it has started", || lab.host("alpha").running("sleep 4711") >= 1) => {}
        }
    }
    until("it is gone", || lab.host("alpha").running("sleep 4711") == 0).await;
    assert_eq!(says(&host, "echo still here").await, "still here");
}

#[tokio::test]
async fn what_stays_in_the_background_does_not_hold_the_step_up() {
    let lab = Lab::new(&["alpha"]);
    let host = lab.ssh("ada", "alpha");
    let start = Instant::now();
    let finished = run(&host, &Invocation::shell("sleep 4711 & echo started; echo more >&2")).await;
    assert_eq!((finished.code, finished.stdout.as_slice()), (Some(0), b"started\n".as_slice()));
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(lab.host("alpha").running("sleep 4711"), 1, "what was left behind on purpose lives on");
    drop(host);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(lab.host("alpha").running("sleep 4711"), 1, "also when the connection is closed");
}

#[tokio::test]
async fn many_commands_at_once_share_connections() {
    let lab = Lab::new(&["alpha"]);
    let host = lab.ssh("root", "alpha");
    // More than a server allows per connection.
    let commands = (0..25).map(|number| {
        let host = &host;
        async move { says(host, &format!("sleep 0.2; echo {number}")).await }
    });
    let answers = futures::future::join_all(commands).await;
    assert!(answers.iter().enumerate().all(|(number, answer)| *answer == number.to_string()), "{answers:?}");
    let logins = lab.host("alpha").running("sshd: root@notty");
    assert!((1..=4).contains(&logins), "{logins} connections");
    // And a server that allows only two.
    lab.host("alpha").says("/usr/sbin/sshd -p 2222 -o MaxSessions=2");
    let target = Target { port: Some(2222), ..lab.target("root", "alpha") };
    let host = SshHost::with_patience("alpha", target, patience());
    let commands = (0..4).map(|number| {
        let host = &host;
        async move { says(host, &format!("sleep 0.2; echo {number}")).await }
    });
    assert_eq!(futures::future::join_all(commands).await, ["0", "1", "2", "3"]);
}

#[tokio::test]
async fn a_cut_network_ends_both_sides() {
    let lab = Lab::new(&["alpha"]);
    let host = lab.ssh("ada", "alpha");
    let machine = lab.host("alpha");
    let invocation = Invocation::shell("sleep 4711; true");
    let cutting = async {
        until("it has started", || machine.running("sleep 4711") >= 1).await;
        machine.cut();
    };
    let start = Instant::now();
    let (ended, ()) = tokio::join!(attempt(&host, &invocation), cutting);
    let error = ended.expect_err("the connection is gone");
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(error.message.contains("was lost while `sh` ran"), "{}", error.message);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    // The far end does not hear of it and ends what ran by itself.
    until("the far end has ended it", || machine.running("sleep 4711") == 0).await;
    let error = attempt(&host, &Invocation::new(["true"])).await.expect_err("nothing gets through");
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(error.message.contains("cannot be reached") || error.message.contains("did not answer"), "{}", error.message);
    machine.mend();
    comes_back(&host).await;
}

/// A cable was mended. Who asked for the machine's address while it was out may be told so a little later still.
async fn comes_back(host: &SshHost) {
    let mended = Instant::now();
    while host.reach().await.is_err() {
        assert!(mended.elapsed() < Duration::from_secs(30), "it stays away");
    }
    assert_eq!(says(host, "echo again").await, "again");
}

#[tokio::test]
async fn a_connection_that_was_killed_is_made_anew() {
    let lab = Lab::new(&["alpha"]);
    let host = lab.ssh("ada", "alpha");
    let machine = lab.host("alpha");
    let invocation = Invocation::shell("sleep 4711; true");
    let killing = async {
        until("it has started", || machine.running("sleep 4711") >= 1).await;
        machine.inside("for p in /proc/[0-9]*; do grep -qa 'sshd: [a]da' $p/cmdline 2>/dev/null && kill -9 ${p#/proc/}; done");
    };
    let (ended, ()) = tokio::join!(attempt(&host, &invocation), killing);
    assert_eq!(ended.expect_err("the connection is gone").class, ErrorClass::Transient);
    until("the far end has ended it", || machine.running("sleep 4711") == 0).await;
    assert_eq!(says(&host, "echo again").await, "again");
    until("nothing stays behind", || machine.says("ls -d /tmp/ferry-* | wc -l") == "1").await;
}

#[tokio::test]
async fn a_cancel_at_any_moment_leaves_nothing_behind() {
    let lab = Lab::new(&["alpha"]);
    let host = lab.ssh("ada", "alpha");
    assert_eq!(says(&host, "echo connected").await, "connected");
    for delay in 0..25 {
        let (vault, cancel) = (Vault::default(), CancellationToken::new());
        let invocation = Invocation::shell("trap 'exit 7' TERM; sleep 4711 & sleep 4712 & wait");
        let running = host.execute(&invocation, &vault, &cancel, &|_, _| {});
        let (finished, ()) = tokio::join!(running, async {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            cancel.cancel();
        });
        // Before it began it is no more than a refusal.
        assert!(finished.map_or_else(|error| error.message == "stopped on request", |finished| finished.was_asked), "{delay}");
    }
    until("all are gone", || lab.host("alpha").running("sleep 471") == 0).await;
}

#[tokio::test]
async fn a_long_slow_lossy_link_is_only_that() {
    let lab = Lab::new(&["alpha"]);
    let (host, machine) = (lab.ssh("ada", "alpha"), lab.host("alpha"));
    assert_eq!(says(&host, "echo near").await, "near");
    machine.weather(Weather { delay: Duration::from_millis(40), ..Weather::default() });
    // The connection from before lives on, and is as far away as the link is long.
    let mut trips = Vec::new();
    for _ in 0..5 {
        trips.push(host.reach().await.expect("it answers").1);
    }
    let best = trips.iter().min().expect("there are five");
    assert!(*best >= Duration::from_millis(80), "{trips:?}");
    // Two megabytes over ten megabits in a second take at least that long, loss or not.
    let (rate, loss) = (Some(10_000_000), 0.005);
    machine.weather(Weather { delay: Duration::from_millis(5), rate, loss, ..Weather::default() });
    let content: Vec<u8> = (0..(2_usize << 20)).map(|at| (at.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
    let (cancel, path, start) = (CancellationToken::new(), std::path::Path::new("/tmp/big"), Instant::now());
    let mut from = content.as_slice();
    host.put_file(path, &mut from, content.len() as u64, Owned::default(), &cancel).await.expect("put");
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(1500), "{took:?}");
    machine.weather(Weather::default());
    let mut back = Vec::new();
    host.get_file(path, &mut back, &cancel).await.expect("got");
    assert!(back == content, "it came back changed");
    // A cable can be pulled here too.
    machine.cut();
    let error = attempt(&host, &Invocation::new(["true"])).await.expect_err("nothing gets through");
    assert_eq!(error.class, ErrorClass::Transient);
    machine.mend();
    comes_back(&host).await;
}
