//! Files and streams over SSH: whole or not at all.

use super::*;

#[tokio::test]
async fn files_are_read_and_written_whole_or_not_at_all() {
    let lab = Lab::new(&["alpha"]);
    let (root, ada) = (lab.ssh("root", "alpha"), lab.ssh("ada", "alpha"));
    let path = std::path::Path::new("/srv/it's a \"file\" ü\n-x");
    assert_eq!(root.read_file(path).await.expect("looked"), None);
    root.write_file(path, b"one\0\xff", Some(0o640), Some((4001, 4002))).await.expect("written");
    let state = root.read_file(path).await.expect("read").expect("there");
    assert_eq!((state.content.as_str(), state.mode, state.uid, state.gid), ("b25lAP8=", 0o640, 4001, 4002));
    root.write_file(path, b"", None, None).await.expect("written");
    let state = root.read_file(path).await.expect("read").expect("there");
    assert_eq!((state.content.as_str(), state.mode, state.uid, state.gid), ("", 0o640, 4001, 4002));
    lab.host("alpha")
        .says("ln -s target /srv/link; echo old >/srv/target; ln -s nothing /srv/dangling; mkdir -m 700 /srv/closed");
    root.write_file(std::path::Path::new("/srv/link"), b"new\n", None, None).await.expect("written");
    assert_eq!(lab.host("alpha").says("cat /srv/target; readlink /srv/link"), "new\ntarget");
    for (host, path, class, says) in [
        (&root, "/srv", ErrorClass::Permanent, "not a regular file"),
        (&root, "/srv/dangling", ErrorClass::Permanent, "link to nothing"),
        (&root, "/no/such/folder/x", ErrorClass::Permanent, "folder does not exist"),
        (&ada, "/srv/x", ErrorClass::Permanent, "not allowed"),
        (&ada, "/srv/closed/x", ErrorClass::Permanent, "not allowed"),
    ] {
        let error = host.write_file(std::path::Path::new(path), b"x", None, None).await.expect_err("refused");
        assert_eq!(error.class, class, "{path}");
        assert!(error.message.contains(says), "{path}: {}", error.message);
    }
    assert!(ada.read_file(std::path::Path::new("/srv/closed/x")).await.is_err(), "what cannot be seen is not absent");
    lab.host("alpha").says("echo half >/srv/.target.ferry-999999-0; echo half >/srv/.target.ferry-1-0");
    root.clear_unfinished(std::path::Path::new("/srv/link")).await.expect("cleared");
    assert_eq!(lab.host("alpha").says("ls -A /srv | grep ferry"), ".target.ferry-1-0");
    root.remove_file(path).await.expect("removed");
    root.remove_file(path).await.expect("nothing there is no error");
    assert_eq!(root.read_file(path).await.expect("looked"), None);
}

#[tokio::test]
async fn a_big_file_goes_both_ways_and_a_cut_one_is_not_there() {
    let lab = Lab::new(&["alpha"]);
    let host = lab.ssh("root", "alpha");
    let content: Vec<u8> = (0..(64_usize << 20)).map(|at| (at.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
    let path = std::path::Path::new("/srv/big");
    let cancel = CancellationToken::new();
    let mut from = content.as_slice();
    host.put_file(path, &mut from, content.len() as u64, Owned { mode: Some(0o600), owner: None }, &cancel).await.expect("put");
    let mut back = Vec::new();
    assert_eq!(host.get_file(path, &mut back, &cancel).await.expect("got"), Some(content.len() as u64));
    assert!(back == content, "it came back changed");

    assert_eq!(host.get_file(std::path::Path::new("/srv/none"), &mut back, &cancel).await.expect("looked"), None);
    // Less than was promised is not put in its place.
    let mut short = &content[..1000];
    let error = host.put_file(path, &mut short, 2000, Owned::default(), &cancel).await.expect_err("not whole");
    assert_eq!(error.class, ErrorClass::Transient);
    assert_eq!(lab.host("alpha").says("stat -c %s /srv/big; ls -A /srv | wc -l"), format!("{}\n1", content.len()));
    // A stream that stalls, and a network that is cut under it.
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let (mut near, _keep) = tokio::io::split(near);
    let sending = async {
        far.write_all(&content[..100_000]).await.expect("taken");
        until("some of it is there", || lab.host("alpha").running("cat") > 0).await;
        lab.host("alpha").cut();
    };
    let (ended, ()) = tokio::join!(host.put_file(path, &mut near, 200_000, Owned::default(), &cancel), sending);
    assert_eq!(ended.expect_err("cut").class, ErrorClass::Transient);
    until("the far end has ended it", || lab.host("alpha").running(".ferry-") == 0).await;
    assert_eq!(lab.host("alpha").says("stat -c %s /srv/big"), content.len().to_string());
}

#[tokio::test]
async fn a_program_may_stand_between_two_streams() {
    let lab = Lab::new(&["alpha"]);
    let host = lab.ssh("root", "alpha");
    let content = b"line\n".repeat(1 << 20);
    let (mut from, mut to) = (content.as_slice(), Vec::new());
    let (vault, cancel, invocation) = (Vault::default(), CancellationToken::new(), Invocation::new(["tr", "a-z", "A-Z"]));
    let streams = Streams { input: Some(&mut from), output: Some(&mut to) };
    let finished = host.stream(&invocation, &vault, &cancel, streams, &|_, _| {}).await.expect("it runs");
    assert_eq!((finished.code, to.len()), (Some(0), content.len()));
    assert!(to.starts_with(b"LINE\n"));
}
