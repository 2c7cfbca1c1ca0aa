//! The time when a file was last changed, in metadata: as rclone keeps it, and as s3cmd does.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Kind;

/// rclone's name for it.
pub(super) const MTIME: &str = "mtime";
/// s3cmd's name for all that it keeps of a file: `atime:1/…/mtime:2/…`.
const S3CMD: &str = "s3cmd-attrs";

/// The time that metadata tell; names as they are in S3.
pub(super) fn told(user: &BTreeMap<String, String>) -> Option<Timestamp> {
    let get = |wanted: &str| user.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.as_str());
    let by_s3cmd = || get(S3CMD)?.split('/').find_map(|attribute| seconds(attribute.strip_prefix("mtime:")?));
    get(MTIME).and_then(|text| seconds(text).or_else(|| text.parse().ok())).or_else(by_s3cmd)
}

/// The time of a file that these metadata tell of, whatever bucket they come from.
pub fn file_time(from: Kind, user: &BTreeMap<String, String>) -> Option<Timestamp> {
    if from != Kind::Azure {
        return told(user);
    }
    told(&user.iter().map(|(name, value)| (super::name::decoded(name), value.clone())).collect())
}

/// `1354040105.123456789`: seconds, at most nine digits behind the point.
fn seconds(text: &str) -> Option<Timestamp> {
    let (whole, part) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_before = whole.starts_with('-');
    if !is_number(whole.trim_start_matches('-')) || !is_number(part) || part.len() > 9 {
        return None;
    }
    let nanos: i32 = format!("{part:0<9}").parse().ok()?;
    Timestamp::new(whole.parse().ok()?, if is_before { -nanos } else { nanos }).ok()
}

/// The time as rclone writes it for this kind of bucket; `None` for what has no metadata.
pub(super) fn written(to: Kind, time: Timestamp) -> Option<String> {
    match to {
        Kind::S3 => {
            let (seconds, nanos) = (time.as_second(), time.subsec_nanosecond());
            let sign = if seconds == 0 && nanos < 0 { "-" } else { "" };
            let whole = format!("{sign}{seconds}.{:09}", nanos.unsigned_abs());
            Some(whole.trim_end_matches('0').trim_end_matches('.').to_owned())
        }
        Kind::Azure | Kind::Gcs => Some(time.strftime("%Y-%m-%dT%H:%M:%S%.9fZ").to_string()),
        Kind::Directory | Kind::Sftp | Kind::Other => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64, nanos: i32) -> Timestamp {
        Timestamp::new(seconds, nanos).expect("a time")
    }

    #[test]
    fn a_time_is_written_as_rclone_does_and_comes_back() {
        for (time, s3, azure) in [
            (at(1_354_040_105, 123_456_789), "1354040105.123456789", "2012-11-27T18:15:05.123456789Z"),
            (at(1_354_040_105, 120_000_000), "1354040105.12", "2012-11-27T18:15:05.120000000Z"),
            (at(1_354_040_100, 0), "1354040100", "2012-11-27T18:15:00.000000000Z"),
            (at(-1, -500_000_000), "-1.5", "1969-12-31T23:59:58.500000000Z"),
        ] {
            assert_eq!(written(Kind::S3, time).as_deref(), Some(s3));
            assert_eq!(written(Kind::Azure, time).as_deref(), Some(azure));
            for text in [s3, azure] {
                assert_eq!(told(&[("mtime".to_owned(), text.to_owned())].into()), Some(time), "{text}");
            }
        }
    }

    #[test]
    fn what_s3cmd_keeps_is_read() {
        let attributes = "atime:1354040106/ctime:1354040107/gid:0/md5:0cc1/mode:33188/mtime:1354040105/uid:0/uname:root";
        let user = BTreeMap::from([(S3CMD.to_owned(), attributes.to_owned())]);
        assert_eq!(told(&user), Some(at(1_354_040_105, 0)));
        let user = BTreeMap::from([("s3cmd_x002d_attrs".to_owned(), attributes.to_owned())]);
        assert_eq!((file_time(Kind::Azure, &user), file_time(Kind::S3, &user)), (Some(at(1_354_040_105, 0)), None));
        for text in ["", "x", "1e9", "1.x", "1.1234567890"] {
            assert_eq!(told(&[("mtime".to_owned(), text.to_owned())].into()), None, "{text}");
        }
    }
}
