//! The ways in which people keep the settings of an Azure account in one text: connection strings and signed addresses.

use url::{Host, Url};

use crate::error::StepError;

/// The emulator that comes with Azure's tools, as its documentation has it.
pub(super) const EMULATOR: &str = "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;\
    AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;\
    BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1";

/// Options of a store, by name.
pub(super) type Told = Vec<(&'static str, String)>;

/// `AccountName=…;AccountKey=…;BlobEndpoint=…`.
pub(super) fn of_connection(text: &str) -> Result<Told, StepError> {
    if text.trim().eq_ignore_ascii_case("UseDevelopmentStorage=true") {
        return of_connection(EMULATOR);
    }
    let pairs: Vec<(&str, &str)> = text.split(';').filter_map(|pair| pair.trim().split_once('=')).collect();
    let get = |name: &str| pairs.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| (*value).to_owned());
    let account = get("AccountName");
    let endpoint = get("BlobEndpoint").or_else(|| {
        let (scheme, suffix) = (get("DefaultEndpointsProtocol"), get("EndpointSuffix"));
        let (scheme, suffix) = (scheme.as_deref().unwrap_or("https"), suffix.as_deref().unwrap_or("core.windows.net"));
        Some(format!("{scheme}://{}.blob.{suffix}", account.as_deref()?))
    });
    let endpoint = endpoint.ok_or_else(|| {
        StepError::permanent("an Azure connection string names neither an account nor an endpoint")
            .help("copy it whole from the portal: `DefaultEndpointsProtocol=https;AccountName=…;AccountKey=…;EndpointSuffix=…`")
    })?;
    let endpoint = endpoint.trim_end_matches('/').to_owned();
    let parts = [
        ("endpoint", Some(endpoint)),
        ("account_name", account),
        ("account_key", get("AccountKey")),
        ("sas_token", get("SharedAccessSignature")),
    ];
    Ok(parts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
}

/// `https://account.blob.core.windows.net/container?sv=…`, with or without the container.
pub(super) fn of_sas_url(text: &str) -> Result<Told, StepError> {
    let wrong = || {
        StepError::permanent("a signed address of Azure (`sas_url`) cannot be read")
            .help("copy it whole: `https://account.blob.core.windows.net/container?sv=…&sig=…`")
    };
    let url = Url::parse(text).map_err(|_| wrong())?;
    let token = url.query().filter(|query| !query.is_empty()).ok_or_else(wrong)?.to_owned();
    let mut parts = url.path().split('/').filter(|part| !part.is_empty());
    let host = url.host().ok_or_else(wrong)?;
    // Emulators have the account in the path, as their hosts have no names.
    let is_emulator = !matches!(&host, Host::Domain(name) if name.contains('.'));
    let account = match &host {
        _ if is_emulator => parts.next().map(str::to_owned),
        Host::Domain(name) => name.split('.').next().map(str::to_owned),
        _ => None,
    };
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let mut endpoint = format!("{}://{host}{port}", url.scheme());
    if let Some(account) = account.as_ref().filter(|_| is_emulator) {
        endpoint = format!("{endpoint}/{account}");
    }
    let container = parts.next().map(str::to_owned);
    if parts.next().is_some() {
        return Err(wrong());
    }
    let parts = [("endpoint", Some(endpoint)), ("account_name", account), ("container", container), ("sas_token", Some(token))];
    Ok(parts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(told: Result<Told, StepError>) -> String {
        let told = told.expect("it can be read").into_iter().map(|(name, value)| format!("{name}={value}"));
        told.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn connection_strings_are_read() {
        let text = "DefaultEndpointsProtocol=https;AccountName=acme;AccountKey=ab+/==;EndpointSuffix=core.windows.net";
        let wanted = "endpoint=https://acme.blob.core.windows.net account_name=acme account_key=ab+/==";
        assert_eq!(told(of_connection(text)), wanted);
        let text = "BlobEndpoint=http://127.0.0.1:1/a/;SharedAccessSignature=sv=1&sig=x";
        assert_eq!(told(of_connection(text)), "endpoint=http://127.0.0.1:1/a sas_token=sv=1&sig=x");
        assert!(told(of_connection("UseDevelopmentStorage=true")).contains("devstoreaccount1"));
        assert!(of_connection("nonsense").is_err());
    }

    #[test]
    fn signed_addresses_are_read() {
        let wanted = "endpoint=https://acme.blob.core.windows.net account_name=acme container=box sas_token=sv=1&sig=x";
        assert_eq!(told(of_sas_url("https://acme.blob.core.windows.net/box?sv=1&sig=x")), wanted);
        let wanted = "endpoint=http://127.0.0.1:10000/dev account_name=dev sas_token=sig=x";
        assert_eq!(told(of_sas_url("http://127.0.0.1:10000/dev?sig=x")), wanted);
        assert!(of_sas_url("https://acme.blob.core.windows.net/box").is_err());
    }
}
