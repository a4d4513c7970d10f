//! What a client presents, before anybody has looked at it.

use std::fmt;

/// A token or an API key, as it came. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Bearer(String);

impl Bearer {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Reads the value of an `Authorization` header. `None` is another scheme than `Bearer`, such as a proxy's.
    pub fn of_header(value: &str) -> Option<&str> {
        let (scheme, rest) = value.split_once(' ').unwrap_or((value, ""));
        scheme.eq_ignore_ascii_case("bearer").then(|| rest.trim())
    }

    /// Reads a text that has the scheme in front, or has not: what a client's own code puts together.
    pub fn of_text(text: &str) -> Self {
        Self::new(Self::of_header(text).unwrap_or(text.trim()))
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_bearer_in_any_case() {
        for (value, bearer) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("BEARER abc", Some("abc")),
            ("Bearer", Some("")),
            ("Basic abc", None),
            ("Bearerabc", None),
            ("", None),
        ] {
            assert_eq!(Bearer::of_header(value), bearer, "{value:?}");
        }
        assert_eq!(Bearer::of_text(" abc").expose(), "abc");
        assert_eq!(Bearer::of_text("bearer abc").expose(), "abc");
        assert!(!format!("{:?}", Bearer::new("hunter2")).contains("hunter2"));
    }
}
