//! S3 and what speaks like it: one bucket, its options, and what has been learned about the service behind it.
//!
//! Services differ in what they understand. Nothing is asked beforehand: what is refused by name is left out from then
//! on, and that is remembered for as long as the bucket is open.

mod bucket;
mod credential;
mod list;
mod multipart;
mod object;
mod request;
mod service;
mod sign;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::super::Patience;
use super::address::Address;
use super::checksum::ChecksumKind;
use super::repeat::Wire;
use super::transport::Transport;
use credential::Keyring;

use crate::error::StepError;

/// A bucket of an S3-compatible service.
pub(super) struct S3 {
    name: String,
    wire: Wire,
    settings: Settings,
    /// Where it is asked, and with which region's signature. A wrong region is found out by the first answer.
    place: RwLock<Arc<Place>>,
    learned: Learned,
}

struct Place {
    address: Address,
    region: String,
    /// `None`: requests are not signed.
    keyring: Option<Keyring>,
}

/// What goes with requests because the options say so.
#[derive(Default)]
struct Settings {
    encryption: Option<String>,
    encryption_key_id: Option<String>,
    customer_algorithm: Option<String>,
    customer_key: Option<String>,
    customer_key_md5: Option<String>,
    storage_class: Option<String>,
    acl: Option<String>,
    pays: bool,
    lists_v1: bool,
}

/// What the service has refused so far.
struct Learned {
    checksum: AtomicU8,
    no_conditions: AtomicBool,
    no_checksum_of_reads: AtomicBool,
    no_batch_delete: AtomicBool,
    no_tags: AtomicBool,
    /// Seconds by which the service's clock is ahead of this machine's.
    clock_ahead: AtomicI64,
}

/// The checksums that writes carry, the best first. The last: none.
const CHECKSUMS: [Option<ChecksumKind>; 4] =
    [Some(ChecksumKind::Crc64Nvme), Some(ChecksumKind::Crc32c), Some(ChecksumKind::Md5), None];

impl Learned {
    /// The checksum that writes carry now.
    fn checksum(&self) -> Option<ChecksumKind> {
        CHECKSUMS[usize::from(self.checksum.load(Ordering::Relaxed))]
    }

    /// The service does not take this one: the next best from now on.
    fn refuse_checksum(&self, refused: ChecksumKind) {
        let at = CHECKSUMS.iter().position(|kind| *kind == Some(refused)).unwrap_or(0);
        self.checksum.fetch_max(u8::try_from(at + 1).unwrap_or(0), Ordering::Relaxed);
    }
}

impl S3 {
    /// From OpenDAL's options. `None` for a directory bucket, whose sessions only OpenDAL has. Contacts nothing.
    pub fn open(options: &[(String, String)], patience: &Patience) -> Result<Option<Self>, StepError> {
        let bucket = options.iter().find(|(known, name)| known == "bucket" && !name.is_empty() && !name.ends_with("--x-s3"));
        bucket.map(|(_, name)| Self::of(name.clone(), options, patience)).transpose()
    }

    /// The service itself: it can be asked for its buckets, and for nothing else.
    pub fn service(options: &[(String, String)], patience: &Patience) -> Result<Self, StepError> {
        Self::of(String::new(), options, patience)
    }

    fn of(name: String, options: &[(String, String)], patience: &Patience) -> Result<Self, StepError> {
        let get = |name: &str| {
            options.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
        };
        let is = |name: &str| get(name).is_some_and(|value| matches!(value.to_lowercase().as_str(), "true" | "on"));
        let region = get("region")
            .or_else(|| ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|name| std::env::var(name).ok()))
            .unwrap_or_else(|| "us-east-1".to_owned());
        let endpoint = get("endpoint").or_else(|| {
            let names = ["AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_S3_ENDPOINT"];
            names.iter().find_map(|name| std::env::var(name).ok()).filter(|_| !is("disable_config_load"))
        });
        let address = address(endpoint.as_deref(), &name, &region, is("enable_virtual_host_style"))?;
        let wire = Wire::new(Transport::new(&address.uri(None, &[])?)?, patience);
        let keyring = if is("skip_signature") { None } else { Some(Keyring::open(&get, &is, &region)) };
        let checksum = match get("checksum_algorithm").as_deref() {
            Some("crc32c") => 1,
            Some("md5") => 2,
            _ => 0,
        };
        Ok(Self {
            name,
            wire,
            settings: Settings {
                encryption: get("server_side_encryption"),
                encryption_key_id: get("server_side_encryption_aws_kms_key_id"),
                customer_algorithm: get("server_side_encryption_customer_algorithm"),
                customer_key: get("server_side_encryption_customer_key"),
                customer_key_md5: get("server_side_encryption_customer_key_md5"),
                storage_class: get("default_storage_class"),
                acl: get("default_acl"),
                pays: is("enable_request_payer"),
                lists_v1: is("disable_list_objects_v2"),
            },
            place: RwLock::new(Arc::new(Place { address, region, keyring })),
            learned: Learned {
                checksum: AtomicU8::new(checksum),
                no_conditions: AtomicBool::new(false),
                no_checksum_of_reads: AtomicBool::new(false),
                no_batch_delete: AtomicBool::new(false),
                no_tags: AtomicBool::new(false),
                clock_ahead: AtomicI64::new(0),
            },
        })
    }

    fn place(&self) -> Arc<Place> {
        self.place.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another in the place of `old`, unless somebody else was first.
    fn replace(&self, old: &Arc<Place>, new: Place) {
        let mut place = self.place.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&place, old) {
            *place = Arc::new(new);
        }
    }
}

const AWS: &str = "https://s3.amazonaws.com";

/// Where the bucket is, as OpenDAL finds it: AWS by its region, everything else as it is written.
fn address(endpoint: Option<&str>, bucket: &str, region: &str, is_virtual: bool) -> Result<Address, StepError> {
    let endpoint = match endpoint {
        Some(endpoint) if endpoint.starts_with("http") => endpoint.to_owned(),
        Some(endpoint) => format!("https://{endpoint}"),
        None => AWS.to_owned(),
    };
    let endpoint = if bucket.is_empty() { endpoint } else { endpoint.replace(&format!("//{bucket}."), "//") };
    let endpoint = Address::parse(&endpoint)?.to_url();
    let endpoint = if endpoint == AWS { format!("https://s3.{region}.amazonaws.com") } else { endpoint };
    if is_virtual && !bucket.is_empty() {
        Address::parse(&endpoint.replacen("//", &format!("//{bucket}."), 1))
    } else {
        Address::parse(&format!("{endpoint}/{bucket}"))
    }
}

/// The address in another region: AWS names it in the host.
fn moved(address: &Address, region: &str) -> Address {
    let host = address.host();
    let Some(rest) = host.strip_suffix(".amazonaws.com") else { return address.clone() };
    let at = match rest.rfind("s3.") {
        Some(at) if at == 0 || rest[..at].ends_with('.') => at,
        _ => return address.clone(),
    };
    let dual = if rest[at..].starts_with("s3.dualstack.") { "s3.dualstack." } else { "s3." };
    address.with_host(&format!("{}{dual}{region}.amazonaws.com", &rest[..at])).unwrap_or_else(|| address.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_asked_where_its_options_say() {
        let is_at =
            |endpoint: Option<&str>, is_virtual: bool| address(endpoint, "box", "eu-x-1", is_virtual).expect("one").to_url();
        assert_eq!(is_at(None, false), "https://s3.eu-x-1.amazonaws.com/box");
        assert_eq!(is_at(None, true), "https://box.s3.eu-x-1.amazonaws.com");
        assert_eq!(is_at(Some("http://127.0.0.1:9000/"), false), "http://127.0.0.1:9000/box");
        assert_eq!(is_at(Some("box.example.com"), true), "https://box.example.com");
        assert_eq!(is_at(Some("https://example.com:443/s3/"), false), "https://example.com/s3/box");
        assert_eq!(address(Some("http://127.0.0.1:9000"), "", "r", true).expect("one").to_url(), "http://127.0.0.1:9000");
    }

    #[test]
    fn a_region_moves_the_host_of_aws_and_no_other() {
        let to = |url: &str| moved(&Address::parse(url).expect("an address"), "eu-b-2").to_url();
        assert_eq!(to("https://s3.us-a-1.amazonaws.com/box"), "https://s3.eu-b-2.amazonaws.com/box");
        assert_eq!(to("https://box.s3.us-a-1.amazonaws.com"), "https://box.s3.eu-b-2.amazonaws.com");
        assert_eq!(to("https://box.s3.dualstack.us-a-1.amazonaws.com"), "https://box.s3.dualstack.eu-b-2.amazonaws.com");
        assert_eq!(to("http://127.0.0.1:9/box"), "http://127.0.0.1:9/box");
    }
}
