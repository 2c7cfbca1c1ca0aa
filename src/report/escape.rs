//! Text of others inside a page or a drawing: it stays text.

use crate::secret::unmarked;

/// The text for HTML and XML, between tags and inside quoted attributes. Secrets become `***`; what XML does not allow
/// is replaced.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in unmarked(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || c == '\u{FFFE}' || c == '\u{FFFF}' => out.push('\u{FFFD}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::mark;

    #[test]
    fn nothing_in_a_text_becomes_a_tag_or_a_secret() {
        let text = format!("<b a='\"'>&\u{1b}[31m{}", mark("repl"));
        assert_eq!(escaped(&text), "&lt;b a=&#39;&quot;&#39;&gt;&amp;\u{FFFD}[31m***");
    }
}
