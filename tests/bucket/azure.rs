//! Azure Blob: azurite.

use bytes::Bytes;
use ferry::stores::bucket::{BucketError, Condition, CopyFrom, PageQuery, Properties};

use super::parts;
use super::parts::scene::azure_store;
use super::{KEPT, keys, open};

#[tokio::test]
async fn a_blob_is_written_read_listed_copied_and_deleted() {
    let Some(server) = parts::azure() else { return };
    let bucket = open(azure_store(&server).await);
    let properties = Properties {
        content_type: Some("text/x-one".to_owned()),
        content_encoding: Some("x-none".to_owned()),
        content_disposition: Some("attachment".to_owned()),
        content_language: Some("de, en".to_owned()),
        cache_control: Some("no-store".to_owned()),
        storage_class: Some("Cool".to_owned()),
        user: [("mark".to_owned(), "ü  x".to_owned()), ("plain".to_owned(), "a b".to_owned())].into(),
        tags: [("a b".to_owned(), "c+d".to_owned())].into(),
        ..Properties::default()
    };
    let body = Bytes::from_static(b"content");
    let facts = bucket.put("in/a b+ü", &properties, body.clone(), &Condition::Absent).await.expect("written");
    let again = bucket.put("in/a b+ü", &properties, body.clone(), &Condition::Absent).await;
    assert!(matches!(again, Err(BucketError::Changed)), "{again:?}");
    let head = bucket.head("in/a b+ü").await.expect("it is there");
    assert_eq!(head.facts.etag, facts.etag);
    assert_eq!(head.properties, Properties { tags: [].into(), ..properties.clone() });
    assert_eq!(head.md5.as_deref(), Some("9a0364b9e99bb480dd25e1f0284c8555"));
    assert_eq!(head.tags, 1);
    assert_eq!(bucket.tags("in/a b+ü").await.expect("tags"), properties.tags);
    let got = bucket.get("in/a b+ü", Some(2..5), facts.etag.as_deref()).await.expect("read");
    assert_eq!((&got.body[..], got.head.facts.size), (&b"nte"[..], 7));
    let got = bucket.get("in/a b+ü", None, None).await.expect("read");
    assert_eq!((&got.body, &got.head.md5), (&body, &head.md5));
    let facts = bucket.put("in/a b+ü", &properties, body.clone(), &Condition::Still(facts.etag.expect("one"))).await;
    let facts = facts.expect("still the one");
    let wrong = bucket.get("in/a b+ü", None, Some("\"0x123\"")).await;
    assert!(matches!(wrong, Err(BucketError::Changed)), "{wrong:?}");
    let from = CopyFrom { bucket: bucket.name().to_owned(), key: "in/a b+ü".to_owned(), if_match: facts.etag.clone() };
    let copied = bucket.copy(&from, "in/copy", KEPT, &Condition::None).await.expect("copied");
    assert_eq!(copied.size, 7);
    assert_eq!(bucket.head("in/copy").await.expect("there").properties.user, properties.user);
    assert!(matches!(bucket.get("in/none", None, None).await, Err(BucketError::Missing)));
    assert!(matches!(bucket.head("in/none").await, Err(BucketError::Missing)));
    assert_eq!(keys(&*bucket, "in/", 1).await, ["in/a b+ü", "in/copy"]);
    let page = bucket.list(PageQuery { start_after: Some("in/a b+ü".to_owned()), ..PageQuery::default() }).await.expect("listed");
    assert_eq!(page.entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["in/copy"]);
    assert!(page.entries[0].facts.agree(&copied), "{page:?} {copied:?}");
    let page = bucket.list(PageQuery { delimiter: true, ..PageQuery::default() }).await.expect("listed");
    assert_eq!((page.entries.len(), page.prefixes), (0, vec!["in/".to_owned()]));
    assert!(matches!(bucket.delete_if("in/copy", "\"0x123\"").await, Err(BucketError::Changed)));
    assert!(matches!(bucket.delete_if("in/none", "\"0x123\"").await, Err(BucketError::Missing | BucketError::Changed)));
    let etag = bucket.head("in/copy").await.expect("still there").facts.etag.expect("one");
    bucket.delete_if("in/copy", &etag).await.expect("deleted");
    assert!(matches!(bucket.head("in/copy").await, Err(BucketError::Missing)));
    let all = ["in/a b+ü".to_owned(), "in/copy".to_owned(), "in/none".to_owned()];
    assert!(bucket.delete(&all).await.expect("deleted").is_empty());
    assert!(keys(&*bucket, "in/", 0).await.is_empty());
}

#[tokio::test]
async fn an_upload_goes_on_in_another_process() {
    let Some(server) = parts::azure() else { return };
    let options = azure_store(&server).await;
    let bucket = open(options.clone());
    let part = |byte: u8| Bytes::from(vec![byte; 1 << 20]);
    let properties = Properties { content_type: Some("text/x-one".to_owned()), ..Properties::default() };
    let upload = bucket.begin("up/big", &properties).await.expect("begun");
    let mut sent = vec![bucket.put_part("up/big", &upload, 2, part(2)).await.expect("sent")];
    sent.push(bucket.put_part("up/big", &upload, 1, part(1)).await.expect("sent"));
    drop(bucket);
    let bucket = open(options);
    let unfinished = bucket.uploads("up/").await.expect("listed");
    assert_eq!(
        unfinished.iter().map(|one| (one.key.as_str(), one.id.as_str())).collect::<Vec<_>>(),
        [("up/big", upload.as_str())]
    );
    assert!(keys(&*bucket, "up/", 0).await.is_empty());
    sent.push(bucket.put_part("up/big", &upload, 3, Bytes::from_static(b"end")).await.expect("sent"));
    let facts = bucket.complete("up/big", &upload, &properties, &sent, &Condition::Absent).await.expect("completed");
    assert_eq!(facts.size, (2 << 20) + 3);
    // Once more, as after an answer that was lost in the process before.
    let again = bucket.complete("up/big", &upload, &properties, &sent, &Condition::Absent).await.expect("it is that one");
    assert!(again.agree(&facts), "{again:?} {facts:?}");
    let got = bucket.get("up/big", Some((1 << 20) - 1..(1 << 20) + 1), None).await.expect("read");
    assert_eq!((&got.body[..], got.head.properties.content_type), (&[1, 2][..], properties.content_type.clone()));
    assert!(bucket.uploads("up/").await.expect("listed").is_empty());
    let other = bucket.begin("up/big", &properties).await.expect("begun");
    let none = bucket.complete("up/gone", &other, &properties, &sent, &Condition::None).await;
    assert!(matches!(none, Err(BucketError::Missing)), "{none:?}");
    bucket.abort("up/big", &other).await.expect("nothing to do");
    assert_eq!(bucket.head("up/big").await.expect("still there").facts.size, facts.size);
}
