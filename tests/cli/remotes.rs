//! Places of others: remotes of a real `rclone.conf`, stores of a pipeline, settings of the environment; on real servers.

use std::path::PathBuf;
use std::process::Command;

use super::bench::{Bench, Ran};
use crate::parts::{self, AZURE_ACCOUNT, AZURE_KEY, NEW, OLD, Server};

/// What rclone writes its settings into, with two S3 servers of different keys, Azure and WebDAV.
struct Lab {
    bench: Bench,
    old: Server,
    new: Server,
    _azure: Server,
    webdav: Server,
    azure_connection: String,
}

impl Lab {
    fn new() -> Option<Self> {
        let (old, new, azure, webdav) = (parts::s3(OLD)?, parts::s3(NEW)?, parts::azure()?, parts::webdav()?);
        let bench = Bench::new();
        let at = |port: u16| format!("http://127.0.0.1:{port}");
        let account = format!("{}/{AZURE_ACCOUNT}", at(azure.port));
        let lab = Self {
            azure_connection: format!("AccountName={AZURE_ACCOUNT};AccountKey={AZURE_KEY};BlobEndpoint={account}"),
            bench,
            old,
            new,
            _azure: azure,
            webdav,
        };
        for (name, keys, port) in [("old", OLD, lab.old.port), ("new", NEW, lab.new.port)] {
            let endpoint = at(port);
            let keys = [("access_key_id", keys.id), ("secret_access_key", keys.secret)];
            lab.remote(name, "s3", &[("provider", "Other"), ("endpoint", &endpoint), keys[0], keys[1]]);
        }
        lab.remote("az", "azureblob", &[("account", AZURE_ACCOUNT), ("key", AZURE_KEY), ("endpoint", &account)]);
        let url = at(lab.webdav.port);
        lab.remote("dav", "webdav", &[("url", &url), ("user", "me"), ("pass", "webdav-secret-canary")]);
        lab.remote("deep", "alias", &[("remote", "old:box/a")]);
        lab.rclone(&["mkdir", "az:box"]);
        for (name, text) in [("a/x.txt", "one"), ("a/b/y.txt", "two!"), ("z.bin", "three")] {
            let path = lab.old.data.path().join("box").join(name);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        Some(lab)
    }

    fn config(&self) -> PathBuf {
        self.bench.path("rclone.conf")
    }

    fn rclone(&self, args: &[&str]) {
        let program = parts::rclone().expect("it made the servers");
        let done = Command::new(program).args(args).env("RCLONE_CONFIG", self.config()).output().expect("rclone starts");
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn remote(&self, name: &str, kind: &str, options: &[(&str, &str)]) {
        let options: Vec<String> = options.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut args = vec!["config", "create", name, kind];
        args.extend(options.iter().map(String::as_str));
        self.rclone(&args);
    }

    fn run(&self, args: &[&str]) -> Ran {
        let mut command = self.bench.ferry(args);
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AZURE_STORAGE_CONNECTION_STRING"] {
            command.env_remove(name);
        }
        let output = command.env("RCLONE_CONFIG", self.config()).output().expect("the binary starts");
        Ran::of(&output)
    }

    fn with(&self, args: &[&str], settings: &[(&str, &str)]) -> Ran {
        let mut command = self.bench.ferry(args);
        command.env("RCLONE_CONFIG", "/dev/null").envs(settings.iter().copied());
        Ran::of(&command.output().expect("the binary starts"))
    }

    /// Whether a secret lies in any file of the runs.
    fn keeps_a_secret(&self) -> bool {
        let mut open = vec![self.bench.path(".ferry")];
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    open.push(entry.path());
                    continue;
                }
                let bytes = std::fs::read(entry.path()).expect("it can be read");
                let text = String::from_utf8_lossy(&bytes);
                if [OLD.secret, NEW.secret, AZURE_KEY, "webdav-secret-canary"].iter().any(|secret| text.contains(secret)) {
                    return true;
                }
            }
        }
        false
    }
}

#[test]
fn remotes_of_rclone_are_places_of_sync_and_ls() {
    let Some(lab) = Lab::new() else { return };
    assert_eq!(lab.run(&["ls", "--rclone", "old:"]).exits(0).stdout, "box/\n");
    assert_eq!(lab.run(&["ls", "--rclone", "az:"]).exits(0).stdout, "box/\n");
    assert_eq!(lab.run(&["ls", "--rclone", "old:box"]).exits(0).stdout, "a/\nz.bin\n");
    assert_eq!(lab.run(&["ls", "--rclone", "-r", "deep:"]).exits(0).stdout, "b/y.txt\nx.txt\n");
    let long = lab.run(&["ls", "-l", "--rclone-remote", "old:", "old:box"]).exits(0);
    assert!(long.stdout.contains("5 B") && long.stdout.contains("STANDARD  z.bin"), "{long:?}");
    assert!(long.stderr.contains("1 folder, 1 object, 5 B"), "{long:?}");
    let both = ["--rclone-remote", "old:", "--rclone-remote", "new:"];
    let planned = lab.run(&[&["sync", "-n", "old:box", "new:box/in"], &both[..]].concat()).exits(0);
    assert!(planned.stdout.contains("to move: 3 objects, 12 B"), "{planned:?}");
    assert!(!lab.bench.path(".ferry").exists() && !lab.new.data.path().join("box/in").exists());
    let ran = lab.run(&[&["sync", "old:box", "new:box/in", "--verify"], &both[..]].concat()).exits(0);
    for told in ["copied    3\n", "bytes     12 B (12)", "verified  3", "failed    0", "manifest.jsonl.zst"] {
        assert!(ran.stdout.contains(told), "{told}: {ran:?}");
    }
    assert_eq!(std::fs::read_to_string(lab.new.data.path().join("box/in/a/b/y.txt")).expect("it is there"), "two!");
    for to in ["az:box/in", "dav:in", "./here"] {
        lab.run(&["sync", "--rclone", "old:box", to]).exits(0);
        let listed = lab.run(&["ls", "-r", "--rclone", to]).exits(0);
        assert_eq!(listed.stdout, "a/b/y.txt\na/x.txt\nz.bin\n", "{to}");
    }
    // The top of the server, which calls itself `/`. What the server says lies there too.
    let top = lab.run(&["ls", "-r", "--rclone", "dav:"]).exits(0);
    assert!(top.stdout.ends_with("in/a/b/y.txt\nin/a/x.txt\nin/z.bin\n"), "{top:?}");
    // What an undo needs is read from the same file again.
    lab.run(&["rollback", "last"]).exits(0);
    assert!(!lab.keeps_a_secret());
}

#[test]
fn what_cannot_be_a_place_says_what_can() {
    let Some(lab) = Lab::new() else { return };
    lab.remote("disk", "drive", &[("config_is_local", "false"), ("token", "{}")]);
    let says = |args: &[&str], message: &str, help: &str| {
        let ran = lab.run(args).exits(2);
        assert!(ran.stderr.contains(message) && ran.stderr.contains(help), "{args:?}: {ran:?}");
        assert!(!ran.stderr.contains("-secret-"), "{ran:?}");
    };
    says(&["ls", "old:"], "there is no store `old`", "say `--rclone-remote old:`");
    says(&["ls", "--rclone", "odl:"], "has no remote `odl`", "its remotes are `old:`, `new:`");
    says(&["ls", "--rclone", "disk:x"], "of type `drive`", "the types are s3, azureblob");
    says(&["ls", "--rclone", "old:nobox"], "the bucket or container does not exist", "create it");
    says(&["sync", "--rclone", "old:", "./x"], "`old:` names no bucket", "`ferry ls old:` lists the buckets");
    says(&["sync", "s3:/box", "./x"], "`s3:/box` is not a place", "did you mean `s3://box`?");
    says(&["sync", "s3//box", "./x"], "`s3//box` is not a place", "did you mean `s3://box`?");
    says(&["sync", "./x", "s4://box"], "`s4` is no scheme", "did you mean `s3://box`?");
    says(&["sync", "--rclone", "old:box", "./x", "--max-delete", "few"], "`--max-delete` cannot be `few`", "ferry sync --help");
    let encrypted = lab.bench.write("locked.conf", "# Encrypted rclone configuration File\n\nRCLONE_ENCRYPT_V0:\nabc\n");
    let encrypted = encrypted.display().to_string();
    says(&["ls", "--rclone-config", &encrypted, "old:"], "are encrypted", "rclone config encryption remove");
    assert!(!lab.bench.path(".ferry").exists());
}

#[test]
fn a_pipeline_and_its_stores_are_places_too_also_as_remotes() {
    let Some(lab) = Lab::new() else { return };
    lab.bench.write(
        "in/shop.yaml",
        &format!(
            "inputs:\n  bucket: {{ type: string }}\nsecrets: {{ key: {{ env: OLD_SECRET }} }}\nstores:\n  mine: {{ scheme: s3, bucket: '{{{{ inputs.bucket }}}}', endpoint: 'http://127.0.0.1:{}', access_key_id: {}, secret_access_key: '{{{{ secrets.key }}}}' }}\n  theirs: {{ scheme: rclone, remote: new }}\nsteps:\n  - {{ id: a, uses: object.sync, with: {{ from: 'mine:a', to: 'theirs:box/of-a-pipeline' }} }}\n",
            lab.old.port, OLD.id
        ),
    );
    let config = lab.config().display().to_string();
    let settings = [("OLD_SECRET", OLD.secret), ("RCLONE_CONFIG", config.as_str())];
    let file = ["--file", "in/shop.yaml", "-i", "bucket=box"];
    let listed = lab.with(&[&["ls", "-r", "mine:a"], &file[..]].concat(), &settings).exits(0);
    assert_eq!(listed.stdout, "b/y.txt\nx.txt\n");
    lab.with(&[&["sync", "mine:", "theirs:box/by-sync"], &file[..]].concat(), &settings).exits(0);
    assert!(lab.new.data.path().join("box/by-sync/a/x.txt").exists());
    // A relative folder is one of where the person stands, not of the pipeline's.
    lab.with(&[&["sync", "mine:", "out"], &file[..]].concat(), &settings).exits(0);
    assert!(lab.bench.path("out/z.bin").exists());
    lab.with(&["run", "in/shop.yaml", "-i", "bucket=box"], &settings).exits(0);
    assert!(lab.new.data.path().join("box/of-a-pipeline/x.txt").exists());
    assert!(!lab.keeps_a_secret());
}

#[test]
fn settings_of_the_environment_and_of_a_profile_are_used() {
    let Some(lab) = Lab::new() else { return };
    let endpoint = format!("http://127.0.0.1:{}", lab.old.port);
    let keys = [("AWS_ACCESS_KEY_ID", OLD.id), ("AWS_SECRET_ACCESS_KEY", OLD.secret), ("AWS_ENDPOINT_URL", endpoint.as_str())];
    assert_eq!(lab.with(&["ls", "s3://"], &keys).exits(0).stdout, "box/\n");
    assert_eq!(lab.with(&["ls", "s3://box/a"], &keys).exits(0).stdout, "b/\nx.txt\n");
    let text = format!("[default]\nregion = eu-a-1\n[profile lab]\nregion = us-east-1\nendpoint_url = {endpoint}\n");
    let config = lab.bench.write("aws/config", &text).display().to_string();
    let text = format!("[lab]\naws_access_key_id = {}\naws_secret_access_key = {}\n", OLD.id, OLD.secret);
    let credentials = lab.bench.write("aws/credentials", &text).display().to_string();
    let files = [("AWS_CONFIG_FILE", config.as_str()), ("AWS_SHARED_CREDENTIALS_FILE", credentials.as_str())];
    let profile = [&files[..], &[("AWS_PROFILE", "lab")]].concat();
    assert_eq!(lab.with(&["ls", "s3://"], &profile).exits(0).stdout, "box/\n");
    assert_eq!(lab.with(&["ls", "-r", "s3://box/a?profile=lab"], &profile).exits(0).stdout, "b/y.txt\nx.txt\n");
    let azure = [("AZURE_STORAGE_CONNECTION_STRING", lab.azure_connection.as_str())];
    assert_eq!(lab.with(&["ls", "azblob://"], &azure).exits(0).stdout, "box/\n");
    lab.with(&["sync", "./in", "azblob://box/x", "--allow-empty"], &azure).exits(2);
    lab.bench.write("in/a", "x");
    lab.with(&["sync", "./in", "azblob://box/x"], &azure).exits(0);
    assert_eq!(lab.with(&["ls", "azblob://box/x/"], &azure).exits(0).stdout, "a\n");
    let none = lab.with(&["ls", "s3://box/"], &[&files[..], &[("AWS_EC2_METADATA_DISABLED", "true")]].concat()).exits(2);
    assert!(none.stderr.contains("there is no key") && none.stderr.contains("set AWS_ACCESS_KEY_ID"), "{none:?}");
}

#[test]
fn a_report_draws_how_fast_a_sync_was() {
    let bench = Bench::new();
    for name in 0..40 {
        bench.write(&format!("in/{name}"), &"x".repeat(100_000));
    }
    let ran = bench.run(&["sync", "in", "out", "--bandwidth", "2MB/s"]).exits(0);
    assert!(ran.stdout.contains("  over time  ") && ran.stdout.contains('█'), "{ran:?}");
    bench.run(&["report", "last", "--html", "run.html"]).exits(0);
    let page = std::fs::read_to_string(bench.path("run.html")).expect("it was written");
    for drawn in ["<h2>Throughput</h2>", "<path class=\"rate\" d=\"M", "<path class=\"many\"", "on average"] {
        assert!(page.contains(drawn), "{drawn}");
    }
    let told = bench.run(&["report", "last"]).exits(0);
    assert!(told.stdout.contains("how fast\nsync  ") && told.stdout.contains("on average"), "{told:?}");
}

#[test]
fn uploads_that_a_dead_sync_has_left_are_told_and_thrown_away_by_rollback() {
    let Some(lab) = Lab::new() else { return };
    lab.bench.write("in/large", &"x".repeat(64 << 20));
    let config = lab.config().display().to_string();
    let args = ["sync", "in", "new:box/up", "--rclone-config", &config, "--bandwidth", "10MB/s"];
    let mut started = lab.bench.start(&args);
    let ledger = || {
        let runs = std::fs::read_dir(lab.bench.path(".ferry/runs")).into_iter().flatten().flatten();
        runs.filter_map(|run| std::fs::read_to_string(run.path().join("scratch/sync/ledger.jsonl")).ok()).collect::<String>()
    };
    Bench::wait_until(|| ledger().contains("\"what\":\"part\""));
    started.kill();
    let told = lab.run(&["doctor"]);
    assert!(told.stdout.contains("1 unfinished upload, ") && told.stdout.contains("`large`"), "{told:?}");
    assert!(told.stdout.contains("ferry rollback"), "{told:?}");
    // A run that may be resumed needs it.
    let kept = lab.run(&["doctor", "--abort-uploads"]);
    assert!(kept.stdout.contains("1 unfinished upload, "), "{kept:?}");
    lab.run(&["rollback", "last", "--yes"]).exits(0);
    let told = lab.run(&["doctor"]);
    assert!(!told.stdout.contains("unfinished upload"), "{told:?}");
}
