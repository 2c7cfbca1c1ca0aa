//! Who is let in by SSH, by which key, by which way, and as whom.

use super::*;

#[tokio::test]
async fn a_host_key_that_is_wrong_or_unknown_is_never_accepted() {
    let lab = Lab::new(&["alpha"]);
    lab::make_key(&lab.folder().join("other"), "other");
    let other = std::fs::read_to_string(lab.folder().join("other.pub")).expect("a key");
    let known = lab.folder().join("known_hosts");
    let right = std::fs::read_to_string(&known).expect("there");
    let config = lab.folder().join("config");
    let plain = std::fs::read_to_string(&config).expect("there");
    for (hosts, setting, says) in [
        (format!("10.77.0.10 {other}"), "", "another host key"),
        (format!("10.77.0.10 {other}"), "StrictHostKeyChecking accept-new\n", "another host key"),
        (format!("10.77.0.10 {other}"), "StrictHostKeyChecking no\n", "another host key"),
        (String::new(), "", "not known"),
        (String::new(), "StrictHostKeyChecking no\n", "not known"),
    ] {
        std::fs::write(&known, hosts).expect("written");
        std::fs::write(&config, format!("{setting}{plain}")).expect("written");
        let error = attempt(&lab.ssh("root", "alpha"), &Invocation::new(["true"])).await.expect_err("refused");
        assert_eq!(error.class, ErrorClass::NeedsPerson, "{setting}");
        assert!(error.message.contains(says) && error.help.is_some(), "{setting}: {}", error.message);
    }
    std::fs::write(&config, format!("StrictHostKeyChecking accept-new\n{plain}")).expect("written");
    assert_eq!(says(&lab.ssh("root", "alpha"), "echo in").await, "in");
    assert!(std::fs::read_to_string(&known).expect("there").contains(right.split(' ').nth(2).expect("a key").trim()));
}

#[tokio::test]
async fn who_may_not_log_in_is_told_so() {
    let lab = Lab::new(&["alpha"]);
    std::fs::write(lab.host("alpha").path("ssh/authorized_keys"), "").expect("written");
    let error = attempt(&lab.ssh("root", "alpha"), &Invocation::new(["true"])).await.expect_err("refused");
    assert_eq!(error.class, ErrorClass::NeedsPerson);
    assert!(error.message.contains("does not let us in"), "{}", error.message);
    let target = Target { port: Some(2223), ..lab.target("root", "alpha") };
    let host = SshHost::with_patience("alpha", target, patience());
    let error = attempt(&host, &Invocation::new(["true"])).await.expect_err("nobody listens");
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(error.message.contains("Connection refused"), "{}", error.message);
    let target = Target { config: Some("/no/such/config".to_owned()), ..lab.target("root", "alpha") };
    let error = attempt(&SshHost::new("alpha", target), &Invocation::new(["true"])).await.expect_err("refused");
    assert_eq!(error.class, ErrorClass::Permanent);
}

#[tokio::test]
async fn a_jump_host_leads_on_and_its_key_is_looked_at_too() {
    let lab = Lab::new(&["bastion", "inner"]);
    // The inner one takes connections from the bastion only.
    lab.host("inner").says("ip route add blackhole 10.77.0.1/32");
    let direct = attempt(&lab.ssh("ada", "inner"), &Invocation::new(["true"])).await.expect_err("no way");
    assert_eq!(direct.class, ErrorClass::Transient);
    let target = || Target { jump: Some("ada@bastion".to_owned()), ..lab.target("ada", "inner") };
    let host = SshHost::with_patience("inner", target(), patience());
    assert_eq!(says(&host, "hostname").await, "inner");
    let known = lab.folder().join("known_hosts");
    let inner = std::fs::read_to_string(&known).expect("there").lines().nth(1).expect("the second").to_owned();
    std::fs::write(&known, format!("{inner}\n")).expect("written");
    let host = SshHost::with_patience("inner", target(), patience());
    let error = attempt(&host, &Invocation::new(["true"])).await.expect_err("the bastion is not known");
    assert_eq!(error.class, ErrorClass::NeedsPerson, "{}", error.message);
}

#[tokio::test]
async fn a_command_may_run_as_another_user() {
    let lab = Lab::new(&["alpha"]);
    let (root, ada) = (lab.ssh("root", "alpha"), lab.ssh("ada", "alpha"));
    let as_user = |user: &str, line: &str| Invocation { run_as: Some(user.to_owned()), ..Invocation::shell(line) };
    for host in [&root, &ada] {
        let finished = run(host, &as_user("bob", "id -un; echo $HOME; pwd; cat; exit 9")).await;
        assert_eq!(finished.code, Some(9), "{}", finished.stderr_tail);
        assert_eq!(String::from_utf8_lossy(&finished.stdout), "bob\n/home/bob\n/home/bob\n");
        // What it was given stays out of the arguments and reaches it all the same.
        let invocation = Invocation {
            env: BTreeMap::from([("KEY".to_owned(), Text::new("it's \"$x\""))]),
            stdin: Some(Text::new("read")),
            ..as_user("bob", "printf %s \"$KEY\"; cat")
        };
        assert_eq!(run(host, &invocation).await.stdout, b"it's \"$x\"read");
        let (vault, cancel, invocation) =
            (Vault::default(), CancellationToken::new(), as_user("bob", "trap '' TERM; sleep 4711; sleep 4712"));
        let running = host.execute(&invocation, &vault, &cancel, &|_, _| {});
        let cancelling = async {
            until("it has started", || lab.host("alpha").running("sleep 4711") >= 1).await;
            cancel.cancel();
        };
        let (finished, ()) = tokio::join!(running, cancelling);
        assert!(finished.expect("it ran").was_asked);
        until("it is gone", || lab.host("alpha").running("sleep 471") == 0).await;
    }
    let error = attempt(&ada, &as_user("root", "true")).await.expect_err("ada may not");
    assert_eq!(error.class, ErrorClass::NeedsPerson);
    assert!(error.message.contains("may not become `root`"), "{}", error.message);
    let error = attempt(&root, &as_user("nobody-here", "true")).await.expect_err("there is none");
    assert_eq!(error.class, ErrorClass::NeedsPerson, "{}", error.message);
}

#[tokio::test]
async fn forwards_reach_ports_and_sockets_of_the_host() {
    let lab = Lab::new(&["alpha"]);
    let host = lab.ssh("root", "alpha");
    // What listens there: an SSH server greets whoever comes.
    let ssh = host.forward(&Endpoint::Tcp("127.0.0.1".to_owned(), 22)).await.expect("a way");
    for _ in 0..3 {
        let mut stream = ssh.connect().await.expect("connected");
        let mut greeting = [0; 8];
        stream.read_exact(&mut greeting).await.expect("it greets");
        assert_eq!(&greeting, b"SSH-2.0-");
    }
    let port = ssh.listen().await.expect("a port");
    let mut stream = tokio::net::TcpStream::connect(port.address).await.expect("connected");
    let mut greeting = [0; 8];
    stream.read_exact(&mut greeting).await.expect("it greets");
    // Nobody there shows as the end.
    let nobody = host.forward(&Endpoint::Tcp("127.0.0.1".to_owned(), 9)).await.expect("a way");
    let mut stream = nobody.connect().await.expect("connected");
    let _ = stream.write_all(b"x").await;
    assert_eq!(stream.read(&mut greeting).await.unwrap_or(0), 0);
    // A closed way is closed.
    drop(port);
    drop(ssh);
    assert_eq!(says(&host, "echo on").await, "on");
}
