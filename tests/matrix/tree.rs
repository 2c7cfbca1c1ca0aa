//! A tree of nasty names, of the sizes that are treated apart, and what each kind of place holds of it.

use std::collections::BTreeMap;
use std::path::Path;

/// What is at a place: names, and what identifies the contents.
pub type Seen = BTreeMap<String, (u64, blake3::Hash)>;

/// Names that any place at hand holds.
const PLAIN: &[&str] = &[
    "plain.txt",
    "sp ace/in  ner",
    " edge",
    "a+b=c&d",
    "100%",
    "per%2Fcent",
    "quo'te\"s`",
    "<angle>&amp;",
    "ha#sh?q=1",
    "~!*()$,;:@{}|^[]",
    "..dots/..a/..b",
    "ü/✓/漢字/🦀",
    "caf\u{e9}",
    "Case/A",
    "case/b",
    "pre.txt",
    "pre/fix",
    "pre0",
];

/// Names that file systems hold, and servers in front of them not always.
pub const CONTROL: &str = "ctl\u{1}\u{1b}";
pub const CONTROLS: &[&str] = &[CONTROL, "tab\there", "new\nline", "del\u{7f}"];
/// Another form of a name above: some take both for one.
pub const DECOMPOSED: &str = "cafe\u{301}";
/// White space at the end is lost on some ways.
/// Both: rclone's WebDAV server reads one where the other was asked for.
pub const CONTROLS_AND_ACCENT: &[&str] = &[CONTROL, "tab\there", "new\nline", "del\u{7f}", DECOMPOSED];
pub const TRAILING_SPACE: &str = "edge ";
pub const BACKSLASH: &str = "back\\slash";

/// Names that only a store without folders holds.
pub const FLAT: &[&str] = &[
    "double//slash",
    "/lead",
    "trail/",
    "trail//",
    "dot/./x",
    "dots/../y",
    "../up",
    ".",
    // A key that is also a prefix of another.
    "pre",
    "pre/fix/deeper",
];

/// Of these a file system holds only some: a file has no files below it.
pub const PREFIXES: &[&str] = &["pre", "pre/fix", "pre/fix/deeper"];

/// An empty object whose name ends with a slash: a folder, where there are any.
pub const MARKER: &str = "marker/";

/// As long as a key may be, with a prefix of three bytes.
pub fn longest() -> String {
    let name = format!("{}/{}", vec!["x".repeat(200); 5].join("/"), "y".repeat(16));
    assert_eq!(name.len(), 1021);
    name
}

const MIB: u64 = 1 << 20;

/// Sizes around a part (8 MiB), around the largest object that goes in one piece (16 MiB), and around three parts.
pub fn sizes(is_full: bool) -> Vec<u64> {
    if !is_full {
        return vec![0, 1, 70_000, 16 * MIB + 1];
    }
    let around = |size: u64| [size - 1, size, size + 1];
    [vec![0, 1], around(8 * MIB).into(), around(16 * MIB).into(), around(24 * MIB).into()].concat()
}

/// Bytes that differ with the name and with the place in the object.
fn content(name: &str, size: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(size).expect("it fits")];
    blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// What a kind of place is filled with.
pub fn tree(is_flat: bool, is_full: bool, left_out: &[&str]) -> Vec<(String, Vec<u8>)> {
    let mut names: Vec<String> = PLAIN.iter().map(|name| (*name).to_owned()).collect();
    names.extend([DECOMPOSED, TRAILING_SPACE, BACKSLASH].map(str::to_owned));
    names.extend(CONTROLS.iter().map(|name| (*name).to_owned()));
    names.push(longest());
    if is_flat {
        names.extend(FLAT.iter().map(|name| (*name).to_owned()));
    }
    names.retain(|name| !left_out.contains(&name.as_str()));
    let mut tree: Vec<(String, Vec<u8>)> = names.into_iter().map(|name| (name.clone(), content(&name, 40))).collect();
    if is_flat {
        tree.push((MARKER.to_owned(), Vec::new()));
    }
    for size in sizes(is_full) {
        let name = format!("size/{size:09}");
        let bytes = content(&name, size);
        tree.push((name, bytes));
    }
    tree
}

pub fn identity(content: &[u8]) -> (u64, blake3::Hash) {
    (content.len() as u64, blake3::hash(content))
}

/// All files below a folder, by their names in it.
pub fn walk(folder: &Path) -> Seen {
    let mut seen = Seen::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&next) else { continue };
        for entry in entries {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).expect("below it").to_str().expect("UTF-8").to_owned();
            seen.insert(name, identity(&std::fs::read(&path).expect("readable")));
        }
    }
    seen
}
