//! Stores that are remotes of an `rclone.conf`: read when they are opened, so that no key of theirs is kept anywhere.
//!
//! What a remote says is turned into the options of a store. What cannot be turned is refused by its name: a copy must
//! not go to another place than rclone's would.

use std::path::{Path, PathBuf};

use aws_lc_rs::cipher::{AES_256, DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use secrecy::SecretString;

use super::StoreOptions;
use super::azure;
use super::ini::{Ini, Section};
use crate::error::StepError;
use crate::secret::{Text, Vault};

/// The scheme of a store that is a remote of rclone's.
pub(super) const SCHEME: &str = "rclone";

/// Remotes may stand for others; not for themselves.
const DEEPEST: usize = 8;

/// What the first line of an encrypted file begins with.
const ENCRYPTED: &str = "RCLONE_ENCRYPT_";

/// The key that rclone hides passwords with. It is published: what it hides is hidden from glances only.
const HIDING_KEY: [u8; 32] = [
    0x9c, 0x93, 0x5b, 0x48, 0x73, 0x0a, 0x55, 0x4d, 0x6b, 0xfd, 0x7c, 0x63, 0xc8, 0x86, 0xa9, 0x2b, 0xd3, 0x90, 0x19, 0x8e, 0xb8,
    0x12, 0x8a, 0xfb, 0xf4, 0xde, 0x16, 0x2b, 0x8b, 0x95, 0xf6, 0x38,
];

/// The settings of rclone on this machine.
pub struct Remotes {
    path: PathBuf,
    ini: Ini,
}

impl std::fmt::Debug for Remotes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Remotes").field(&self.path).finish()
    }
}

/// Where rclone itself looks.
fn usual_place() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = set("RCLONE_CONFIG") {
        return Some(path);
    }
    let home = set("HOME");
    let config = set("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
    let usual = config.map(|config| config.join("rclone/rclone.conf"));
    let old = home.map(|home| home.join(".rclone.conf")).filter(|path| path.exists());
    usual.filter(|path| path.exists() || old.is_none()).or(old)
}

impl Remotes {
    /// Reads the file that is named, or the one that rclone itself would read.
    pub fn read(path: Option<&Path>) -> Result<Self, StepError> {
        let path = path.map(Path::to_owned).or_else(usual_place).ok_or_else(|| {
            StepError::permanent("there is no rclone.conf: the variable HOME is not set").help("name it with `--rclone-config`")
        })?;
        let shown = path.display();
        let text = std::fs::read_to_string(&path).map_err(|error| {
            StepError::permanent(format!("cannot read rclone's settings in `{shown}`"))
                .cause(error)
                .help("`rclone config file` says where they are: name the file with `--rclone-config` or RCLONE_CONFIG")
        })?;
        if text.lines().any(|line| line.starts_with(ENCRYPTED)) {
            return Err(StepError::permanent(format!("rclone's settings in `{shown}` are encrypted")).help(
                "ferry does not ask for their password: `rclone config encryption remove` takes it off; or write the remotes that are needed into a file of their own and name it with `--rclone-config`",
            ));
        }
        Ok(Self { ini: Ini::read(&text), path })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all remotes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.ini.sections()
    }

    /// Fails when there is no remote of this name, and says which there are.
    pub fn must_have(&self, name: &str) -> Result<(), StepError> {
        self.section(name).map(drop)
    }

    fn section(&self, name: &str) -> Result<Section<'_>, StepError> {
        self.ini.section(name).ok_or_else(|| {
            let known: Vec<String> = self.names().map(|name| format!("`{name}:`")).collect();
            let help = if known.is_empty() { "it has none".to_owned() } else { format!("its remotes are {}", known.join(", ")) };
            StepError::permanent(format!("`{}` has no remote `{name}`", self.path.display())).help(help)
        })
    }

    /// The options of the store that a remote and a path in it stand for, and the prefix. Secrets go into the vault.
    fn expand(&self, name: &str, path: &str, vault: &Vault, depth: usize) -> Result<(StoreOptions, String), StepError> {
        let section = self.section(name)?;
        let kind = section.get("type").unwrap_or_default();
        let mut remote = Remote { name, section, vault, options: StoreOptions::new() };
        let path = match kind {
            "alias" => return self.alias(&remote, path, vault, depth),
            "local" => {
                remote.set("scheme", "fs");
                remote.set("root", if path.is_empty() { "." } else { path });
                ""
            }
            "s3" => remote.s3(path)?,
            "azureblob" => remote.azure(path)?,
            "google cloud storage" => remote.google(path)?,
            "sftp" => remote.sftp(path)?,
            "webdav" => remote.webdav(path)?,
            "" => return Err(remote.wrong("has no `type`")),
            other => {
                let known = "s3, azureblob, google cloud storage, sftp, webdav, local, alias";
                let error =
                    StepError::permanent(format!("the rclone remote `{name}:` is of type `{other}`, which ferry has not"));
                return Err(
                    error.help(format!("the types are {known}; `rclone serve s3 {name}:` makes an S3 server of any other"))
                );
            }
        };
        Ok((remote.options, super::place::folder(path)))
    }

    fn alias(&self, remote: &Remote<'_>, path: &str, vault: &Vault, depth: usize) -> Result<(StoreOptions, String), StepError> {
        let target = remote.need("remote")?;
        let join = |base: &str| match (base.is_empty(), path.is_empty()) {
            (true, _) => path.to_owned(),
            (_, true) => base.to_owned(),
            (false, false) => format!("{}/{}", base.trim_end_matches('/'), path.trim_start_matches('/')),
        };
        let is_path = target.starts_with(['/', '.', '~']) || !target.contains(':');
        if is_path {
            let mut options = StoreOptions::new();
            options.insert("scheme".to_owned(), Text::new("fs"));
            options.insert("root".to_owned(), Text::new(join(target)));
            return Ok((options, String::new()));
        }
        let Some(depth) = depth.checked_sub(1) else { return Err(remote.wrong("stands for itself")) };
        let (name, base) = target.split_once(':').unwrap_or_default();
        if name.is_empty() || name.contains(',') {
            return Err(remote.wrong(&format!("stands for `{target}`, a remote that is written out in place")));
        }
        self.expand(name, &join(base), vault, depth)
    }
}

/// The store behind options whose scheme is `rclone`, at a path in it as it is written.
pub(super) fn expand(options: &StoreOptions, path: &str, vault: &Vault) -> Result<(StoreOptions, String), StepError> {
    super::options::check("a remote of rclone", options)?;
    let get = |name: &str| options.get(name).map(ToString::to_string).filter(|value| !value.is_empty());
    let name = get("remote").ok_or_else(|| {
        StepError::permanent("a store with `scheme: rclone` does not say which remote").help("add `remote: NAME`")
    })?;
    let config = get("config").map(PathBuf::from);
    Remotes::read(config.as_deref())?.expand(name.trim_end_matches(':'), path, vault, DEEPEST)
}

/// A remote that is being turned into options.
struct Remote<'a> {
    name: &'a str,
    section: Section<'a>,
    vault: &'a Vault,
    options: StoreOptions,
}

impl<'a> Remote<'a> {
    fn wrong(&self, what: &str) -> StepError {
        StepError::permanent(format!("the rclone remote `{}:` {what}", self.name))
            .help("`rclone config show` shows it; or write the store under `stores:` of a pipeline")
    }

    fn set(&mut self, name: &str, value: &str) {
        self.options.insert(name.to_owned(), Text::new(value));
    }

    fn need(&self, name: &str) -> Result<&'a str, StepError> {
        self.section.get(name).ok_or_else(|| self.wrong(&format!("has no `{name}`")))
    }

    /// Takes values over as they are.
    fn copy(&mut self, pairs: &[(&str, &str)]) {
        for (theirs, ours) in pairs {
            if let Some(value) = self.section.get(theirs) {
                self.set(ours, value);
            }
        }
    }

    /// Takes a secret over: from now on it is masked wherever it would be shown.
    fn keep(&mut self, ours: &str, value: &str) {
        let mark = self.vault.insert(&format!("rclone {} {ours}", self.name), SecretString::from(value));
        self.options.insert(ours.to_owned(), Text::new(mark));
    }

    /// Refuses what would be asked for otherwise than rclone does.
    fn refuse(&self, keys: &[&str]) -> Result<(), StepError> {
        match keys.iter().find(|key| self.section.get(key).is_some_and(|value| value != "false")) {
            Some(key) => Err(self.wrong(&format!("uses `{key}`, which ferry cannot do"))),
            None => Ok(()),
        }
    }

    /// A password that rclone hides.
    fn password(&self, name: &str) -> Result<Option<String>, StepError> {
        let Some(hidden) = self.section.get(name) else { return Ok(None) };
        reveal(hidden)
            .map(Some)
            .ok_or_else(|| self.wrong(&format!("has a `{name}` that is not one of rclone's hidden passwords")))
    }

    fn s3<'p>(&mut self, path: &'p str) -> Result<&'p str, StepError> {
        self.refuse(&["v2_auth", "sse_customer_key_base64", "use_accelerate_endpoint"])?;
        self.set("scheme", "s3");
        self.copy(&[
            ("access_key_id", "access_key_id"),
            ("region", "region"),
            ("endpoint", "endpoint"),
            ("profile", "profile"),
            ("role_arn", "role_arn"),
            ("role_external_id", "external_id"),
            ("role_session_name", "role_session_name"),
            ("acl", "default_acl"),
            ("storage_class", "default_storage_class"),
            ("server_side_encryption", "server_side_encryption"),
            ("sse_kms_key_id", "server_side_encryption_aws_kms_key_id"),
            ("sse_customer_algorithm", "server_side_encryption_customer_algorithm"),
            ("sse_customer_key_md5", "server_side_encryption_customer_key_md5"),
        ]);
        for (theirs, ours) in [
            ("secret_access_key", "secret_access_key"),
            ("session_token", "session_token"),
            ("sse_customer_key", "server_side_encryption_customer_key"),
        ] {
            if let Some(value) = self.section.get(theirs) {
                self.keep(ours, value);
            }
        }
        let has_key = self.section.get("access_key_id").is_some() && self.section.get("secret_access_key").is_some();
        if !self.section.is("env_auth") {
            // Nothing of this machine's own settings may change where a remote leads.
            if self.section.get("endpoint").is_none() {
                self.set("endpoint", "https://s3.amazonaws.com");
            }
            if self.section.get("region").is_none() {
                self.set("region", "us-east-1");
            }
            self.set("disable_config_load", "true");
            if !has_key {
                self.set("skip_signature", "true");
            }
        }
        // What rclone takes where nothing is said.
        let needs_virtual = matches!(self.section.get("provider"), Some("Alibaba" | "TencentCOS" | "HuaweiOBS"));
        let is_virtual = match self.section.get("force_path_style") {
            Some(_) => !self.section.is("force_path_style"),
            None => needs_virtual,
        };
        if is_virtual {
            self.set("enable_virtual_host_style", "true");
        }
        if self.section.is("requester_pays") {
            self.set("enable_request_payer", "true");
        }
        if self.section.get("list_version") == Some("1") {
            self.set("disable_list_objects_v2", "true");
        }
        Ok(path)
    }

    fn azure<'p>(&mut self, path: &'p str) -> Result<&'p str, StepError> {
        self.refuse(&["service_principal_file", "client_id", "username", "use_msi", "msi_client_id", "use_az"])?;
        self.set("scheme", "azblob");
        let emulator = self.section.is("use_emulator").then(|| azure::EMULATOR.to_owned());
        let connection = self.section.get("connection_string").map(str::to_owned).or(emulator);
        let sas = self.section.get("sas_url").map(azure::of_sas_url).transpose()?;
        let connection = connection.map(|text| azure::of_connection(&text)).transpose()?;
        for (name, value) in connection.into_iter().chain(sas).flatten() {
            match name {
                "account_key" | "sas_token" => self.keep(name, &value),
                _ => self.set(name, &value),
            }
        }
        self.copy(&[("account", "account_name"), ("endpoint", "endpoint")]);
        if let Some(key) = self.section.get("key") {
            self.keep("account_key", key);
        }
        // A signed address of one container holds its name already.
        let Some(container) = self.options.get("container").map(ToString::to_string) else { return Ok(path) };
        let rest = path.trim_start_matches('/').strip_prefix(container.as_str());
        match rest.filter(|rest| rest.is_empty() || rest.starts_with('/')) {
            Some(rest) => Ok(rest.trim_start_matches('/')),
            None if path.is_empty() => Ok(path),
            None => Err(self.wrong(&format!("has a signed address of the container `{container}` only"))),
        }
    }

    fn google<'p>(&mut self, path: &'p str) -> Result<&'p str, StepError> {
        self.refuse(&["access_token"])?;
        self.set("scheme", "gcs");
        self.copy(&[("endpoint", "endpoint"), ("object_acl", "predefined_acl"), ("storage_class", "default_storage_class")]);
        if let Some(file) = self.section.get("service_account_file") {
            self.set("credential_path", &at_home(file));
        } else if let Some(json) = self.section.get("service_account_credentials") {
            self.keep("credential", &STANDARD.encode(json));
        } else if self.section.is("anonymous") {
            self.set("skip_signature", "true");
        } else if !self.section.is("env_auth") && self.section.get("token").is_some() {
            return Err(self.wrong("is logged in by a browser, with a key that only rclone renews"))
                .map_err(|error: StepError| error.help("give it a `service_account_file`, or `env_auth = true`"));
        }
        Ok(path)
    }

    fn sftp<'p>(&mut self, path: &'p str) -> Result<&'p str, StepError> {
        self.refuse(&["key_pem", "pubkey_file", "ssh", "socks_proxy", "http_proxy"])?;
        if self.section.get("pass").is_some() && self.section.get("key_file").is_none() {
            return Err(self.wrong("logs in with a password"))
                .map_err(|error: StepError| error.help("ferry logs in by SSH with a key: give the remote a `key_file`"));
        }
        let root = path.trim_end_matches('/');
        if !path.starts_with('/') {
            let message =
                format!("`{}:{path}` begins in the home folder of an SFTP server, which ferry does not know", self.name);
            return Err(StepError::permanent(message).help(format!("write the whole path: `{}:/home/me/{root}`", self.name)));
        }
        let (host, port) = (self.need("host")?, self.section.get("port"));
        self.set("scheme", "sftp");
        self.set("endpoint", &port.map_or_else(|| host.to_owned(), |port| format!("ssh://{host}:{port}")));
        let user = self.section.get("user").map(str::to_owned).or_else(|| std::env::var("USER").ok());
        if let Some(user) = user {
            self.set("user", &user);
        }
        if let Some(file) = self.section.get("key_file") {
            self.set("key", &at_home(file));
        }
        // rclone asks nobody whether a server is known unless it is given a list; what is seen first is kept here.
        if self.section.get("known_hosts_file").is_none() {
            self.set("known_hosts_strategy", "add");
        }
        Ok(path)
    }

    fn webdav<'p>(&mut self, path: &'p str) -> Result<&'p str, StepError> {
        self.refuse(&["bearer_token_command", "unix_socket"])?;
        let url = self.need("url")?.to_owned();
        self.set("scheme", "webdav");
        self.set("endpoint", url.trim_end_matches('/'));
        self.copy(&[("user", "username")]);
        if let Some(password) = self.password("pass")? {
            self.keep("password", &password);
        }
        if let Some(token) = self.section.get("bearer_token") {
            self.keep("token", token);
        }
        Ok(path)
    }
}

fn at_home(path: &str) -> String {
    match path.strip_prefix("~/").zip(std::env::var_os("HOME")) {
        Some((rest, home)) => format!("{}/{rest}", home.to_string_lossy()),
        None => path.to_owned(),
    }
}

/// A password as it was before rclone hid it: AES-256 in counter mode, behind the counter's first value, in base64.
fn reveal(hidden: &str) -> Option<String> {
    let bytes = URL_SAFE_NO_PAD.decode(hidden).ok()?;
    let (first, rest) = bytes.split_first_chunk::<16>()?;
    let key = DecryptingKey::ctr(UnboundCipherKey::new(&AES_256, &HIDING_KEY).ok()?).ok()?;
    let mut text = rest.to_vec();
    key.decrypt(&mut text, DecryptionContext::Iv128(FixedLength::from(first))).ok()?;
    String::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remotes(text: &str) -> Remotes {
        Remotes { path: "rclone.conf".into(), ini: Ini::read(text) }
    }

    fn shown(text: &str, name: &str, path: &str) -> Result<String, StepError> {
        let vault = Vault::default();
        let (options, prefix) = remotes(text).expand(name, path, &vault, DEEPEST)?;
        let told = options.iter().map(|(name, value)| {
            let value = vault.reveal(value.marked()).expect("it was put there");
            format!("{name}={}", secrecy::ExposeSecret::expose_secret(&value))
        });
        Ok(format!("{} | {prefix}", told.collect::<Vec<_>>().join(" ")))
    }

    #[test]
    fn a_hidden_password_is_revealed() {
        // As rclone's own tests have them.
        assert_eq!(reveal("YmJiYmJiYmJiYmJiYmJiYp3gcEWbAw").as_deref(), Some("potato"));
        assert_eq!(reveal("YmJiYmJiYmJiYmJiYmJiYg").as_deref(), Some(""));
        assert_eq!(reveal("short"), None);
        assert_eq!(reveal("in clear!"), None);
    }

    #[test]
    fn remotes_become_stores() {
        let text = "[old]\ntype = s3\nprovider = Minio\naccess_key_id = K\nsecret_access_key = S\nendpoint = http://h:9\n\
                    [env]\ntype = s3\nprovider = AWS\nenv_auth = true\nregion = eu-a-1\n[open]\ntype = s3\nprovider = AWS\n\
                    [az]\ntype = azureblob\naccount = acme\nkey = abc=\n[sas]\ntype = azureblob\nsas_url = https://acme.blob.core.windows.net/box?sv=1&sig=x\n\
                    [gs]\ntype = google cloud storage\nservice_account_file = /k.json\n\
                    [ssh]\ntype = sftp\nhost = h\nuser = me\nport = 2222\nkey_file = /k\n\
                    [web]\ntype = webdav\nurl = https://h/dav/\nuser = me\npass = YmJiYmJiYmJiYmJiYmJiYp3gcEWbAw\n\
                    [here]\ntype = local\n[mine]\ntype = alias\nremote = old:box/deep\n[there]\ntype = alias\nremote = /srv\n";
        for (name, path, told) in [
            (
                "old",
                "box/a",
                "access_key_id=K disable_config_load=true endpoint=http://h:9 region=us-east-1 scheme=s3 secret_access_key=S | box/a/",
            ),
            ("env", "", "region=eu-a-1 scheme=s3 | "),
            (
                "open",
                "b",
                "disable_config_load=true endpoint=https://s3.amazonaws.com region=us-east-1 scheme=s3 skip_signature=true | b/",
            ),
            ("az", "box", "account_key=abc= account_name=acme scheme=azblob | box/"),
            (
                "sas",
                "box/x",
                "account_name=acme container=box endpoint=https://acme.blob.core.windows.net sas_token=sv=1&sig=x scheme=azblob | x/",
            ),
            ("gs", "b/x", "credential_path=/k.json scheme=gcs | b/x/"),
            ("ssh", "/srv/x", "endpoint=ssh://h:2222 key=/k known_hosts_strategy=add scheme=sftp user=me | srv/x/"),
            ("web", "x", "endpoint=https://h/dav password=potato scheme=webdav username=me | x/"),
            ("here", "/tmp/x", "root=/tmp/x scheme=fs | "),
            (
                "mine",
                "x",
                "access_key_id=K disable_config_load=true endpoint=http://h:9 region=us-east-1 scheme=s3 secret_access_key=S | box/deep/x/",
            ),
            ("there", "x", "root=/srv/x scheme=fs | "),
        ] {
            assert_eq!(shown(text, name, path).expect(name), told, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_done_as_rclone_does_it_is_refused_by_name() {
        let text = "[drive]\ntype = drive\n[ssh]\ntype = sftp\nhost = h\npass = x\n[home]\ntype = sftp\nhost = h\n\
                    [loop]\ntype = alias\nremote = loop:\n[box]\ntype = azureblob\nsas_url = https://a.blob.core.windows.net/box?sig=x\n";
        for (name, path, says) in [
            ("drive", "x", "type `drive`"),
            ("ssh", "/x", "logs in with a password"),
            ("home", "x", "begins in the home folder"),
            ("loop", "x", "stands for itself"),
            ("box", "other", "container `box` only"),
            ("none", "x", "has no remote `none`"),
        ] {
            let error = shown(text, name, path).expect_err(name);
            assert!(error.message.contains(says) && error.help.is_some(), "{name}: {error:?}");
        }
    }
}
