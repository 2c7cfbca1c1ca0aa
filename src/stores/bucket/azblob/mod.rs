//! Azure Blob: one container, its options, and what has been learned about the service behind it.
//!
//! An upload is a set of blocks whose ids begin with the upload's id, so that it goes on after a restart. Azure has no
//! request that throws blocks away: those of a name that has no blob yet expire after seven days, those of a blob that
//! is there when it is next written. `Expires` is no property of a blob and is dropped; names of metadata are letters,
//! digits and `_` there.

mod blob;
mod block;
mod bucket;
mod list;
mod request;
mod service;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};

use reqsign_azure_storage::{Credential, DefaultCredentialProvider, RequestSigner, StaticCredentialProvider};
use reqsign_core::{ProvideCredentialChain, ProvideCredentialDyn, Signer};

use super::super::Patience;
use super::address::Address;
use super::credential;
use super::repeat::Wire;
use super::transport::Transport;
use crate::error::StepError;

/// A container of Azure Blob.
pub(super) struct Azblob {
    name: String,
    wire: Wire,
    address: Address,
    /// The account, without a container: other containers are sources of copies.
    account: Address,
    keyring: Option<Keyring>,
    encryption: [(&'static str, Option<String>); 3],
    /// The service does not check CRC-64: its answers do not tell it.
    has_no_crc: AtomicBool,
    /// The service does not know the version that lists from a key on.
    has_no_start: AtomicBool,
}

/// Where the key comes from, and the signer that holds the one in use.
struct Keyring {
    source: Arc<dyn ProvideCredentialDyn<Credential = Credential>>,
    signer: RwLock<Arc<Signer<Credential>>>,
}

impl Azblob {
    /// From OpenDAL's options. Contacts nothing.
    pub fn open(options: &[(String, String)], patience: &Patience) -> Result<Option<Self>, StepError> {
        let get = |name: &str| {
            options.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
        };
        let (Some(name), Some(_)) = (get("container"), get("endpoint")) else { return Ok(None) };
        Self::of(name, options, patience).map(Some)
    }

    /// The account itself: it can be asked for its containers, and for nothing else.
    pub fn service(options: &[(String, String)], patience: &Patience) -> Result<Self, StepError> {
        Self::of(String::new(), options, patience)
    }

    fn of(name: String, options: &[(String, String)], patience: &Patience) -> Result<Self, StepError> {
        let get = |name: &str| {
            options.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
        };
        let endpoint = get("endpoint").ok_or_else(|| {
            StepError::permanent("no account of Azure is named").help(
                "set AZURE_STORAGE_ACCOUNT or AZURE_STORAGE_CONNECTION_STRING, or write `azblob://container/?account_name=…`",
            )
        })?;
        let endpoint = endpoint.trim_end_matches('/');
        let endpoint = if endpoint.starts_with("http") { endpoint.to_owned() } else { format!("https://{endpoint}") };
        let address = Address::parse(&format!("{endpoint}/{name}"))?;
        let account = Address::parse(&endpoint)?;
        let wire = Wire::new(Transport::new(&address.uri(None, &[])?)?, patience);
        let is_unsigned = get("skip_signature").is_some_and(|value| matches!(value.to_lowercase().as_str(), "true" | "on"));
        let keyring = if is_unsigned { None } else { Some(Keyring::open(&get, &account)) };
        Ok(Self {
            name,
            wire,
            address,
            account,
            keyring,
            encryption: [
                ("x-ms-encryption-key", get("encryption_key")),
                ("x-ms-encryption-key-sha256", get("encryption_key_sha256")),
                ("x-ms-encryption-algorithm", get("encryption_algorithm")),
            ],
            has_no_crc: AtomicBool::new(false),
            has_no_start: AtomicBool::new(false),
        })
    }
}

impl Keyring {
    fn open(get: &dyn Fn(&str) -> Option<String>, account: &Address) -> Self {
        let mut chain = ProvideCredentialChain::new().push(DefaultCredentialProvider::new());
        let name = get("account_name").or_else(|| account_of(account.host()));
        if let (Some(name), Some(key)) = (name, get("account_key")) {
            chain = chain.push_front(StaticCredentialProvider::new_shared_key(&name, &key));
        }
        if let Some(token) = get("sas_token") {
            chain = chain.push_front(StaticCredentialProvider::new_sas_token(&token));
        }
        let source: Arc<dyn ProvideCredentialDyn<Credential = Credential>> = Arc::new(chain);
        let signer = Arc::new(signer(source.clone()));
        Self { source, signer: RwLock::new(signer) }
    }
}

fn signer(source: Arc<dyn ProvideCredentialDyn<Credential = Credential>>) -> Signer<Credential> {
    // The permissions are for sources of copies: the service reads them, and their tags, with an address that is signed
    // for an hour.
    Signer::new(credential::context(), source, RequestSigner::new().with_service_sas_permissions("rt"))
}

/// The account's name in a host of Azure's own.
fn account_of(host: &str) -> Option<String> {
    let (account, rest) = host.split_once('.')?;
    let clouds = ["core.windows.net", "core.usgovcloudapi.net", "core.chinacloudapi.cn"];
    clouds.iter().any(|cloud| rest.ends_with(cloud)).then(|| account.to_owned())
}
