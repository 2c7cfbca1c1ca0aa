//! Files of sections, names and values, as rclone and the AWS tools keep their settings.

/// A file's sections in its order. What stands before the first one has the name `""`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ini(Vec<(String, Vec<(String, String)>)>);

impl Ini {
    /// Reads it. A line that is set in belongs to the name above it, which has no value of its own then: `s3.endpoint_url`.
    pub fn read(text: &str) -> Self {
        let mut sections = vec![(String::new(), Vec::new())];
        let mut above: Option<String> = None;
        for line in text.trim_start_matches('\u{feff}').lines() {
            let is_set_in = line.starts_with([' ', '\t']);
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                sections.push((name.trim().to_owned(), Vec::new()));
                above = None;
                continue;
            }
            let Some((name, value)) = line.split_once('=') else { continue };
            let (mut name, value) = (name.trim().to_owned(), value.trim().to_owned());
            match (&above, is_set_in) {
                (Some(above), true) => name = format!("{above}.{name}"),
                _ => above = value.is_empty().then(|| name.clone()),
            }
            let (_, values): &mut (String, Vec<(String, String)>) = sections.last_mut().expect("it begins with one");
            values.push((name, value));
        }
        Self(sections)
    }

    /// The names of all sections.
    pub fn sections(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str()).filter(|name| !name.is_empty())
    }

    /// The section of this name; the last one, if there are several.
    pub fn section(&self, name: &str) -> Option<Section<'_>> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, values)| Section(values))
    }
}

/// One section.
#[derive(Debug, Clone, Copy)]
pub(super) struct Section<'a>(&'a [(String, String)]);

impl<'a> Section<'a> {
    /// A value that is there and not empty.
    pub fn get(self, name: &str) -> Option<&'a str> {
        let found = self.0.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Whether a value says yes.
    pub fn is(self, name: &str) -> bool {
        self.get(name).is_some_and(|value| matches!(value.to_lowercase().as_str(), "true" | "1" | "yes" | "on"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_names_and_values_are_read() {
        let text = "# settings\n[old]\ntype = s3\nendpoint=http://h:1/?a=b\n; no\nempty =\n\n[profile x]\ns3 =\n  endpoint_url = u\n  a = b\nregion = r\n";
        let ini = Ini::read(text);
        assert_eq!(ini.sections().collect::<Vec<_>>(), ["old", "profile x"]);
        let old = ini.section("old").expect("it is there");
        assert_eq!((old.get("type"), old.get("endpoint"), old.get("empty")), (Some("s3"), Some("http://h:1/?a=b"), None));
        let profile = ini.section("profile x").expect("it is there");
        assert_eq!((profile.get("s3.endpoint_url"), profile.get("region")), (Some("u"), Some("r")));
    }
}
