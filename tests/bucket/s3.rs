//! S3: rclone's server, and answers that no server at hand gives.

use bytes::Bytes;
use ferry::stores::bucket::{BucketError, Condition, Properties};

use super::parts::scene::s3_store;
use super::parts::{self, NEW};
use super::{keys, open};

#[tokio::test]
async fn an_object_is_written_read_listed_and_deleted() {
    let Some(server) = parts::s3(NEW) else { return };
    let bucket = open(s3_store(server.port, NEW));
    let properties = Properties {
        content_type: Some("text/x-one".to_owned()),
        user: [("mark".to_owned(), "ü  x".to_owned())].into(),
        ..Properties::default()
    };
    let facts = bucket.put("in/a b+ü", &properties, Bytes::from_static(b"content"), &Condition::None).await.expect("written");
    assert_eq!(facts.size, 7);
    let head = bucket.head("in/a b+ü").await.expect("it is there");
    assert!(head.facts.agree(&facts), "{head:?} {facts:?}");
    assert_eq!(head.md5.as_deref(), Some("9a0364b9e99bb480dd25e1f0284c8555"));
    let got = bucket.get("in/a b+ü", None, None).await.expect("read");
    assert_eq!((&got.body[..], got.head.facts.size), (&b"content"[..], 7));
    let got = bucket.get("in/a b+ü", Some(2..5), head.facts.etag.as_deref()).await.expect("read");
    assert_eq!((&got.body[..], got.head.facts.size), (&b"nte"[..], 7));
    assert!(matches!(bucket.get("in/none", None, None).await, Err(BucketError::Missing)));
    assert!(matches!(bucket.head("in/none").await, Err(BucketError::Missing)));
    assert_eq!(keys(&*bucket, "in/", 0).await, ["in/a b+ü"]);
    let all = ["in/a b+ü".to_owned(), "in/none".to_owned()];
    assert!(bucket.delete(&all).await.expect("deleted").is_empty());
    assert!(keys(&*bucket, "in/", 0).await.is_empty());
}

#[tokio::test]
async fn an_upload_goes_on_in_another_process() {
    let Some(server) = parts::s3(NEW) else { return };
    let bucket = open(s3_store(server.port, NEW));
    let part = |byte: u8| Bytes::from(vec![byte; 5 << 20]);
    let upload = bucket.begin("big", &Properties::default()).await.expect("begun");
    let mut sent = vec![bucket.put_part("big", &upload, 1, part(1)).await.expect("sent")];
    sent.push(bucket.put_part("big", &upload, 2, part(2)).await.expect("sent"));
    drop(bucket);
    let bucket = open(s3_store(server.port, NEW));
    sent.push(bucket.put_part("big", &upload, 3, Bytes::from_static(b"end")).await.expect("sent"));
    let facts = bucket.complete("big", &upload, &Properties::default(), &sent, &Condition::None).await.expect("completed");
    assert_eq!(facts.size, (10 << 20) + 3);
    let head = bucket.head("big").await.expect("it is there");
    assert_eq!(head.facts.size, facts.size);
    // Once more, as after a lost answer in the process before: this server's `ETag` does not tell of parts.
    let again = bucket.complete("big", &upload, &Properties::default(), &sent, &Condition::None).await;
    assert!(matches!(again, Err(BucketError::Missing)), "{again:?}");
}
