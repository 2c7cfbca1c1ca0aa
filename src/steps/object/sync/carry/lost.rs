//! What a kind of place does not keep of what another may have.

use super::Kind;
use crate::stores::Store;

/// What the source may keep with an object and the target does not, by name.
pub fn lost(source: &Store, target: &Store) -> Vec<&'static str> {
    let there = kept(target, true);
    kept(source, false).into_iter().filter(|what| !there.contains(what)).collect()
}

/// What a place keeps with an object. Buckets keep times of files among the metadata of the user's own.
fn kept(store: &Store, is_target: bool) -> Vec<&'static str> {
    const HEADERS: [&str; 5] = ["content type", "content encoding", "content disposition", "cache control", "content language"];
    let can = store.operator().info().capability();
    match Kind::of(store) {
        kind @ (Kind::S3 | Kind::Azure) => {
            let mut all = HEADERS.to_vec();
            if kind == Kind::S3 {
                all.push("expires");
            }
            all.extend(["user metadata", "tags"]);
            if is_target {
                all.push("modification time");
            }
            all
        }
        // With a target that is a directory these metadata are extended attributes, which its file system may refuse.
        Kind::Directory => vec!["user metadata", "modification time"],
        // OpenDAL does not set the time of a file there.
        Kind::Sftp => {
            if is_target {
                vec![]
            } else {
                vec!["modification time"]
            }
        }
        Kind::Gcs | Kind::Other => {
            let has_own = store.abilities().user_metadata;
            let all = [
                (can.write_with_content_type && store.scheme() != "webdav", "content type"),
                (can.write_with_content_encoding, "content encoding"),
                (can.write_with_content_disposition, "content disposition"),
                (can.write_with_cache_control, "cache control"),
                (has_own, "user metadata"),
                (has_own && is_target, "modification time"),
            ];
            all.into_iter().filter(|(is_kept, _)| *is_kept).map(|(_, what)| what).collect()
        }
    }
}
