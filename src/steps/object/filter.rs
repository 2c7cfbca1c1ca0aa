//! `include` and `exclude`: which names a step is about.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::error::StepError;

/// Names pass when an `include` matches (or none is given) and no `exclude` does: `exclude` always wins, and order
/// within a list means nothing. A pattern without a slash is matched against the last part of the name, one with a
/// slash against the whole name; `*` stays within a part, `**` goes across parts. `logs/` means all that is below it.
#[derive(Debug, Clone)]
pub struct Filter {
    include: Option<Patterns>,
    exclude: Option<Patterns>,
}

#[derive(Debug, Clone)]
struct Patterns {
    whole: GlobSet,
    last_part: GlobSet,
}

impl Patterns {
    fn new(key: &str, patterns: &[String]) -> Result<Option<Self>, StepError> {
        if patterns.is_empty() {
            return Ok(None);
        }
        let mut whole = GlobSetBuilder::new();
        let mut last_part = GlobSetBuilder::new();
        for pattern in patterns {
            let text = pattern.strip_prefix('/').unwrap_or(pattern);
            let text = if text.ends_with('/') { format!("{text}**") } else { text.to_owned() };
            let glob = GlobBuilder::new(&text).literal_separator(true).build().map_err(|error| {
                StepError::permanent(format!("`{pattern}` under `{key}` is not a pattern: {}", error.kind()))
                    .help("write patterns such as `*.jpg`, `logs/` or `2024/**/*.csv`")
            })?;
            if pattern.contains('/') {
                whole.add(glob)
            } else {
                last_part.add(glob)
            };
        }
        let build = |set: GlobSetBuilder| {
            set.build().map_err(|error| StepError::permanent(format!("the patterns under `{key}` are too large")).cause(error))
        };
        Ok(Some(Self { whole: build(whole)?, last_part: build(last_part)? }))
    }

    fn is_match(&self, name: &str) -> bool {
        let last = name.trim_end_matches('/').rsplit('/').next().unwrap_or(name);
        self.last_part.is_match(last) || self.whole.is_match(name)
    }
}

impl Filter {
    /// Reads the patterns.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, StepError> {
        Ok(Self { include: Patterns::new("include", include)?, exclude: Patterns::new("exclude", exclude)? })
    }

    /// Whether the step is about this name.
    pub fn passes(&self, name: &str) -> bool {
        self.include.as_ref().is_none_or(|patterns| patterns.is_match(name))
            && !self.exclude.as_ref().is_some_and(|patterns| patterns.is_match(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passing(include: &[&str], exclude: &[&str], names: &[&str]) -> Vec<String> {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let filter = Filter::new(&owned(include), &owned(exclude)).expect("patterns");
        names.iter().filter(|name| filter.passes(name)).map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn exclude_wins_over_include() {
        let names = ["a.jpg", "x/b.jpg", "x/c.txt", "tmp/d.jpg", "x/tmp/e.jpg"];
        assert_eq!(passing(&[], &[], &names), names);
        assert_eq!(passing(&["*.jpg"], &["tmp/"], &names), ["a.jpg", "x/b.jpg", "x/tmp/e.jpg"]);
        assert_eq!(passing(&["x/**"], &["*.txt"], &names), ["x/b.jpg", "x/tmp/e.jpg"]);
        assert_eq!(passing(&["x/*"], &[], &names), ["x/b.jpg", "x/c.txt"]);
        assert_eq!(passing(&[], &["**/tmp/**"], &names), ["a.jpg", "x/b.jpg", "x/c.txt"]);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        assert!(Filter::new(&["a[".to_owned()], &[]).is_err());
    }
}
