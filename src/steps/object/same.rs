//! When an object at the target counts as the one at the source.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::etag::PartsEtag;
use crate::stores::Listed;

/// How objects of the same name are compared. Sizes are compared in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The MD5 that both stores list, or the same `ETag` of the same parts; where that tells nothing, as `mtime`.
    #[default]
    Auto,
    /// The size alone.
    Size,
    /// The MD5 that both stores list. Of an object that was sent in parts a store lists none, and its `ETag` depends on the
    /// size of the parts: unless both have the same, contents are read, and where that size can be found those of one side
    /// only. Where a store lists nothing of that kind, the two count as different.
    Etag,
    /// The target is not older than the source, or has its time. Of a file in a directory the time of its last change of any kind counts
    /// too, so that one which was restored, unpacked or renamed with an old time is new. Not seen are another content
    /// of the same size with an old time on SFTP and WebDAV, a whole folder that was moved into place, and what differs
    /// by less than the two machines' clocks. A file that has the time which its object tells for files is the same, if it
    /// was made later than the object: each such object is asked for that time.
    Mtime,
    /// The SHA-256 of both contents: reads every object of equal size on both sides, whatever is listed. Finds what a store
    /// has spoiled since it was written.
    Checksum,
}

/// What listings alone can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// They count as the same.
    Same,
    /// They do not.
    Different,
    /// Contents have to be read.
    Read,
    /// The target is a file that was made later than the source and has an older time: the one that the object tells for
    /// files, or not. The source has to be asked for that.
    Ask,
}

/// Many stores tell whole seconds only; then seconds are compared.
fn is_not_older(target: jiff::Timestamp, source: jiff::Timestamp) -> bool {
    if target.subsec_nanosecond() == 0 || source.subsec_nanosecond() == 0 {
        target.as_second() >= source.as_second()
    } else {
        target >= source
    }
}

/// Whether a file has this time; file systems and protocols cut it to microseconds, milliseconds or seconds.
pub fn is_at(file: jiff::Timestamp, time: jiff::Timestamp) -> bool {
    let (file, time) = (file.as_nanosecond(), time.as_nanosecond());
    [1, 1_000, 1_000_000, 1_000_000_000].into_iter().any(|unit| time.div_euclid(unit) * unit == file)
}

/// What the `ETag` of an object that was sent in parts tells.
pub fn parts(listed: &Listed) -> Option<PartsEtag> {
    listed.facts.etag.as_deref().and_then(PartsEtag::parse)
}

/// Whether both contents are the same, as far as listed MD5s tell. Of parts only the same says something: another `ETag` may
/// be of the same content in other parts.
fn by_md5(source: &Listed, target: &Listed) -> Option<bool> {
    match (&source.md5, &target.md5) {
        (Some(a), Some(b)) => Some(a == b),
        (None, None) => parts(source).zip(parts(target)).and_then(|(a, b)| (a == b).then_some(true)),
        _ => None,
    }
}

impl Rule {
    /// Compares what is listed, for a copy: it is to be avoided where nothing speaks for it.
    pub fn of_copy(self, source: &Listed, target: &Listed) -> Answer {
        let answer = |same: bool| if same { Answer::Same } else { Answer::Different };
        if source.kind != target.kind || source.facts.size != target.facts.size {
            return Answer::Different;
        }
        let by_md5 = by_md5(source, target);
        // A file that was restored or unpacked has an old time of its own, and is new all the same.
        let written = source.facts.modified.max(source.changed);
        let by_time = written.zip(target.facts.modified).map(|(a, b)| match target.changed {
            _ if is_not_older(b, a) => Answer::Same,
            // Some services show the time that an object was given for files as the one when it was written.
            None if source.changed.is_some() && source.facts.modified.is_some_and(|own| is_at(b, own)) => Answer::Same,
            // A copy that was given the time of its original.
            Some(made) if is_not_older(made, a) => match (source.changed, source.facts.modified) {
                (Some(_), Some(own)) => answer(is_at(b, own)),
                _ => Answer::Ask,
            },
            _ => Answer::Different,
        });
        let by_time = by_time.unwrap_or(Answer::Different);
        match self {
            Self::Size => Answer::Same,
            Self::Auto => by_md5.map_or(by_time, answer),
            Self::Etag => match by_md5 {
                Some(same) => answer(same),
                None if parts(source).or(parts(target)).is_some() => Answer::Read,
                None => Answer::Different,
            },
            Self::Mtime => by_time,
            Self::Checksum => Answer::Read,
        }
    }

    /// Compares what is listed, for a proof: where it does not prove anything, contents are read.
    pub fn of_proof(self, source: &Listed, target: &Listed) -> Answer {
        match (self, self.of_copy(source, target)) {
            (_, _) if source.facts.size != target.facts.size || source.kind != target.kind => Answer::Different,
            (Self::Auto, _) if source.facts.size > 0 && by_md5(source, target).is_none() => Answer::Read,
            (Self::Auto, _) if source.facts.size == 0 => Answer::Same,
            (_, Answer::Ask) => Answer::Read,
            (_, answer) => answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::{Facts, Kind};

    fn listed(size: u64, md5: Option<&str>, second: i64) -> Listed {
        let modified = jiff::Timestamp::from_second(second).ok();
        let facts = Facts { size, modified, ..Facts::default() };
        Listed { key: "a".to_owned(), kind: Kind::Object, facts, md5: md5.map(str::to_owned), storage_class: None, changed: None }
    }

    #[test]
    fn each_rule_sees_what_it_says() {
        let (old, new) = (listed(1, None, 10), listed(1, None, 20));
        assert_eq!(Rule::Auto.of_copy(&old, &new), Answer::Same);
        assert_eq!(Rule::Auto.of_copy(&new, &old), Answer::Different);
        assert_eq!(Rule::Size.of_copy(&new, &old), Answer::Same);
        assert_eq!(Rule::Etag.of_copy(&old, &new), Answer::Different);
        assert_eq!(Rule::Checksum.of_copy(&old, &new), Answer::Read);
        assert_eq!(Rule::Size.of_copy(&old, &listed(2, None, 20)), Answer::Different);
        let (a, b) = (listed(1, Some("aa"), 10), listed(1, Some("bb"), 20));
        assert_eq!(Rule::Auto.of_copy(&a, &b), Answer::Different);
        assert_eq!(Rule::Auto.of_copy(&b, &listed(1, Some("bb"), 10)), Answer::Same);
    }

    #[test]
    fn an_etag_of_parts_is_never_a_difference_by_itself() {
        let with = |digit: char, parts: u32, second| {
            let etag = Some(format!("\"{}-{parts}\"", digit.to_string().repeat(32)));
            let plain = listed(9, None, second);
            Listed { facts: Facts { etag, ..plain.facts }, ..plain }
        };
        let (a, b, plain) = (with('a', 2, 30), with('b', 3, 10), listed(9, Some("aa"), 10));
        assert_eq!(Rule::Etag.of_copy(&a, &b), Answer::Read);
        assert_eq!(Rule::Etag.of_copy(&a, &plain), Answer::Read);
        assert_eq!(Rule::Etag.of_copy(&a, &with('a', 2, 10)), Answer::Same);
        assert_eq!(Rule::Auto.of_copy(&a, &with('a', 2, 10)), Answer::Same, "whatever the times say");
        assert_eq!(Rule::Auto.of_copy(&a, &b), Answer::Different, "by the times");
        assert_eq!(Rule::Auto.of_copy(&b, &a), Answer::Same, "by the times");
        assert_eq!(Rule::Auto.of_proof(&b, &a), Answer::Read);
        assert_eq!(Rule::Auto.of_proof(&a, &with('a', 2, 10)), Answer::Same);
    }

    #[test]
    fn a_time_that_was_set_back_is_not_believed() {
        let (mut source, target) = (listed(1, None, 10), listed(1, None, 20));
        for (changed, answer) in [(15, Answer::Same), (30, Answer::Different)] {
            source.changed = jiff::Timestamp::from_second(changed).ok();
            assert_eq!(Rule::Auto.of_copy(&source, &target), answer);
            assert_eq!(Rule::Mtime.of_copy(&source, &target), answer);
            assert_eq!(Rule::Size.of_copy(&source, &target), Answer::Same);
        }
    }

    #[test]
    fn a_copy_that_has_the_time_of_its_original_is_known() {
        let second = |second| jiff::Timestamp::from_second(second).ok();
        let made = Listed { changed: second(30), ..listed(1, None, 10) };
        let file = |modified, changed| Listed { changed: second(changed), ..listed(1, None, modified) };
        // From a bucket: the object knows, the listing does not.
        assert_eq!(Rule::Auto.of_copy(&listed(1, None, 20), &made), Answer::Ask);
        assert_eq!(Rule::Auto.of_copy(&listed(1, None, 40), &made), Answer::Different);
        assert_eq!(Rule::Mtime.of_proof(&listed(1, None, 20), &made), Answer::Read);
        // From a directory.
        assert_eq!(Rule::Auto.of_copy(&file(10, 20), &made), Answer::Same);
        assert_eq!(Rule::Auto.of_copy(&file(12, 20), &made), Answer::Different);
        assert_eq!(Rule::Auto.of_copy(&file(10, 40), &made), Answer::Different);
        // To a service that shows it in place of its own.
        assert_eq!(Rule::Auto.of_copy(&file(10, 20), &listed(1, None, 10)), Answer::Same);
        assert_eq!(Rule::Auto.of_copy(&file(10, 20), &listed(1, None, 11)), Answer::Different);
    }

    #[test]
    fn a_proof_reads_where_the_listing_proves_nothing() {
        assert_eq!(Rule::Auto.of_proof(&listed(1, None, 10), &listed(1, Some("a"), 20)), Answer::Read);
        assert_eq!(Rule::Auto.of_proof(&listed(0, None, 30), &listed(0, None, 20)), Answer::Same);
        assert_eq!(Rule::Auto.of_proof(&listed(1, Some("a"), 30), &listed(1, Some("a"), 20)), Answer::Same);
        assert_eq!(Rule::Auto.of_proof(&listed(1, None, 10), &listed(2, None, 20)), Answer::Different);
    }
}
