//! Answers that no S3 server at hand gives: another region, an expired token, what is not implemented, what was done
//! although its answer was lost.

use bytes::Bytes;
use ferry::error::ErrorClass;
use ferry::stores::bucket::{BucketError, Condition, Part, Properties};

use super::fake::{Fake, OK, Reply};
use super::{keys, open};

const BODY: Bytes = Bytes::from_static(b"content");

#[tokio::test]
async fn a_bucket_in_another_region_is_signed_for_that_region() {
    let fake = Fake::start(|seen, _| {
        if seen.header("authorization").is_some_and(|login| login.contains("/eu-b-2/s3/")) {
            return OK;
        }
        if seen.asks("HEAD") {
            Reply(400, &[("x-amz-bucket-region", "eu-b-2")], "")
        } else {
            Reply(400, &[], "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-b-2</Region></Error>")
        }
    })
    .await;
    let bucket = open(fake.store(&[]));
    bucket.put("a", &Properties::default(), BODY, &Condition::None).await.expect("written");
    bucket.put("b", &Properties::default(), BODY, &Condition::None).await.expect("written");
    assert_eq!(fake.seen().len(), 3, "the second knows the region");
    let bucket = open(fake.store(&[]));
    bucket.head("a").await.expect("looked at");
    assert_eq!(fake.seen().len(), 5);

    let fake = Fake::start(|seen, _| {
        let is_there = seen.header("authorization").is_some_and(|login| login.contains("/eu-b-2/s3/"));
        if is_there {
            OK
        } else {
            Reply(301, &[("x-amz-bucket-region", "eu-b-2")], "<Error><Code>PermanentRedirect</Code></Error>")
        }
    })
    .await;
    open(fake.store(&[])).put("a", &Properties::default(), BODY, &Condition::None).await.expect("written");
    assert_eq!(fake.seen().len(), 2);
}

#[tokio::test]
async fn an_expired_token_is_loaded_again_once() {
    const EXPIRED: Reply = Reply(400, &[], "<Error><Code>ExpiredToken</Code><Message>it has expired</Message></Error>");
    let fake = Fake::start(|_, number| if number == 0 { EXPIRED } else { OK }).await;
    open(fake.store(&[("session_token", "t")])).head("a").await.expect("with the new token");
    assert_eq!(fake.seen().len(), 2);
    let fake = Fake::start(|_, _| EXPIRED).await;
    let error = open(fake.store(&[("session_token", "t")])).get("a", None, None).await.expect_err("still expired");
    let BucketError::Failed(error) = error else { panic!("{error:?}") };
    assert!(error.message.contains("the store refuses the key"), "{error}");
    assert_eq!(fake.seen().len(), 2);
}

#[tokio::test]
async fn what_is_not_implemented_is_left_out_from_then_on() {
    let fake = Fake::start(|seen, _| {
        if seen.header("if-none-match").is_some() {
            return Reply(501, &[], "<Error><Code>NotImplemented</Code><Header>If-None-Match</Header></Error>");
        }
        OK
    })
    .await;
    let bucket = open(fake.store(&[]));
    assert!(bucket.can().conditions);
    for _ in 0..2 {
        bucket.put("a", &Properties::default(), BODY, &Condition::Absent).await.expect("written without it");
    }
    assert!(!bucket.can().conditions);
    assert_eq!(fake.seen().len(), 3);
}

#[tokio::test]
async fn a_checksum_that_is_refused_gives_way_to_an_older_one() {
    let fake = Fake::start(|seen, _| {
        if seen.headers.iter().any(|(name, _)| name.starts_with("x-amz-checksum")) {
            let body =
                "<Error><Code>NotImplemented</Code><Message>header x-amz-checksum-x implies what is not there</Message></Error>";
            return Reply(501, &[], body);
        }
        OK
    })
    .await;
    let bucket = open(fake.store(&[]));
    for _ in 0..2 {
        bucket.put("a", &Properties::default(), BODY, &Condition::Absent).await.expect("written");
    }
    let seen = fake.seen();
    assert!(seen[0].header("x-amz-checksum-crc64nvme").is_some());
    assert!(seen[1].header("x-amz-checksum-crc32c").is_some());
    assert_eq!(seen[2].header("content-md5"), Some("mgNkuembtIDdJeHwKEyFVQ=="));
    assert!(seen[2].header("if-none-match").is_some(), "the condition was not what was refused");
    assert_eq!(seen.len(), 4, "it is remembered");
}

#[tokio::test]
async fn a_checksum_that_comes_back_other_than_it_went_is_a_failure() {
    let fake = Fake::start(|_, _| Reply(200, &[("etag", "\"x\""), ("x-amz-checksum-crc64nvme", "AAAAAAAAAAA=")], "")).await;
    let bucket = open(fake.store(&[]));
    let error = bucket.put("a", &Properties::default(), BODY, &Condition::None).await.expect_err("changed on the way");
    let BucketError::Failed(error) = error else { panic!("{error:?}") };
    assert_eq!(error.class, ErrorClass::Transient);
    let error = bucket.put_part("a", "u", 1, BODY).await.expect_err("changed on the way");
    assert!(matches!(error, BucketError::Failed(_)));
}

#[tokio::test]
async fn what_was_done_although_its_answer_was_lost_is_known_as_done() {
    let headers: &[_] = &[("etag", "\"9a0364b9e99bb480dd25e1f0284c8555\""), ("content-length", "7")];
    let script = |is_ours: bool| {
        move |seen: &super::fake::Seen, number: usize| match number {
            0 => Reply(0, &[], ""),
            _ if seen.asks("PUT") => Reply(412, &[], "<Error><Code>PreconditionFailed</Code></Error>"),
            _ if is_ours => Reply(200, headers, ""),
            _ => Reply(200, &[("etag", "\"00000000000000000000000000000000\""), ("content-length", "7")], ""),
        }
    };
    let fake = Fake::start(script(true)).await;
    let facts = open(fake.store(&[])).put("a", &Properties::default(), BODY, &Condition::Absent).await.expect("it is there");
    assert_eq!((facts.size, fake.seen().len()), (7, 3));
    let fake = Fake::start(script(false)).await;
    let other = open(fake.store(&[])).put("a", &Properties::default(), BODY, &Condition::Absent).await;
    assert!(matches!(other, Err(BucketError::Changed)), "{other:?}");
    // Without a lost answer nobody looks.
    let fake = Fake::start(|_, _| Reply(412, &[], "<Error><Code>PreconditionFailed</Code></Error>")).await;
    let other = open(fake.store(&[])).put("a", &Properties::default(), BODY, &Condition::Absent).await;
    assert!(matches!(other, Err(BucketError::Changed)), "{other:?}");
    assert_eq!(fake.seen().len(), 1);
}

/// Two parts; the `ETag` of what they make.
fn parts() -> [Part; 2] {
    // The MD5s of `a` and `b`.
    ["0cc175b9c0f1b6a831c399e269772661", "92eb5ffee6ae2fec3ad71c777531578f"].map(|etag| Part {
        number: u32::from(etag.starts_with('9')) + 1,
        etag: format!("\"{etag}\""),
        size: 5 << 20,
        checksum: None,
    })
}

#[tokio::test]
async fn an_upload_that_another_process_has_completed_is_known_by_its_etag() {
    const GONE: Reply = Reply(404, &[], "<Error><Code>NoSuchUpload</Code></Error>");
    let fake = Fake::start(|seen, _| {
        if seen.asks("POST") {
            GONE
        } else {
            Reply(200, &[("etag", "\"96e024ba2074fe77e8e965ba43a704be-2\""), ("content-length", "10485760")], "")
        }
    })
    .await;
    let facts = open(fake.store(&[])).complete("a", "u", &Properties::default(), &parts(), &Condition::None).await;
    assert_eq!(facts.expect("it is that one").size, 10 << 20);
    // An older object of the same size in as many parts.
    let fake = Fake::start(|seen, _| {
        if seen.asks("POST") {
            GONE
        } else {
            Reply(200, &[("etag", "\"00000000000000000000000000000000-2\""), ("content-length", "10485760")], "")
        }
    })
    .await;
    let other = open(fake.store(&[])).complete("a", "u", &Properties::default(), &parts(), &Condition::None).await;
    assert!(matches!(other, Err(BucketError::Missing)), "{other:?}");
}

#[tokio::test]
async fn an_error_inside_a_success_is_an_error() {
    let fake = Fake::start(|_, number| match number {
        0 => Reply(200, &[], "\n <?xml version=\"1.0\"?>\n<Error><Code>InternalError</Code><Message>again</Message></Error>"),
        _ => Reply(200, &[], "<CompleteMultipartUploadResult><ETag>&quot;x-2&quot;</ETag></CompleteMultipartUploadResult>"),
    })
    .await;
    let facts = open(fake.store(&[])).complete("a", "u", &Properties::default(), &parts(), &Condition::None).await;
    assert_eq!(facts.expect("the second time").etag.as_deref(), Some("\"x-2\""));
    let fake = Fake::start(|_, _| Reply(200, &[], "<Error><Code>AccessDenied</Code><Message>no</Message></Error>")).await;
    let error = open(fake.store(&[])).complete("a", "u", &Properties::default(), &parts(), &Condition::None).await;
    assert!(matches!(error, Err(BucketError::Failed(_))), "{error:?}");
}

#[tokio::test]
async fn no_message_holds_a_key_a_signature_or_an_address() {
    let body = "<Error><Code>SignatureDoesNotMatch</Code><Message>The request signature we calculated does not match</Message>\
                <SignatureProvided>5ignature</SignatureProvided><StringToSign>AWS4</StringToSign></Error>";
    let fake = Fake::start(move |_, _| Reply(403, &[], body)).await;
    let bucket = open(fake.store(&[("session_token", "t0ken")]));
    for error in [
        bucket.get("a", None, None).await.expect_err("refused"),
        bucket.head("a").await.expect_err("refused"),
        bucket.put("a", &Properties::default(), BODY, &Condition::None).await.expect_err("refused"),
    ] {
        let BucketError::Failed(error) = error else { panic!("{error:?}") };
        assert!(error.message.contains("the store refuses the key"), "{error}");
        let whole = format!("{error:?} {:?}", error.to_failure());
        for secret in ["5ignature", "t0ken", "fake-secret-canary", "AWS4", "?"] {
            assert!(!whole.contains(secret), "{secret} in {whole}");
        }
    }
}

#[tokio::test]
async fn the_first_version_of_listing_goes_on_behind_the_last_key() {
    let fake = Fake::start(|seen, _| {
        let is_behind = |key: &str| seen.line.contains(&format!("marker={key}"));
        Reply(
            200,
            &[],
            match () {
                () if seen.line.contains("list-type") => "<Error/>",
                () if is_behind("b%20b") => {
                    "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>\
                <Contents><Key>c%01</Key><Size>3</Size></Contents></ListBucketResult>"
                }
                () => {
                    "<ListBucketResult xmlns='x'><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>\
                <Contents><Key>a</Key><Owner><ID>x</ID></Owner></Contents><Contents><Key>b+b</Key></Contents></ListBucketResult>"
                }
            },
        )
    })
    .await;
    let bucket = open(fake.store(&[("disable_list_objects_v2", "true")]));
    assert_eq!(keys(&*bucket, "", 0).await, ["a", "b b", "c\u{1}"]);
}

#[tokio::test]
async fn many_are_deleted_with_one_request_and_what_xml_cannot_hold_by_itself() {
    let fake = Fake::start(|seen, _| {
        if seen.asks("POST") {
            let body = "<DeleteResult><Error><Key>b</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>";
            return Reply(200, &[], body);
        }
        Reply(204, &[], "")
    })
    .await;
    let names = ["a", "b", "c&<\r", "d\u{1}", "e\u{fffe}"].map(str::to_owned);
    let failed = open(fake.store(&[])).delete(&names).await.expect("asked");
    assert_eq!(failed.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["b"]);
    assert!(failed[0].1.message.contains("the store refuses access"), "{}", failed[0].1);
    let seen = fake.seen();
    assert!(seen[0].header("content-md5").is_some());
    assert!(seen[0].body.contains("<Key>a</Key></Object><Object><Key>b</Key></Object><Object><Key>c&amp;&lt;&#13;</Key>"));
    let mut single: Vec<_> = seen[1..].iter().map(|seen| seen.line.as_str()).collect();
    single.sort_unstable();
    assert_eq!(single, ["DELETE /box/d%01 HTTP/1.1", "DELETE /box/e%EF%BF%BE HTTP/1.1"]);
    // A service that has no such request.
    let fake = Fake::start(|seen, _| if seen.asks("POST") { Reply(501, &[], "") } else { Reply(204, &[], "") }).await;
    let bucket = open(fake.store(&[]));
    assert!(bucket.delete(&names).await.expect("asked").is_empty());
    assert_eq!((fake.seen().len(), bucket.can().deletes_at_once), (6, 1));
}

#[tokio::test]
async fn a_deletion_under_a_condition_says_when_it_does_not_hold() {
    let fake = Fake::start(|seen, _| match seen.header("if-match") {
        Some("\"old\"") => Reply(412, &[], "<Error><Code>PreconditionFailed</Code></Error>"),
        Some(_) => Reply(501, &[], "<Error><Code>NotImplemented</Code></Error>"),
        None => Reply(204, &[], ""),
    })
    .await;
    let bucket = open(fake.store(&[]));
    assert!(matches!(bucket.delete_if("a", "\"old\"").await, Err(BucketError::Changed)));
    // A service that says that it does not know the condition: who looked just before has done what can be done.
    bucket.delete_if("a", "\"new\"").await.expect("deleted");
    assert_eq!(fake.seen().len(), 3);
}

#[tokio::test]
async fn an_upload_with_checksums_is_completed_with_that_of_the_whole() {
    let fake = Fake::start(|seen, _| {
        if seen.asks("PUT") {
            // The checksum is the one of each body; the server echoes it.
            let first: &[_] = &[("etag", "\"x\""), ("x-amz-checksum-crc64nvme", "rosUhgp5mIg=")];
            return Reply(200, first, "");
        }
        Reply(200, &[], "<CompleteMultipartUploadResult><UploadId>u</UploadId><ETag>e</ETag></CompleteMultipartUploadResult>")
    })
    .await;
    let bucket = open(fake.store(&[]));
    let properties = Properties::default();
    let upload = bucket.begin("a", &properties).await.expect("begun");
    let body = Bytes::from_static(b"123456789");
    let part = bucket.put_part("a", &upload, 1, body).await.expect("sent");
    bucket.complete("a", &upload, &properties, &[part], &Condition::Still("\"old\"".to_owned())).await.expect("completed");
    let seen = fake.seen();
    assert_eq!(seen[0].header("x-amz-checksum-algorithm"), Some("CRC64NVME"));
    assert_eq!(seen[0].header("x-amz-checksum-type"), Some("FULL_OBJECT"));
    assert_eq!(seen[1].header("x-amz-checksum-crc64nvme"), Some("rosUhgp5mIg="));
    assert_eq!(seen[2].header("x-amz-checksum-crc64nvme"), Some("rosUhgp5mIg="));
    assert_eq!(seen[2].header("if-match"), Some("\"old\""));
    assert!(seen[2].body.contains("<PartNumber>1</PartNumber><ETag>&quot;x&quot;</ETag><ChecksumCRC64NVME>rosUhgp5mIg="));
}

#[tokio::test]
async fn tags_that_are_not_implemented_are_left_out_and_that_is_told() {
    let fake = Fake::start(|seen, _| match seen.header("x-amz-tagging") {
        Some(_) => Reply(501, &[], "<Error><Code>NotImplemented</Code><Message>Header 'x-amz-tagging' is not</Message></Error>"),
        None => OK,
    })
    .await;
    let bucket = open(fake.store(&[]));
    let properties = Properties { tags: [("a b".to_owned(), "c&d".to_owned())].into(), ..Properties::default() };
    for _ in 0..2 {
        bucket.put("a", &properties, BODY, &Condition::Absent).await.expect("written without them");
    }
    let seen = fake.seen();
    assert_eq!((seen.len(), bucket.can().tags, bucket.can().conditions), (3, false, true));
    assert_eq!(seen[0].header("x-amz-tagging"), Some("a%20b=c%26d"));
}

/// Run by the next test with a proxy in its environment.
#[tokio::test]
async fn through_a_proxy_the_child() {
    if std::env::var_os("FERRY_TEST_PROXIED").is_none() {
        return;
    }
    let fake = Fake::start(|_, _| OK).await;
    let bucket = open(fake.store(&[("endpoint", "http://store.invalid")]));
    bucket.put("a//b+c", &Properties::default(), BODY, &Condition::None).await.expect("written");
    let BucketError::Failed(error) =
        bucket.put("a/../b", &Properties::default(), BODY, &Condition::None).await.expect_err("refused")
    else {
        panic!("it failed otherwise");
    };
    assert!(error.message.contains("a/../b") && error.message.contains("proxy"), "{error}");
}

#[tokio::test]
async fn a_proxy_is_used_and_keys_that_it_would_change_are_refused() {
    let proxy = Fake::start(|_, _| OK).await;
    let child = tokio::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["odd::through_a_proxy_the_child", "--exact"])
        .env("FERRY_TEST_PROXIED", "1")
        .env("http_proxy", format!("http://127.0.0.1:{}", proxy.port))
        .env_remove("no_proxy")
        .env_remove("NO_PROXY")
        .output()
        .await
        .expect("it runs");
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    let lines: Vec<_> = proxy.seen().into_iter().map(|seen| seen.line).collect();
    assert_eq!(lines, ["PUT http://store.invalid/box/a//b%2Bc HTTP/1.1"]);
}

/// A moment of the service's clock, as HTTP writes it.
fn http_date(minutes_ahead: i64) -> &'static str {
    let there = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(minutes_ahead);
    Box::leak(there.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string().into_boxed_str())
}

#[tokio::test]
async fn a_clock_that_is_minutes_off_is_set_by_the_services() {
    for minutes in [-300, -5, 5, 20] {
        // It takes what was signed within a minute of its own clock, and has no body for HEAD.
        let fake = Fake::start(move |seen, _| {
            let there = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(minutes);
            let signed = seen.header("x-amz-date").and_then(|text| jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok());
            let signed = signed.and_then(|at| at.to_zoned(jiff::tz::TimeZone::UTC).ok()).expect("a date").timestamp();
            let is_of_the_day =
                seen.header("authorization").is_some_and(|login| login.contains(&signed.strftime("%Y%m%d").to_string()));
            if signed.as_second().abs_diff(there.as_second()) < 60 && is_of_the_day {
                return OK;
            }
            let date: &'static [_] = Box::leak(Box::new([("date", http_date(minutes))]));
            let skewed = "<Error><Code>RequestTimeTooSkewed</Code><Message>The difference is too large.</Message></Error>";
            Reply(403, date, if seen.asks("HEAD") { "" } else { skewed })
        })
        .await;
        let bucket = open(fake.store(&[]));
        bucket.head("a").await.expect("looked at");
        assert_eq!(fake.seen().len(), 2, "{minutes}: asked once more");
        bucket.put("a", &Properties::default(), BODY, &Condition::None).await.expect("written");
        bucket.get("a", None, None).await.expect("read");
        assert_eq!(fake.seen().len(), 4, "{minutes}: from then on it is known");
    }
    // A refusal for another reason is asked once, whatever the clock says.
    let fake = Fake::start(|_, _| Reply(403, &[], "<Error><Code>AccessDenied</Code></Error>")).await;
    open(fake.store(&[])).get("a", None, None).await.expect_err("refused");
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn azure_says_that_the_clock_is_wrong() {
    let fake = Fake::start(|_, _| {
        let date: &'static [_] = Box::leak(Box::new([("date", http_date(20)), ("x-ms-error-code", "AuthenticationFailed")]));
        Reply(403, date, "<Error><Code>AuthenticationFailed</Code><Message>Request date header too old</Message></Error>")
    })
    .await;
    let endpoint = format!("http://127.0.0.1:{}/acc", fake.port);
    let options = super::parts::scene::options(&[
        ("scheme", "azblob"),
        ("container", "box"),
        ("endpoint", &endpoint),
        ("account_name", "acc"),
        ("account_key", "a2V5"),
    ]);
    let BucketError::Failed(error) = open(options).get("a", None, None).await.expect_err("refused") else { panic!("otherwise") };
    assert!(error.message.contains("clock is wrong"), "{error}");
}

const INVALID_PART: Reply = Reply(400, &[], "<Error><Code>InvalidPart</Code><Message>InvalidPart</Message></Error>");

#[tokio::test]
async fn parts_that_the_service_does_not_tell_are_an_upload_that_is_gone() {
    let fake = Fake::start(|_, _| INVALID_PART).await;
    let ended = open(fake.store(&[])).complete("a", "u", &Properties::default(), &parts(), &Condition::None).await;
    assert!(matches!(ended, Err(BucketError::Missing)), "{ended:?}");
    // And so is one that it throws away with that answer: it is not asked again.
    let fake = Fake::start(|seen, _| match () {
        () if seen.asks("POST") => INVALID_PART,
        () => Reply(404, &[], "<Error><Code>NoSuchUpload</Code></Error>"),
    })
    .await;
    let ended = open(fake.store(&[])).complete("a", "u", &Properties::default(), &parts(), &Condition::None).await;
    assert!(matches!(ended, Err(BucketError::Missing)), "{ended:?}");
    assert_eq!(fake.seen().iter().filter(|seen| seen.asks("POST")).count(), 1);
}

#[tokio::test]
async fn parts_that_the_service_has_otherwise_are_named() {
    // The first as it was sent, in the second page another one, the third not at all.
    let fake = Fake::start(|seen, _| match () {
        () if seen.asks("POST") => INVALID_PART,
        () if seen.asks("HEAD") => Reply(404, &[], ""),
        () if !seen.line.contains("part-number-marker=1") => Reply(
            200,
            &[],
            "<ListPartsResult><Part><PartNumber>1</PartNumber><ETag>&quot;e1&quot;</ETag><Size>5</Size></Part>\
             <IsTruncated>true</IsTruncated><NextPartNumberMarker>1</NextPartNumberMarker></ListPartsResult>",
        ),
        () => Reply(
            200,
            &[],
            "<ListPartsResult><Part><PartNumber>2</PartNumber><ETag>other</ETag><Size>5</Size></Part>\
             <IsTruncated>false</IsTruncated></ListPartsResult>",
        ),
    })
    .await;
    let part = |number: u32| Part { number, etag: format!("e{number}"), size: 5, checksum: None };
    let parts: Vec<Part> = (1..=3).map(part).collect();
    let ended = open(fake.store(&[])).complete("a", "u", &Properties::default(), &parts, &Condition::None).await;
    let Err(BucketError::Parts(numbers)) = ended else { panic!("{ended:?}") };
    assert_eq!(numbers, [2, 3]);
}

#[tokio::test]
async fn parts_that_the_service_sees_late_are_waited_for() {
    const LISTED: &str = "<ListPartsResult><Part><PartNumber>1</PartNumber><ETag>e1</ETag><Size>5</Size></Part>\
                          </ListPartsResult>";
    let fake = Fake::start(|seen, number| match () {
        () if seen.asks("POST") && number == 0 => INVALID_PART,
        () if seen.asks("POST") => OK,
        () if seen.asks("HEAD") => Reply(404, &[], ""),
        () => Reply(200, &[], LISTED),
    })
    .await;
    let parts = [Part { number: 1, etag: "e1".to_owned(), size: 5, checksum: None }];
    open(fake.store(&[])).complete("a", "u", &Properties::default(), &parts, &Condition::None).await.expect("completed");
}
