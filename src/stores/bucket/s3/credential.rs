//! Keys of S3, from the same sources and in the same order as OpenDAL takes them.

use std::sync::{Arc, PoisonError, RwLock};

use reqsign_aws_v4::{
    AssumeRoleCredentialProvider, Credential, DefaultCredentialProvider, RequestSigner, StaticCredentialProvider,
};
use reqsign_core::{Context, ProvideCredentialChain, ProvideCredentialDyn, Signer, SigningCredential as _};

use super::super::credential::{context, no_key, unsigned};
use super::super::repeat::Refusal;
use super::sign::Key;

type Source = Arc<dyn ProvideCredentialDyn<Credential = Credential>>;

/// Where the key comes from, and the one in use.
pub(super) struct Keyring {
    source: Source,
    context: Context,
    region: String,
    held: RwLock<Option<Arc<Key>>>,
    /// Of many who find no key, one loads it.
    loading: tokio::sync::Mutex<()>,
}

impl Keyring {
    pub fn open(get: &dyn Fn(&str) -> Option<String>, is: &dyn Fn(&str) -> bool, region: &str) -> Self {
        let context = context();
        let mut default = DefaultCredentialProvider::builder();
        if is("disable_config_load") {
            default = default.no_env().no_profile();
        } else if let Some(profile) = get("profile") {
            default = default.with_profile(profile);
        }
        if is("disable_ec2_metadata") {
            default = default.no_imds();
        }
        let mut chain = ProvideCredentialChain::new().push(default.build());
        if let (Some(id), Some(secret)) = (get("access_key_id"), get("secret_access_key")) {
            let key = StaticCredentialProvider::new(&id, &secret);
            chain = chain.push_front(match get("session_token") {
                Some(token) => key.with_session_token(&token),
                None => key,
            });
        }
        if let Some(role) = get("role_arn") {
            let signer = Signer::new(context.clone(), chain, RequestSigner::new("sts", region));
            let mut assume =
                AssumeRoleCredentialProvider::new(role, signer).with_region(region.to_owned()).with_regional_sts_endpoint();
            if let Some(id) = get("external_id") {
                assume = assume.with_external_id(id);
            }
            if let Some(name) = get("role_session_name") {
                assume = assume.with_role_session_name(name);
            }
            if let Some(seconds) = get("assume_role_duration_seconds").and_then(|text| text.parse().ok()) {
                assume = assume.with_duration_seconds(seconds);
            }
            chain = ProvideCredentialChain::new().push(assume);
        }
        Self::with(Arc::new(chain), context, region)
    }

    fn with(source: Source, context: Context, region: &str) -> Self {
        let region = region.to_owned();
        Self { source, context, region, held: RwLock::new(None), loading: tokio::sync::Mutex::new(()) }
    }

    /// The same key for another region.
    pub fn for_region(&self, region: &str) -> Self {
        Self::with(self.source.clone(), self.context.clone(), region)
    }

    /// The key of this day, loaded when there is none or when it is about to expire.
    pub async fn key(&self, day: &str) -> Result<Arc<Key>, Refusal> {
        if let Some(key) = self.fresh(day) {
            return Ok(key);
        }
        let _one = self.loading.lock().await;
        if let Some(key) = self.fresh(day) {
            return Ok(key);
        }
        let key = Arc::new(Key::new(self.load().await?, day, &self.region));
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Some(key.clone());
        Ok(key)
    }

    async fn load(&self) -> Result<Credential, Refusal> {
        match self.source.provide_credential_dyn(&self.context).await {
            Ok(Some(credential)) => Ok(credential),
            Ok(None) => Err(Refusal::decided(no_key())),
            Err(error) => Err(Refusal::decided(unsigned(&error))),
        }
    }

    /// Whether there is another key by now than the one that was refused: a file that holds it was rewritten. It is then
    /// the one in use.
    pub async fn has_another(&self, refused: &Arc<Key>) -> bool {
        let _one = self.loading.lock().await;
        let is_held =
            self.held.read().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|held| Arc::ptr_eq(held, refused));
        if !is_held {
            return true;
        }
        let Ok(now) = self.load().await else { return false };
        let was = &refused.credential;
        if (&now.access_key_id, &now.secret_access_key, &now.session_token)
            == (&was.access_key_id, &was.secret_access_key, &was.session_token)
        {
            return false;
        }
        let key = Arc::new(Key::new(now, &refused.day, &self.region));
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Some(key);
        true
    }

    fn fresh(&self, day: &str) -> Option<Arc<Key>> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().filter(|key| key.day == day && key.credential.is_valid()).cloned()
    }

    /// Forgets this key: the next request loads it again, unless somebody else was first.
    pub fn forget(&self, used: &Arc<Key>) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref().is_some_and(|held| Arc::ptr_eq(held, used)) {
            *held = None;
        }
    }
}
