//! `pg_hba.conf`: lines that ferry adds for a while, known by a mark, and the fence that lets nobody in.

/// Lines of this run carry it as their comment.
fn mark(key: &str) -> String {
    format!("# ferry {key}")
}

/// The text with these lines before all others, in place of what was added under the same key.
pub fn with_lines(text: &str, lines: &[String], key: &str) -> String {
    let added: Vec<String> = lines.iter().map(|line| format!("{line} {}\n", mark(key))).collect();
    added.concat() + &without_lines(text, key)
}

/// The text without what was added under this key.
pub fn without_lines(text: &str, key: &str) -> String {
    let mark = mark(key);
    text.split_inclusive('\n').filter(|line| !line.trim_end().ends_with(&mark)).collect()
}

/// A file that lets in only who replicates, by the rules of the file in place, and turns everybody else away, whatever
/// way they come. Lines that were added under the key `copy` stay too. What is open when it is loaded stays open.
pub fn fence(text: &str, key: &str, copy: &str) -> String {
    let ours = mark(copy);
    let mut fence = format!("{}: nobody is let in while the database moves; the file before it is beside it\n", mark(key));
    for line in text.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // Only the keyword means replication; a list or the quoted name of a database does not.
        if !line.trim_start().starts_with('#') && (fields.get(1) == Some(&"replication") || line.trim_end().ends_with(&ours)) {
            fence.push_str(line);
            fence.push('\n');
        }
    }
    fence.push_str(
        "local all all reject\nhost all all all reject\nlocal replication all reject\nhost replication all all reject\n",
    );
    fence
}

/// Whether a file is the fence of this key.
pub fn is_fence(text: &str, key: &str) -> bool {
    text.starts_with(&mark(key)) && text.contains("\nlocal all all reject\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str =
        "# who may come\nlocal all postgres peer\nhost replication old 10.0.0.9/32 md5\nhost shop app 0.0.0.0/0 md5\n";

    #[test]
    fn added_lines_come_first_and_go_again() {
        let added = with_lines(FILE, &["hostssl replication x 10.0.0.2/32 scram-sha-256".to_owned()], "k1");
        assert!(added.starts_with("hostssl replication x 10.0.0.2/32 scram-sha-256 # ferry k1\n# who"), "{added}");
        let again = with_lines(&added, &["host replication x ::1/128 scram-sha-256".to_owned()], "k1");
        assert!(again.starts_with("host replication x ::1/128 scram-sha-256 # ferry k1\n# who"), "{again}");
        assert_eq!(without_lines(&again, "k2"), again);
        assert_eq!(without_lines(&again, "k1"), FILE);
    }

    #[test]
    fn a_fence_leaves_only_replication() {
        let fence = fence(&with_lines(FILE, &["host \"shop\" x ::1/128 md5".to_owned()], "k0"), "k1", "k0");
        assert!(is_fence(&fence, "k1") && !is_fence(&fence, "k2") && !is_fence(FILE, "k1"));
        let rules: Vec<&str> = fence.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(rules[..2], ["host \"shop\" x ::1/128 md5 # ferry k0", "host replication old 10.0.0.9/32 md5"]);
        assert!(rules[2..].iter().all(|rule| rule.ends_with("reject")) && rules.len() == 6, "{fence}");
    }
}
