//! A nasty tree (names, sizes, metadata) between every two kinds of places, held against what is really there and against
//! `rclone check --download` as a second opinion. What a place cannot hold is refused by name and not lost.
//!
//! The tree is small unless `FERRY_SWEEP` is set (`make sweep`): then it has all sizes around a part, two and three.

#[path = "matrix/place.rs"]
mod place;
#[path = "matrix/tree.rs"]
mod tree;

mod parts;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use ferry::stores::bucket::Properties;
use parts::scene::Scene;
use place::Place;
use serde_json::json;
use tree::{CONTROLS, FLAT, MARKER, PREFIXES, Seen, TRAILING_SPACE};

/// After so many rounds of "leave out what was refused, then again" a sync has to succeed.
const ROUNDS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn every_place_to_every_place() {
    let is_full = std::env::var_os("FERRY_SWEEP").is_some();
    let Some(places) = place::all().await else { return };
    let scene = Scene::new(places.iter().map(|place| (place.name, place.options.clone())));
    let mut sources = Vec::new();
    for place in &places {
        let tree = tree::tree(place.files.is_none(), is_full, place.cannot);
        place.fill(&scene, "in/", &tree, &properties()).await;
        let seen = place.look(&scene, "in/").await;
        assert_eq!(seen.len(), tree.len(), "{} holds all that it was given", place.name);
        sources.push(seen);
    }
    let conf = place::rclone_conf(&places, scene.folder.path());
    // rclone reads and compares while the next one is copied.
    let (mut wrong, mut reading) = (Vec::new(), tokio::task::JoinSet::new());
    let places: Vec<Arc<Place>> = places.into_iter().map(Arc::new).collect();
    for (number, (from, source)) in places.iter().zip(&sources).enumerate() {
        // From a place to itself too: within a bucket the service copies.
        for to in &places {
            let way = format!("{} to {}", from.name, to.name);
            let prefix = format!("o{number}/");
            match one_way(&scene, from, to, &prefix, source).await {
                Err(why) => wrong.push(format!("{way}: {why}")),
                Ok(wanted) => {
                    let (conf, from, to) = (conf.clone(), from.clone(), to.clone());
                    reading.spawn_blocking(move || {
                        second_opinion(&conf, &from, &to, &prefix, &wanted).map_err(|why| format!("{way}: {why}"))
                    });
                }
            }
        }
    }
    wrong.extend(reading.join_all().await.into_iter().filter_map(Result::err));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Brings one tree from one place to another; gives what has to be there.
async fn one_way(scene: &Scene, from: &Place, to: &Place, prefix: &str, source: &Seen) -> Result<Seen, String> {
    let told = until_it_succeeds(scene, from, to, prefix, source).await?;
    let sure: BTreeSet<&str> = told.iter().map(String::as_str).filter(|name| !PREFIXES.contains(name)).collect();
    let refused = expected(from, to, source);
    if sure != refused {
        return Err(format!("refused by name are {sure:?}, and not {refused:?}"));
    }
    let there = to.look(scene, prefix).await;
    let mut wanted = source.clone();
    wanted.retain(|name, _| !told.contains(name) && !to.cannot.contains(&name.as_str()));
    if to.files.is_some() {
        // Among files a folder without any has nothing to say.
        wanted.remove(MARKER);
    }
    let differ: Vec<_> = wanted.iter().filter(|(name, is)| there.get(*name) != Some(is)).map(|(name, _)| name).collect();
    if !differ.is_empty() {
        return Err(format!("not as at the source: {differ:?}"));
    }
    if from.files.is_none() && to.files.is_none() {
        let kept = to.properties(scene, &format!("{prefix}plain.txt")).await.expect("a bucket's");
        if (Properties { storage_class: None, ..kept.clone() }) != properties() {
            return Err(format!("kept with the object: {kept:?}"));
        }
    }
    Ok(wanted)
}

fn properties() -> Properties {
    Properties {
        content_type: Some("text/x-nasty".to_owned()),
        content_encoding: Some("x-none".to_owned()),
        content_disposition: Some("attachment; filename=\"a b\"".to_owned()),
        cache_control: Some("no-store".to_owned()),
        content_language: Some("de".to_owned()),
        user: [("colour".to_owned(), "gr\u{fc}n  \u{2713}".to_owned())].into(),
        ..Properties::default()
    }
}

/// Syncs as a person would: what is refused by name is left out, then once more. Gives all that was told.
async fn until_it_succeeds(
    scene: &Scene,
    from: &Place,
    to: &Place,
    prefix: &str,
    source: &Seen,
) -> Result<BTreeSet<String>, String> {
    let place = |place: &Place, prefix: &str| format!("{}:{prefix}", place.name);
    let (from, target) = (place(from, "in/"), place(to, prefix));
    let mut told = BTreeSet::new();
    for _ in 0..ROUNDS {
        scene.heard.lines.lock().expect("not poisoned").clear();
        let left_out = told.iter().map(String::as_str).chain(to.cannot.iter().copied());
        let exclude: Vec<String> = left_out.map(pattern).collect();
        let with = json!({"from": from, "to": target, "exclude": exclude});
        let error = match scene.run("object.sync", with).await {
            Ok(output) => {
                let count = |name: &str| output[name].as_u64().unwrap_or_default();
                if count("objects") != count("copied") + count("skipped") {
                    return Err(format!("{output}"));
                }
                let proof = json!({"from": from, "to": target, "exclude": exclude, "by": "checksum"});
                return match scene.run("object.compare", proof).await {
                    // What is at a target besides comes from a name that the server has changed.
                    Err(error) if ["is missing", "has another"].iter().any(|word| error.message.contains(word)) => {
                        Err(format!("{error}"))
                    }
                    _ => Ok(told),
                };
            }
            Err(error) => error,
        };
        let lines = scene.heard.lines.lock().expect("not poisoned").clone();
        let named: Vec<&String> = source.keys().filter(|name| lines.iter().any(|line| names(line, name))).collect();
        let before = told.len();
        told.extend(named.into_iter().cloned());
        if told.len() == before {
            return Err(format!("nothing new is named: {error} {lines:#?}"));
        }
    }
    Err(format!("it never succeeds: {told:?}"))
}

/// Whether a line of the log tells that this object was not copied.
fn names(line: &str, name: &str) -> bool {
    let is_refused = line.strip_prefix("failed: ").is_some_and(|line| {
        ["the name ", "cannot write ", "cannot read ", ""].iter().any(|start| {
            line.strip_prefix(start)
                .and_then(|rest| rest.strip_prefix('`')?.strip_prefix(name)?.strip_prefix('`'))
                .is_some_and(|rest| rest.starts_with(" cannot") || rest.starts_with(" to ") || rest.starts_with(" in "))
        })
    });
    is_refused || (line.starts_with("copied, and ") && line.ends_with(&format!(" afterwards: {name}")))
}

/// A pattern that matches this name and no other.
fn pattern(name: &str) -> String {
    let mut pattern = "/".to_owned();
    for c in name.chars() {
        match c {
            '\\' => pattern.push_str("\\\\"),
            '*' | '?' | '[' | ']' | '{' | '}' => pattern.extend(['[', c, ']']),
            c => pattern.push(c),
        }
    }
    pattern
}

/// What has to be refused by name, by ferry's own rule for the kind of place or by the server behind it.
fn expected<'a>(from: &Place, to: &Place, source: &'a Seen) -> BTreeSet<&'a str> {
    let by_files = |name: &str| FLAT.contains(&name) && !PREFIXES.contains(&name);
    source
        .keys()
        .map(String::as_str)
        .filter(|name| match (from.is_flat, to.name) {
            // White space at the end is lost on the way to and from what is asked by OpenDAL.
            (false, _) => *name == TRAILING_SPACE,
            (true, "garage" | "azure") => false,
            (true, "s3") => by_files(name) || *name == MARKER,
            (true, _) => by_files(name) || *name == TRAILING_SPACE,
        })
        .collect()
}

/// `rclone check --download`: reads all at both places and compares the bytes.
fn second_opinion(conf: &Path, from: &Place, to: &Place, prefix: &str, wanted: &Seen) -> Result<(), String> {
    let remote = |place: &Place, prefix: &str| format!("{}:{}{prefix}", place.name, place.remote.1);
    let output = Command::new(parts::folder().join("venv/bin/rclone"))
        .args(["check", "--download", "--no-unicode-normalization", "--combined", "-", "--config"])
        .arg(conf)
        .args([remote(from, "in"), remote(to, prefix.trim_end_matches('/'))])
        .output()
        .expect("rclone runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: BTreeSet<&str> = said.lines().collect();
    let is_equal = |name: &str| lines.contains(format!("= {name}").as_str());
    // It has no names for these, or another for each kind of place.
    let is_beyond_it =
        |name: &str| name == MARKER || CONTROLS.contains(&name) || (FLAT.contains(&name) && !PREFIXES.contains(&name));
    let other: Vec<_> = wanted.keys().filter(|name| !is_beyond_it(name) && !is_equal(name)).collect();
    if other.is_empty() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let said: Vec<_> = lines.iter().filter(|line| !line.starts_with("= ")).collect();
    Err(format!("rclone does not find these equal: {other:?}; it says {said:#?} {errors}"))
}
