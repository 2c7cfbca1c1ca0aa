//! Lines of `postgresql.conf`: values quoted as the server reads them.

use std::fmt::Write as _;

/// Settings that belong to the place where a server runs, not to what it serves: they are not carried to another host.
const OF_THE_PLACE: &[&str] =
    &["data_directory", "config_file", "hba_file", "ident_file", "external_pid_file", "stats_temp_directory"];

/// A line that sets something.
pub fn line(name: &str, value: &str) -> String {
    format!("{name} = '{}'\n", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// A configuration file with these settings, but for those that belong to a place.
pub fn file(heading: &str, settings: &[(String, String)]) -> String {
    let mut text = format!("# {heading}\n");
    for (name, value) in settings.iter().filter(|(name, _)| !OF_THE_PLACE.contains(&name.as_str())) {
        let _ = write!(text, "{}", line(name, value));
    }
    text
}

/// A conninfo string: `host='a' password='it\'s'`.
pub fn conninfo(parts: &[(&str, &str)]) -> String {
    let quoted = parts.iter().map(|(name, value)| format!("{name}='{}'", value.replace('\\', "\\\\").replace('\'', "\\'")));
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted() {
        assert_eq!(line("a", r"it's \ here"), "a = 'it''s \\\\ here'\n");
        assert_eq!(conninfo(&[("host", "a"), ("application_name", r"o'b\c")]), r"host='a' application_name='o\'b\\c'");
    }

    #[test]
    fn what_belongs_to_a_place_stays_there() {
        let settings = [("data_directory".to_owned(), "/x".to_owned()), ("work_mem".to_owned(), "4MB".to_owned())];
        assert_eq!(file("made", &settings), "# made\nwork_mem = '4MB'\n");
    }
}
