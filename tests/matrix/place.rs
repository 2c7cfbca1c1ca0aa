//! The six kinds of places, each on a real server, each looked at by another way than ferry's where there is one.

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use ferry::stores::StoreOptions;
use ferry::stores::bucket::{Bucket, Condition, PageQuery, Properties};

use super::parts::scene::{Scene, azure_store, directory, s3_store, sftp_store, webdav_store};
use super::parts::{self, AZURE_ACCOUNT, AZURE_KEY, GARAGE_NEW, OLD, Server};
use super::tree::{BACKSLASH, CONTROL, CONTROLS, CONTROLS_AND_ACCENT, Seen, identity, walk};

/// A place, its server, and how others reach it.
pub struct Place {
    pub name: &'static str,
    pub options: StoreOptions,
    /// Whether it holds names as they are; else as files in folders.
    pub is_flat: bool,
    /// Names that its server loses by itself, whoever asks.
    pub cannot: &'static [&'static str],
    /// Where its files lie, when it keeps files.
    pub files: Option<PathBuf>,
    /// Its section of an `rclone.conf`, and what comes between the remote's name and a prefix.
    pub remote: (String, String),
    _server: Option<Server>,
    _folder: Option<tempfile::TempDir>,
}

/// All six; `None` when a part is missing.
pub async fn all() -> Option<Vec<Place>> {
    let (garage, s3, azure, sftp, dav) =
        (parts::garage(GARAGE_NEW)?, parts::s3(OLD)?, parts::azure()?, parts::sftp()?, parts::webdav()?);
    let folder = tempfile::tempdir().expect("a directory");
    let s3_remote = |port: u16, keys: parts::Keys| {
        format!(
            "type = s3\nprovider = Other\nendpoint = http://127.0.0.1:{port}\nregion = us-east-1\nforce_path_style = true\n\
             list_url_encode = true\nlist_version = 2\naccess_key_id = {}\nsecret_access_key = {}\n",
            keys.id, keys.secret
        )
    };
    let user = std::env::var("USER").unwrap_or_else(|_| "root".to_owned());
    let place =
        |name: &'static str, options: StoreOptions, files: Option<PathBuf>, remote: (String, String), server: Server| Place {
            name,
            options,
            is_flat: matches!(name, "garage" | "s3" | "azure"),
            // azurite writes a listing's control characters as they are, which no XML is, and takes a backslash for a slash.
            // rclone's servers show control characters as the pictures of them.
            cannot: match name {
                "azure" => &[CONTROL, BACKSLASH],
                "s3" => CONTROLS,
                "dav" => CONTROLS_AND_ACCENT,
                _ => &[],
            },
            files,
            remote,
            _server: Some(server),
            _folder: None,
        };
    let azure_remote = format!(
        "type = azureblob\naccount = {AZURE_ACCOUNT}\nkey = {AZURE_KEY}\nendpoint = http://127.0.0.1:{}/{AZURE_ACCOUNT}\n",
        azure.port
    );
    let sftp_remote = format!(
        "type = sftp\nhost = 127.0.0.1\nport = {}\nuser = {user}\nkey_file = {}/key\nshell_type = none\n",
        sftp.port,
        sftp.data.path().display()
    );
    let dav_remote = format!(
        "type = webdav\nurl = http://127.0.0.1:{}\nvendor = other\nuser = me\npass = {}\n",
        dav.port,
        obscured("webdav-secret-canary")
    );
    let azure_options = azure_store(&azure).await;
    let (s3_files, sftp_files, dav_files) =
        (s3.data.path().join("box"), sftp.data.path().join("files"), dav.data.path().to_owned());
    let sftp_root = sftp_files.display().to_string();
    Some(vec![
        place("garage", s3_store(garage.port, GARAGE_NEW), None, (s3_remote(garage.port, GARAGE_NEW), "box/".to_owned()), garage),
        place("s3", s3_store(s3.port, OLD), Some(s3_files), (s3_remote(s3.port, OLD), "box/".to_owned()), s3),
        place("azure", azure_options, None, (azure_remote, "box/".to_owned()), azure),
        Place {
            name: "dir",
            options: directory(folder.path()),
            is_flat: false,
            cannot: &[],
            files: Some(folder.path().to_owned()),
            remote: ("type = local\n".to_owned(), format!("{}/", folder.path().display())),
            _server: None,
            _folder: Some(folder),
        },
        place("sftp", sftp_store(&sftp), Some(sftp_files), (sftp_remote, format!("{sftp_root}/")), sftp),
        place("dav", webdav_store(&dav), Some(dav_files), (dav_remote, String::new()), dav),
    ])
}

/// An `rclone.conf` with a remote for each.
pub fn rclone_conf(places: &[Place], folder: &Path) -> PathBuf {
    let sections: Vec<String> = places.iter().map(|place| format!("[{}]\n{}\n", place.name, place.remote.0)).collect();
    let conf = folder.join("rclone.conf");
    std::fs::write(&conf, sections.concat()).expect("written");
    conf
}

/// A password as an `rclone.conf` holds it.
fn obscured(password: &str) -> String {
    let output = Command::new(parts::folder().join("venv/bin/rclone")).args(["obscure", password]).output();
    String::from_utf8(output.expect("rclone runs").stdout).expect("text").trim().to_owned()
}

impl Place {
    fn bucket(&self, scene: &Scene) -> std::sync::Arc<dyn Bucket> {
        scene.place(&format!("{}:", self.name)).bucket().expect("a bucket")
    }

    /// Puts the tree at a prefix: as files where it keeps files.
    pub async fn fill(&self, scene: &Scene, prefix: &str, tree: &[(String, Vec<u8>)], properties: &Properties) {
        if let Some(files) = &self.files {
            for (name, content) in tree {
                let path = files.join(prefix).join(name);
                std::fs::create_dir_all(path.parent().expect("it has one")).expect("made");
                std::fs::write(path, content).expect("written");
            }
            return;
        }
        let bucket = self.bucket(scene);
        for (name, content) in tree {
            let body = Bytes::from(content.clone());
            bucket.put(&format!("{prefix}{name}"), properties, body, &Condition::None).await.expect(name);
        }
    }

    /// What is at a prefix.
    pub async fn look(&self, scene: &Scene, prefix: &str) -> Seen {
        if let Some(files) = &self.files {
            return walk(&files.join(prefix));
        }
        let bucket = self.bucket(scene);
        let mut query = PageQuery { prefix: prefix.to_owned(), ..PageQuery::default() };
        let mut seen = Seen::new();
        loop {
            let page = bucket.list(query.clone()).await.expect("it lists");
            for entry in page.entries {
                let got = bucket.get(&entry.key, None, None).await.expect(&entry.key);
                seen.insert(entry.key[prefix.len()..].to_owned(), identity(&got.body));
            }
            match page.next {
                Some(next) => query.token = Some(next),
                None => return seen,
            }
        }
    }

    /// What is kept with an object, where the place is a bucket of its own.
    pub async fn properties(&self, scene: &Scene, key: &str) -> Option<Properties> {
        if self.files.is_some() {
            return None;
        }
        Some(self.bucket(scene).head(key).await.expect(key).properties)
    }
}
