//! "Did you mean": the known name that is nearest to a wrong one.

/// The nearest name, if one is near enough to be what was meant.
pub(crate) fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = wrong.to_lowercase();
    // Of a short name one letter may be wrong, of a long one a third; a single letter is like every other.
    let letters = wrong.chars().count();
    let limit = if letters < 2 { 0 } else { (letters / 3).clamp(1, 4) };
    known
        .into_iter()
        .filter(|name| {
            name.len().abs_diff(wrong.len()) <= limit || name.contains(wrong) || (wrong.len() > 3 && wrong.contains(name))
        })
        .filter_map(|name| {
            let distance = strsim::osa_distance(&lower, &name.to_lowercase());
            let is_part = wrong.len() >= 3 && name.len() >= 3 && (name.contains(wrong) || wrong.contains(name));
            (distance <= limit || is_part).then_some((distance, name))
        })
        .min()
        .map(|(_, name)| name)
}

/// A help line for an unknown name: the nearest one, or all when they are few.
pub(crate) fn suggest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    if let Some(name) = nearest(wrong, known.clone()) {
        return Some(format!("did you mean `{name}`?"));
    }
    let mut all: Vec<String> = known.into_iter().map(|name| format!("`{name}`")).take(13).collect();
    all.sort();
    (!all.is_empty() && all.len() <= 12).then(|| format!("known here: {}", all.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_what_was_meant() {
        assert_eq!(nearest("frezee", ["freeze", "copy", "free"]), Some("freeze"));
        assert_eq!(nearest("objekt.sync", ["object.sync", "object.list"]), Some("object.sync"));
        assert_eq!(nearest("Retry", ["retry", "entry"]), Some("retry"));
        assert_eq!(nearest("sync", ["object.sync", "wait"]), Some("object.sync"));
        assert_eq!(nearest("zebra", ["copy", "freeze"]), None);
        assert_eq!(nearest("a", ["b"]), None);
    }
}
