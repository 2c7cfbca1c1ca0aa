//! A data directory without a server, an archive's settings, and the binary.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::parts::{Keys, Server};

/// Segments are short here, as `initdb --wal-segsize=1` makes them.
pub const SEGMENT: usize = 1 << 20;

/// A data directory and the settings of an archive.
pub struct Stage {
    pub folder: tempfile::TempDir,
}

impl Stage {
    /// With an archive in a directory.
    pub fn directory() -> Self {
        Self::with("place: ./archive/\n")
    }

    /// With an archive in a bucket.
    pub fn bucket(server: &Server, keys: Keys) -> Self {
        Self::with(&format!(
            "place: box:prod/\nstores:\n  box:\n    scheme: s3\n    bucket: box\n    endpoint: http://127.0.0.1:{}\n    region: us-east-1\n    \
             access_key_id: {}\n    secret_access_key: {}\n",
            server.port, keys.id, keys.secret
        ))
    }

    pub fn with(settings: &str) -> Self {
        let stage = Self { folder: tempfile::tempdir().expect("a folder") };
        std::fs::create_dir_all(stage.path("data/pg_wal/archive_status")).expect("room");
        stage.settings(settings);
        stage
    }

    pub fn settings(&self, text: &str) {
        let path = self.path("archive.yaml");
        std::fs::write(&path, text).expect("room");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("ours");
    }

    /// Another cluster's data directory with the same archive.
    pub fn beside(&self) -> Self {
        let other = Self { folder: tempfile::tempdir().expect("a folder") };
        std::fs::create_dir_all(other.path("data/pg_wal/archive_status")).expect("room");
        let settings = std::fs::read_to_string(self.path("archive.yaml")).expect("written");
        other.settings(&settings.replace("place: ./archive/", &format!("place: {}/", self.path("archive").display())));
        other
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A segment of `pg_wal` as a server leaves it; `word` is in its content. `ready`: it waits to be archived.
    pub fn segment(&self, number: u64, word: &str, ready: bool) -> String {
        self.segment_of(1, number, word, ready)
    }

    pub fn segment_of(&self, system: u64, number: u64, word: &str, ready: bool) -> String {
        let name = name(number);
        self.write(&name, &content(system, number, word));
        if ready {
            std::fs::write(self.path(&format!("data/pg_wal/archive_status/{name}.ready")), "").expect("room");
        }
        name
    }

    pub fn write(&self, name: &str, content: &[u8]) {
        std::fs::write(self.path(&format!("data/pg_wal/{name}")), content).expect("room");
    }

    /// `ferry wal …` in the data directory, as the server starts it.
    pub fn command(&self, what: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ferry"));
        command.args(["wal", what, "--archive"]).arg(self.path("archive.yaml")).args(args);
        command.current_dir(self.path("data")).env_remove("FERRY_STORE").env_remove("FERRY_LOG").env("NO_COLOR", "1");
        command
    }

    pub fn push(&self, name: &str) -> Output {
        self.command("push", &[&format!("pg_wal/{name}")]).output().expect("it starts")
    }

    pub fn pushed(&self, name: &str) {
        let output = self.push(name);
        assert!(output.status.success(), "{name}: {}", said(&output));
    }

    pub fn fetch(&self, name: &str) -> Output {
        self.command("fetch", &[name, "pg_wal/RECOVERYXLOG"]).output().expect("it starts")
    }

    /// What came back of a file.
    pub fn fetched(&self, name: &str) -> Vec<u8> {
        let output = self.fetch(name);
        assert!(output.status.success(), "{name}: {}", said(&output));
        std::fs::read(self.path("data/pg_wal/RECOVERYXLOG")).expect("it is there")
    }

    /// Files that lie fetched ahead.
    pub fn ahead(&self) -> Vec<String> {
        let folder = std::fs::read_dir(self.path("data/pg_wal/ferry-spool/fetched"));
        let names = folder.into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
        names.sort();
        names
    }

    /// Waits until this many lie fetched ahead.
    pub fn until_ahead(&self, count: usize) {
        let start = std::time::Instant::now();
        while self.ahead().len() < count {
            assert!(start.elapsed().as_secs() < 30, "{:?} lie ready, not {count}", self.ahead());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

pub fn name(number: u64) -> String {
    let per = (1_u64 << 32) / SEGMENT as u64;
    format!("00000001{:08X}{:08X}", number / per, number % per)
}

/// A segment's content: the header of its first page, and words that a compressor finds some of.
pub fn content(system: u64, number: u64, word: &str) -> Vec<u8> {
    let mut content = vec![0_u8; SEGMENT];
    content[..2].copy_from_slice(&[0x10, 0xD1]);
    content[2] = 2;
    content[4] = 1;
    content[8..16].copy_from_slice(&(number * SEGMENT as u64).to_le_bytes());
    content[24..32].copy_from_slice(&system.to_le_bytes());
    content[32..36].copy_from_slice(&u32::try_from(SEGMENT).expect("small").to_le_bytes());
    let mut seed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for chunk in content[64..].chunks_mut(64) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        chunk[..8].copy_from_slice(&seed.to_le_bytes());
        let length = word.len().min(40);
        chunk[8..8 + length].copy_from_slice(&word.as_bytes()[..length]);
    }
    content
}

pub fn said(output: &Output) -> String {
    format!("{:?}: {}{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
