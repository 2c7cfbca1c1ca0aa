//! `pgbouncer.ini`: where its databases lead, and the same text leading elsewhere.

use std::fmt::Write as _;

/// The databases of the section `[databases]`, each with the machine and the port that it leads to.
pub(super) fn databases(text: &str) -> Vec<(String, Option<String>, u16)> {
    let mut found = Vec::new();
    for (name, value) in lines(text).filter_map(|line| line.database) {
        let mut entry = (name.to_owned(), None, 5432);
        for (key, value) in pairs(value) {
            match key.as_str() {
                "host" => entry.1 = Some(value),
                "port" => entry.2 = value.parse().unwrap_or(5432),
                _ => {}
            }
        }
        found.push(entry);
    }
    found
}

/// The text with these databases leading to another machine and port. All else is left as it is written.
pub(super) fn leading_to(text: &str, names: &[String], machine: &str, port: u16) -> String {
    let mut changed = String::with_capacity(text.len() + 64);
    for line in lines(text) {
        match line.database {
            Some((name, value)) if names.iter().any(|wanted| wanted == name) => {
                let _ = write!(changed, "{name} = host={machine} port={port}");
                for (key, value) in pairs(value).into_iter().filter(|(key, _)| key != "host" && key != "port") {
                    let _ = write!(changed, " {key}={}", quoted(&value));
                }
                changed.push_str(if line.whole.ends_with('\n') { "\n" } else { "" });
            }
            _ => changed.push_str(line.whole),
        }
    }
    changed
}

struct Line<'a> {
    whole: &'a str,
    /// Name and connect string, if the line is of the section `[databases]`.
    database: Option<(&'a str, &'a str)>,
}

fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    let mut is_databases = false;
    text.split_inclusive('\n').map(move |whole| {
        let line = whole.trim();
        if line.starts_with('[') {
            is_databases = line == "[databases]";
        }
        let is_comment = line.starts_with([';', '#', '%', '[']);
        let database = line.split_once('=').filter(|_| is_databases && !is_comment);
        Line { whole, database: database.map(|(name, value)| (name.trim().trim_matches('"'), value.trim())) }
    })
}

/// `key=value` pairs; a value in quotes may hold blanks, and two quotes in it are one.
fn pairs(text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while let Some((key, after)) = rest.split_once('=') {
        let after = after.trim_start();
        let mut value = String::new();
        let mut letters = after.char_indices().peekable();
        let mut end = after.len();
        if after.starts_with('\'') {
            letters.next();
            while let Some((at, letter)) = letters.next() {
                if letter != '\'' {
                    value.push(letter);
                } else if letters.peek().is_some_and(|(_, next)| *next == '\'') {
                    letters.next();
                    value.push('\'');
                } else {
                    end = at + 1;
                    break;
                }
            }
        } else {
            end = after.find(char::is_whitespace).unwrap_or(after.len());
            value.push_str(&after[..end]);
        }
        pairs.push((key.trim().to_owned(), value));
        rest = after[end..].trim_start();
    }
    pairs
}

fn quoted(value: &str) -> String {
    let is_plain = !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c == '\'' || c == '=');
    if is_plain { value.to_owned() } else { format!("'{}'", value.replace('\'', "''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INI: &str = "; shop\n[databases]\nshop = host=10.0.0.1 port=5432 dbname=shop connect_query='select ''a b'''\n\
        log=host=10.0.0.9\n* = host=10.0.0.1\n\n[pgbouncer]\nshop = host=1\nlisten_port = 6432\n";

    #[test]
    fn databases_are_read_with_where_they_lead() {
        let found = databases(INI);
        let place = |at: usize| (found[at].0.as_str(), found[at].1.as_deref(), found[at].2);
        assert_eq!(place(0), ("shop", Some("10.0.0.1"), 5432));
        assert_eq!(place(1), ("log", Some("10.0.0.9"), 5432));
        assert_eq!(place(2), ("*", Some("10.0.0.1"), 5432));
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn only_the_named_databases_lead_elsewhere() {
        let changed = leading_to(INI, &["shop".to_owned(), "*".to_owned()], "10.0.0.2", 5433);
        let expected = INI
            .replace("shop = host=10.0.0.1 port=5432 dbname", "shop = host=10.0.0.2 port=5433 dbname")
            .replace("* = host=10.0.0.1", "* = host=10.0.0.2 port=5433");
        assert_eq!(changed, expected);
        assert_eq!(leading_to(&changed, &["none".to_owned()], "x", 1), changed);
    }

    #[test]
    fn a_way_without_a_last_line_end_has_none_afterwards() {
        assert_eq!(leading_to("[databases]\na = port=1", &["a".to_owned()], "m", 2), "[databases]\na = host=m port=2");
    }
}
