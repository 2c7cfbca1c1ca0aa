//! Keys that change while a sync runs: they are read again from where they came from. By the real binary, since the file
//! of the AWS tools is found by way of the environment.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::parts::fault::{Proxy, Weather};
use crate::parts::{self, Keys, NEW, OLD};

const OBJECTS: usize = 300;

fn write_keys(path: &Path, keys: Keys) {
    // As tools that rotate keys do it: nobody reads half a file.
    let next = path.with_extension("next");
    let text = format!("[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n", keys.id, keys.secret);
    std::fs::write(&next, text).expect("written");
    std::fs::rename(&next, path).expect("renamed");
}

/// A sync in whose middle the file gets another key and the first is refused with this answer.
async fn goes_on_with_the_new_key(status: u16, refusal: &'static str) {
    // The server knows both.
    let Some(server) = parts::s3_with(&[OLD, NEW]) else { return };
    let here = tempfile::tempdir().expect("a directory");
    let keys = here.path().join("credentials");
    write_keys(&keys, OLD);
    std::fs::create_dir(here.path().join("from")).expect("made");
    for number in 0..OBJECTS {
        std::fs::write(here.path().join(format!("from/{number:04}")), number.to_string()).expect("written");
    }
    let (writes, is_over, by_new) = (AtomicUsize::new(0), AtomicBool::new(false), Arc::new(AtomicUsize::new(0)));
    let (counted, file) = (by_new.clone(), keys.clone());
    let proxy = Proxy::seeing(server.port, move |asked| {
        if asked.head.contains(NEW.id) {
            counted.fetch_add(1, Ordering::Relaxed);
            return Weather::Fair;
        }
        if asked.method == "PUT" && writes.fetch_add(1, Ordering::Relaxed) == OBJECTS / 3 {
            write_keys(&file, NEW);
            is_over.store(true, Ordering::Relaxed);
        }
        if is_over.load(Ordering::Relaxed) { Weather::Answer(status, &[], refusal) } else { Weather::Fair }
    })
    .await;
    let pipeline = format!(
        "stores:\n  new: {{ scheme: s3, bucket: box, endpoint: 'http://127.0.0.1:{}', region: us-east-1, \
         disable_ec2_metadata: 'true' }}\nsteps:\n  - id: copy\n    uses: object.sync\n    retry: {{ attempts: 1 }}\n    \
         with: {{ from: from/, to: 'new:in/' }}\n",
        proxy.port
    );
    std::fs::write(here.path().join("p.yaml"), pipeline.replace("from: from/", "from: ./from/")).expect("written");
    let folder = here.path().to_owned();
    let ran = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ferry"));
        command
            .args(["run", "p.yaml", "--yes"])
            .current_dir(&folder)
            .env("AWS_SHARED_CREDENTIALS_FILE", folder.join("credentials"));
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_CONFIG_FILE"] {
            command.env_remove(name);
        }
        command.output().expect("ferry starts")
    });
    let ran = ran.await.expect("it ran");
    let said = String::from_utf8_lossy(&ran.stderr).into_owned() + &String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}");
    let there = std::fs::read_dir(server.data.path().join("box/in")).expect("there").count();
    assert_eq!(there, OBJECTS, "{said}");
    assert!(by_new.load(Ordering::Relaxed) > OBJECTS / 3, "the rest came with the new key");
    for secret in [OLD.secret, NEW.secret] {
        assert!(!said.contains(secret));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_in_the_middle_is_read_again_from_its_file() {
    goes_on_with_the_new_key(400, "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_replaced_in_the_middle_is_read_again_from_its_file() {
    goes_on_with_the_new_key(403, "<Error><Code>InvalidAccessKeyId</Code><Message>It does not exist.</Message></Error>").await;
}
