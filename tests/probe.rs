//! Probes: what clients see of a server that pauses, goes away and comes back.

mod parts;
#[path = "probe/postgres.rs"]
mod postgres;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ferry::error::{ErrorClass, StepError};
use ferry::units::Span;
use parts::scene::Scene;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// It answers `yes` to each line.
    Well,
    /// It takes connections and lines, and answers later.
    Pausing,
    /// It takes connections and never answers them, as an address does that leads nowhere.
    Stuck,
    /// Nobody listens, and connections are closed.
    Away,
}

/// A server of lines.
struct Yes {
    address: String,
    mood: watch::Sender<Mood>,
    connections: Arc<AtomicU32>,
}

impl Yes {
    async fn new() -> Self {
        let first = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = first.local_addr().expect("bound").to_string();
        let (mood, moods) = watch::channel(Mood::Well);
        let connections = Arc::new(AtomicU32::new(0));
        tokio::spawn(serve(first, address.clone(), moods, connections.clone()));
        Self { address, mood, connections }
    }

    fn is(&self, mood: Mood) {
        self.mood.send(mood).expect("somebody listens");
    }

    fn probe(&self) -> Value {
        json!({ "address": self.address, "send": "?\n", "receives": "yes", "every": "5ms", "fresh_every": "20ms", "after": 5 })
    }
}

async fn serve(first: TcpListener, address: String, mut moods: watch::Receiver<Mood>, connections: Arc<AtomicU32>) {
    let mut listener = Some(first);
    let mut away = moods.clone();
    loop {
        let Some(open) = &listener else {
            moods.wait_for(|mood| *mood != Mood::Away).await.expect("the test lives");
            listener = Some(TcpListener::bind(&address).await.expect("its own port"));
            continue;
        };
        tokio::select! {
            accepted = open.accept() => {
                let (stream, _) = accepted.expect("accepted");
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(answer(stream, moods.clone()));
            }
            _ = away.wait_for(|mood| *mood == Mood::Away) => listener = None,
        }
    }
}

async fn answer(mut stream: TcpStream, mut moods: watch::Receiver<Mood>) {
    if *moods.borrow() == Mood::Stuck {
        return std::future::pending().await;
    }
    let mut away = moods.clone();
    let answering = async {
        let mut line = [0; 64];
        while stream.read(&mut line).await.is_ok_and(|read| read > 0) {
            if moods.wait_for(|mood| *mood == Mood::Well).await.is_err() || stream.write_all(b"yes\n").await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = answering => {}
        _ = away.wait_for(|mood| *mood == Mood::Away) => {}
    }
}

fn span(value: &Value) -> Duration {
    serde_json::from_value::<Span>(value.clone()).expect("a duration").0
}

/// Probes while `meanwhile` happens; then the duty is done.
async fn probe(scene: &Scene, with: Value, meanwhile: impl Future<Output = ()>) -> Result<Value, StepError> {
    probe_by("probe.tcp", scene, with, meanwhile).await
}

/// The same by a probe of this type.
async fn probe_by(uses: &str, scene: &Scene, with: Value, meanwhile: impl Future<Output = ()>) -> Result<Value, StepError> {
    let step = Scene::step(uses, &with);
    let over = CancellationToken::new();
    let ctx = ferry::steps::StepContext { over: over.clone(), ..scene.context() };
    let before = step.inspect(&ctx).await?;
    let ready = scene.heard.readies.load(Ordering::SeqCst);
    let mut running = step.run(&ctx, &before);
    let meanwhile = async {
        while scene.heard.readies.load(Ordering::SeqCst) == ready {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        meanwhile.await;
        over.cancel();
    };
    tokio::select! {
        ended = &mut running => ended,
        () = meanwhile => running.await,
    }
}

#[tokio::test]
async fn a_pause_is_a_gap_and_no_error() {
    let (scene, server) = (Scene::new([]), Yes::new().await);
    let seen = probe(&scene, server.probe(), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.is(Mood::Pausing);
        tokio::time::sleep(Duration::from_millis(400)).await;
        server.is(Mood::Well);
        tokio::time::sleep(Duration::from_millis(100)).await;
    })
    .await
    .expect("nothing was asked of the gap");
    assert_eq!(seen["errors"], 0, "{seen:#}");
    for kind in ["kept", "fresh"] {
        let gap = span(&seen[kind]["longest_gap"]);
        // The last answer before the pause may have come some time before it began.
        assert!(gap >= Duration::from_millis(350) && gap < Duration::from_secs(5), "{kind}: {seen:#}");
        assert!(span(&seen[kind]["took"]["max"]) >= Duration::from_millis(380), "{seen:#}");
        assert!(span(&seen[kind]["took"]["p50"]) < Duration::from_millis(380), "{seen:#}");
    }
    assert!(seen["kept"]["good"].as_u64() > Some(20), "{seen:#}");
    assert_eq!(seen["gaps"][0]["length"], seen["longest_gap"], "{seen:#}");
    let file = std::fs::read_to_string(scene.scratch().join("probe.json")).expect("there");
    let file: Value = serde_json::from_str(&file).expect("JSON");
    assert!(file["gaps"].as_array().is_some_and(|gaps| gaps.len() > 10), "{file:#}");
}

#[tokio::test]
async fn a_server_that_goes_away_is_errors_with_their_times() {
    let (scene, server) = (Scene::new([]), Yes::new().await);
    let away = async {
        server.is(Mood::Away);
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.is(Mood::Well);
    };
    let seen = probe(&scene, server.probe(), away).await.expect("nothing was asked of the errors");
    for kind in ["kept", "fresh"] {
        assert!(seen[kind]["errors"].as_u64() >= Some(1), "{kind}: {seen:#}");
        assert!(span(&seen[kind]["longest_gap"]) >= Duration::from_millis(250), "{kind}: {seen:#}");
        let (first, last) = (span(&seen[kind]["first_failure"]["offset"]), span(&seen[kind]["last_failure"]["offset"]));
        assert!(first <= last && last < Duration::from_secs(10), "{seen:#}");
    }
    let reasons: u64 = seen["reasons"].as_array().expect("a list").iter().filter_map(|reason| reason["count"].as_u64()).sum();
    assert_eq!(Some(reasons), seen["errors"].as_u64(), "{seen:#}");
    assert!(seen["gaps"][0]["errors"].as_u64() >= Some(1), "{seen:#}");
}

#[tokio::test]
async fn more_than_is_allowed_fails_at_the_end_and_says_what_was_seen() {
    let (scene, server) = (Scene::new([]), Yes::new().await);
    let mut with = server.probe();
    (with["max_gap"], with["max_errors"]) = (json!("100ms"), json!(0));
    let away = async {
        server.is(Mood::Away);
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.is(Mood::Well);
    };
    let error = probe(&scene, with.clone(), away).await.expect_err("too much");
    assert_eq!(error.class, ErrorClass::Permanent);
    assert!(error.message.contains("the longest gap was") && error.message.contains("longer than 100ms"), "{}", error.message);
    assert!(error.message.contains("more than 0, the first: "), "{}", error.message);
    // What was seen does not go away by trying again; what is allowed may be changed.
    probe(&scene, with, async {}).await.expect_err("it was seen");
    let seen = probe(&scene, server.probe(), async {}).await.expect("allowed now");
    assert!(seen["errors"].as_u64() >= Some(2) && seen["attempts"] == 3, "{seen:#}");
}

#[tokio::test]
async fn time_in_which_nobody_watched_is_no_gap() {
    let (scene, server) = (Scene::new([]), Yes::new().await);
    let recorded = || std::fs::read_to_string(scene.scratch().join("probe.json")).ok();
    tokio::select! {
        _ = probe(&scene, server.probe(), std::future::pending()) => unreachable!("it has no end"),
        () = async {
            // Until it has written down that it saw something.
            while !recorded().is_some_and(|text| text.contains("\"good\":1")) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        } => {}
    }
    let earlier: Value = serde_json::from_str(&recorded().expect("there")).expect("JSON");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let seen = probe(&scene, server.probe(), async {}).await.expect("well");
    assert_eq!(seen["attempts"], 2);
    assert!(span(&seen["longest_gap"]) < Duration::from_millis(1500), "{seen:#}");
    assert!(seen["kept"]["good"].as_u64() > earlier["kinds"]["kept"]["good"].as_u64(), "{seen:#}");
}

#[tokio::test]
async fn one_kind_keeps_its_connection_and_the_other_does_not() {
    let (scene, server) = (Scene::new([]), Yes::new().await);
    let mut with = server.probe();
    with["clients"] = json!(["kept"]);
    let seen = probe(&scene, with, tokio::time::sleep(Duration::from_millis(200))).await.expect("well");
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    assert!(seen.get("fresh").is_none(), "{seen:#}");
    let mut with = server.probe();
    with["clients"] = json!(["fresh"]);
    let seen = Scene::new([]);
    let seen = probe(&seen, with, tokio::time::sleep(Duration::from_millis(200))).await.expect("well");
    let made = u64::from(server.connections.load(Ordering::SeqCst)) - 1;
    assert!(seen["good"].as_u64() >= Some(5) && seen["good"].as_u64() <= Some(made), "{made}: {seen:#}");
}

#[tokio::test]
async fn what_hangs_at_the_old_address_does_not_hide_that_new_connections_are_answered() {
    let (scene, server) = (Scene::new([]), Yes::new().await);
    let mut with = server.probe();
    (with["clients"], with["at_most"]) = (json!(["fresh"]), json!("1h"));
    let seen = probe(&scene, with, async {
        server.is(Mood::Stuck);
        tokio::time::sleep(Duration::from_millis(150)).await;
        server.is(Mood::Well);
    })
    .await
    .expect("it ends");
    assert!(span(&seen["longest_gap"]) < Duration::from_secs(10), "{seen:#}");
}

#[tokio::test]
async fn who_is_never_ready_says_why() {
    let scene = Scene::new([]);
    let with = json!({ "address": "127.0.0.1:9", "ready_within": "50ms" });
    let error = scene.run("probe.tcp", with).await.expect_err("nobody listens");
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(error.message.contains("no 3 good answers") && error.message.contains("refused"), "{}", error.message);
    assert_eq!(scene.heard.readies.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_service_that_does_not_come_back_is_a_failure() {
    let (scene, server) = (Scene::new([]), Yes::new().await);
    let error = probe(&scene, server.probe(), async { server.is(Mood::Away) }).await.expect_err("it is away");
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(error.message.contains("no good answers since"), "{}", error.message);
    server.is(Mood::Well);
    let seen = probe(&scene, server.probe(), async {}).await.expect("it is back");
    assert!(span(&seen["longest_gap"]) > Duration::from_secs(10), "the end of the first attempt was a gap: {seen:#}");
}
