//! The options that each scheme takes, by OpenDAL's names: a name that is not here is a typing error, not a wish.

use super::StoreOptions;
use crate::error::StepError;

const S3: &[&str] = &[
    "root",
    "bucket",
    "endpoint",
    "region",
    "profile",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "role_arn",
    "external_id",
    "role_session_name",
    "assume_role_duration_seconds",
    "disable_config_load",
    "disable_ec2_metadata",
    "skip_signature",
    "server_side_encryption",
    "server_side_encryption_aws_kms_key_id",
    "server_side_encryption_customer_algorithm",
    "server_side_encryption_customer_key",
    "server_side_encryption_customer_key_md5",
    "default_storage_class",
    "enable_virtual_host_style",
    "checksum_algorithm",
    "disable_list_objects_v2",
    "enable_request_payer",
    "default_acl",
];
const AZBLOB: &[&str] = &[
    "root",
    "container",
    "endpoint",
    "account_name",
    "account_key",
    "encryption_key",
    "encryption_key_sha256",
    "encryption_algorithm",
    "sas_token",
    "connection_string",
    "skip_signature",
];
const GCS: &[&str] = &[
    "root",
    "bucket",
    "endpoint",
    "scope",
    "service_account",
    "credential",
    "credential_path",
    "predefined_acl",
    "default_storage_class",
    "skip_signature",
    "disable_vm_metadata",
    "disable_config_load",
    "token",
];
const SFTP: &[&str] = &["root", "endpoint", "user", "key", "known_hosts_strategy"];
const WEBDAV: &[&str] =
    &["root", "endpoint", "username", "password", "token", "disable_create_dir", "user_metadata_prefix", "user_metadata_uri"];
const FS: &[&str] = &["root"];
/// A remote of an `rclone.conf`, which says all else.
const RCLONE: &[&str] = &["remote", "config"];

/// The schemes of stores.
pub fn schemes() -> &'static [&'static str] {
    &["azblob", "fs", "gcs", "memory", "rclone", "s3", "sftp", "webdav"]
}

/// The options of a scheme besides `scheme` itself; `None` for a scheme that is not known.
pub fn known_options(scheme: &str) -> Option<&'static [&'static str]> {
    Some(match scheme {
        "s3" => S3,
        "azblob" => AZBLOB,
        "gcs" => GCS,
        "sftp" => SFTP,
        "webdav" => WEBDAV,
        "fs" | "memory" => FS,
        "rclone" => RCLONE,
        _ => return None,
    })
}

fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|known| (strsim::jaro_winkler(known, name), known))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

/// Refuses an unknown scheme and unknown options; gives the scheme.
pub(super) fn check(place: &str, options: &StoreOptions) -> Result<String, StepError> {
    let scheme = options.get("scheme").map(ToString::to_string).ok_or_else(|| {
        StepError::permanent(format!("the store of `{place}` has no `scheme`"))
            .help(format!("add one of {}", schemes().join(", ")))
    })?;
    let scheme = match scheme.as_str() {
        "file" => "fs".to_owned(),
        "gs" => "gcs".to_owned(),
        "az" => "azblob".to_owned(),
        _ => scheme,
    };
    let known = known_options(&scheme).ok_or_else(|| {
        StepError::permanent(format!("`{scheme}` is no scheme of a store")).help(
            match nearest(&scheme, schemes().iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the schemes are {}", schemes().join(", ")),
            },
        )
    })?;
    for name in options.keys().filter(|name| *name != "scheme") {
        if !known.contains(&name.as_str()) {
            return Err(StepError::permanent(format!("a store with `scheme: {scheme}` has no option `{name}`")).help(
                match nearest(name, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("its options are {}", known.join(", ")),
                },
            ));
        }
    }
    Ok(scheme)
}
