//! Keys arrive exactly: at real servers as far as these can hold them, and on the wire in any case.

use bytes::Bytes;
use ferry::stores::bucket::{Bucket, Condition, PageQuery, Properties};

use super::fake::{Fake, OK};
use super::open;
use super::parts::scene::{azure_store, s3_store};
use super::parts::{self, NEW};

/// What every server at hand can hold.
const ODD: &[&str] = &[
    "a+b",
    "a%2Fb",
    "a%b",
    "ü/✓/\u{1F600}",
    "q?x=1#f",
    "&<>\"'",
    "a b",
    "in/ner  two",
    "a=b&c",
    "~!*()'$,;:@",
    "{}|^`[]",
    "..a/b..",
    "a\u{7f}b",
];

/// What some change or refuse.
const ODDER: &[&str] = &[
    "a//b", "/lead", "a/./b", "a/../b", "./x", "../y", "..", " edge ", "ctl\u{1}", "tab\t", "nl\nx", "cr\rx", "a\\b", "trail/",
    "trail//", "dot.",
];

async fn round_trip(bucket: &dyn Bucket, key: &str) -> Result<(), String> {
    let body = Bytes::from(key.to_owned());
    bucket.put(key, &Properties::default(), body.clone(), &Condition::None).await.map_err(|error| format!("put: {error:?}"))?;
    let got = bucket.get(key, None, None).await.map_err(|error| format!("get: {error:?}"))?;
    let page = bucket.list(PageQuery { prefix: key.to_owned(), ..PageQuery::default() }).await;
    let page = page.map_err(|error| format!("list: {error:?}"))?;
    let listed: Vec<_> = page.entries.iter().map(|entry| entry.key.as_str()).collect();
    if got.body != body || listed != [key] {
        return Err(format!("read {:?}, listed {listed:?}", got.body));
    }
    let failed = bucket.delete(&[key.to_owned()]).await.map_err(|error| format!("delete: {error:?}"))?;
    if failed.is_empty() && bucket.head(key).await.is_err() { Ok(()) } else { Err(format!("not deleted: {failed:?}")) }
}

/// Tries all; only these may not come back.
async fn all_but(bucket: &dyn Bucket, all: &[&str], cannot: &[&str]) {
    let mut lost = Vec::new();
    for key in all {
        if let Err(why) = round_trip(bucket, key).await {
            lost.push((*key, why));
        }
    }
    let names: Vec<&str> = lost.iter().map(|(key, _)| *key).collect();
    assert_eq!(names, cannot, "{lost:#?}");
}

#[tokio::test]
async fn odd_keys_come_back_from_an_s3_server() {
    let Some(server) = parts::s3(NEW) else { return };
    let bucket = open(s3_store(server.port, NEW));
    all_but(&*bucket, ODD, &[]).await;
    // It keeps files in folders, and refuses what it cannot hold.
    let cannot = ["a//b", "/lead", "a/./b", "a/../b", "./x", "../y", "..", "trail/", "trail//"];
    all_but(&*bucket, ODDER, &cannot).await;
}

#[tokio::test]
async fn odd_keys_come_back_from_azure() {
    let Some(server) = parts::azure() else { return };
    let bucket = open(azure_store(&server).await);
    all_but(&*bucket, ODD, &[]).await;
    // azurite writes a listing's control characters as they are, which no XML is; a backslash is a slash to it there.
    all_but(&*bucket, ODDER, &["ctl\u{1}", "a\\b"]).await;
    let long = "k".repeat(1024);
    round_trip(&*bucket, &long).await.expect("1024 bytes");
}

#[tokio::test]
async fn every_key_goes_out_as_it_is() {
    let fake = Fake::start(|_, _| OK).await;
    let bucket = open(fake.store(&[]));
    let long = "k".repeat(1024);
    for key in ODD.iter().chain(ODDER).chain([&long.as_str()]) {
        bucket.put(key, &Properties::default(), Bytes::new(), &Condition::None).await.expect(key);
        let line = fake.seen().last().expect("asked").line.clone();
        let path = line.strip_prefix("PUT /box/").and_then(|rest| rest.strip_suffix(" HTTP/1.1")).expect("a path");
        assert!(path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~/%".contains(&byte)), "{path}");
        let plain = urlencoding(path);
        assert_eq!(plain, key.as_bytes(), "{line}");
        assert_eq!(path.matches('/').count(), key.matches('/').count(), "{line}");
    }
    let lines: Vec<String> = fake.seen().into_iter().map(|seen| seen.line).collect();
    for line in ["PUT /box//lead HTTP/1.1", "PUT /box/a/../b HTTP/1.1", "PUT /box/a%2Bb HTTP/1.1", "PUT /box/.. HTTP/1.1"] {
        assert!(lines.iter().any(|known| known == line), "{line}");
    }
}

fn urlencoding(path: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next().expect("two digits"), rest.next().expect("two digits")];
            let digits = std::str::from_utf8(&digits).expect("digits").to_owned();
            bytes.push(u8::from_str_radix(&digits, 16).expect("digits"));
        } else {
            bytes.push(byte);
        }
    }
    bytes
}
