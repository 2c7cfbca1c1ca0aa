//! Keys of S3, from the same sources and in the same order as OpenDAL takes them.

use std::sync::{Arc, PoisonError, RwLock};

use reqsign_aws_v4::{
    AssumeRoleCredentialProvider, Credential, DefaultCredentialProvider, RequestSigner, StaticCredentialProvider,
};
use reqsign_core::{ProvideCredentialChain, ProvideCredentialDyn, Signer};

use super::super::credential::context;
use crate::error::StepError;

type Source = Arc<dyn ProvideCredentialDyn<Credential = Credential>>;

/// Where the key comes from, and the signer that holds the one in use.
pub(super) struct Keyring {
    source: Source,
    signer: RwLock<Arc<Signer<Credential>>>,
    region: String,
}

impl Keyring {
    pub fn open(get: &dyn Fn(&str) -> Option<String>, is: &dyn Fn(&str) -> bool, region: &str) -> Result<Self, StepError> {
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
            let signer = Signer::new(context()?, chain, RequestSigner::new("sts", region));
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
        Self::with(Arc::new(chain), region)
    }

    fn with(source: Source, region: &str) -> Result<Self, StepError> {
        let signer = Signer::new(context()?, source.clone(), RequestSigner::new("s3", region));
        Ok(Self { source, signer: RwLock::new(Arc::new(signer)), region: region.to_owned() })
    }

    /// The same key for another region.
    pub fn for_region(&self, region: &str) -> Result<Self, StepError> {
        Self::with(self.source.clone(), region)
    }

    /// The signer in use.
    pub fn signer(&self) -> Arc<Signer<Credential>> {
        self.signer.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets the key that this signer holds: the next request loads it again. Of many who find out at once that it
    /// has expired, one does that.
    pub fn renew(&self, used: &Arc<Signer<Credential>>) -> Result<(), StepError> {
        let mut signer = self.signer.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&signer, used) {
            *signer = Arc::new(Signer::new(context()?, self.source.clone(), RequestSigner::new("s3", &self.region)));
        }
        Ok(())
    }
}
