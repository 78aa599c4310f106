//! Rule: every Rust file starts with a `//!` head (STYLE 1).

use super::{Problems, Source};

/// Files whose first line is not a `//!` with something in it.
pub(crate) fn check(sources: &[Source]) -> Problems {
    let headless = |source: &&Source| {
        let first = source.text.lines().next().unwrap_or_default();
        first.strip_prefix("//!").is_none_or(|head| head.trim().len() < 10 || head.trim() == "placeholder")
    };
    let problem = |source: &Source| {
        format!("{}:1: starts with no `//!` head; say what the file is, why, and its invariant", source.path)
    };
    sources.iter().filter(headless).map(problem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_head_is_found() {
        let source = |text| Source::parse("a.rs", text).expect("Rust");
        assert!(check(&[source("//! What this is and why.\nfn f() {}")]).is_empty());
        assert_eq!(check(&[source("fn f() {}"), source("//!\n"), source("//! placeholder\n")]).len(), 3);
    }
}
