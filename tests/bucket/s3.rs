//! S3: rclone's server, and answers that no server at hand gives.

use bytes::Bytes;
use ferry::secret::Text;
use ferry::stores::bucket::{BucketError, Condition, CopyFrom, PageQuery, Properties};

use super::parts::scene::s3_store;
use super::parts::{self, NEW, OLD};
use super::{KEPT, keys, open};

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

#[tokio::test]
async fn a_listing_of_many_pages_is_whole_and_starts_anywhere() {
    let Some(server) = parts::s3(NEW) else { return };
    let folder = server.data.path().join("box/many");
    std::fs::create_dir(&folder).expect("made");
    for number in 0..2345 {
        std::fs::write(folder.join(format!("{number:04}")), "x").expect("written");
    }
    let bucket = open(s3_store(server.port, NEW));
    let all = keys(&*bucket, "many/", 0).await;
    assert_eq!(all.len(), 2345);
    assert!(all.is_sorted());
    let after = PageQuery { prefix: "many/".to_owned(), start_after: Some("many/2340".to_owned()), ..PageQuery::default() };
    let page = bucket.list(after).await.expect("listed");
    assert_eq!(page.entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), all[2341..]);
    let page = bucket.list(PageQuery { delimiter: true, ..PageQuery::default() }).await.expect("listed");
    assert_eq!((page.entries.len(), page.prefixes), (0, vec!["many/".to_owned()]));
    assert!(bucket.delete(&all).await.expect("deleted").is_empty());
    assert!(keys(&*bucket, "many/", 0).await.is_empty());
}

#[tokio::test]
async fn an_upload_that_is_thrown_away_is_gone() {
    let Some(server) = parts::s3(NEW) else { return };
    let bucket = open(s3_store(server.port, NEW));
    let upload = bucket.begin("in/a", &Properties::default()).await.expect("begun");
    bucket.put_part("in/a", &upload, 1, Bytes::from_static(b"content")).await.expect("sent");
    let unfinished = bucket.uploads("in/").await.expect("listed");
    assert_eq!(unfinished.iter().map(|one| (&*one.key, &*one.id)).collect::<Vec<_>>(), [("in/a", upload.as_str())]);
    assert!(unfinished[0].started.is_some());
    assert!(bucket.uploads("other/").await.expect("listed").is_empty());
    for _ in 0..2 {
        bucket.abort("in/a", &upload).await.expect("gone");
    }
    assert!(bucket.uploads("").await.expect("listed").is_empty());
    let late = bucket.put_part("in/a", &upload, 2, Bytes::from_static(b"content")).await;
    assert!(matches!(late, Err(BucketError::Missing)), "{late:?}");
}

#[tokio::test]
async fn a_copy_inside_the_service_is_not_sent() {
    let Some(server) = parts::s3(NEW) else { return };
    let bucket = open(s3_store(server.port, NEW));
    let properties = Properties { content_type: Some("text/x-one".to_owned()), ..Properties::default() };
    let body = Bytes::from(vec![3; 6 << 20]);
    bucket.put("a b", &properties, body.clone(), &Condition::None).await.expect("written");
    let from = CopyFrom { bucket: bucket.name().to_owned(), key: "a b".to_owned(), if_match: None };
    let facts = bucket.copy(&from, "copy", KEPT, &Condition::None).await.expect("copied");
    assert_eq!(facts.size, 6 << 20);
    assert_eq!(bucket.head("copy").await.expect("there").properties.content_type, properties.content_type);
    let none = CopyFrom { key: "none".to_owned(), ..from.clone() };
    assert!(matches!(bucket.copy(&none, "copy", KEPT, &Condition::None).await, Err(BucketError::Missing)));
    let upload = bucket.begin("parts", &properties).await.expect("begun");
    // This server takes it for an empty part and says so with an answer that has no result: not a success.
    let part = bucket.copy_part(&from, 0..5 << 20, "parts", &upload, 1).await;
    assert!(matches!(part, Err(BucketError::Refused(_))), "{part:?}");
    bucket.abort("parts", &upload).await.expect("gone");
}

#[tokio::test]
async fn a_wrong_key_and_a_missing_bucket_are_called_so() {
    let Some(server) = parts::s3(NEW) else { return };
    let bucket = open(s3_store(server.port, OLD));
    for error in [
        bucket.head("a").await.map(|_| ()).expect_err("refused"),
        bucket.list(PageQuery::default()).await.map(|_| ()).expect_err("refused"),
    ] {
        let BucketError::Failed(error) = error else { panic!("{error:?}") };
        assert!(error.message.contains("the store refuses"), "{error}");
    }
    let mut options = s3_store(server.port, NEW);
    options.insert("bucket".to_owned(), Text::new("none"));
    let bucket = open(options);
    for error in [
        bucket.list(PageQuery::default()).await.map(|_| ()).expect_err("none there"),
        bucket.put("a", &Properties::default(), Bytes::new(), &Condition::None).await.map(|_| ()).expect_err("none there"),
        bucket.begin("a", &Properties::default()).await.map(|_| ()).expect_err("none there"),
    ] {
        let BucketError::Failed(error) = error else { panic!("{error:?}") };
        assert!(error.message.contains("the bucket or container does not exist"), "{error}");
    }
}
