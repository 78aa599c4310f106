//! Rule: a test that a page names is there. The invariants are worth what their tests are worth.
//!
//! A name in backticks with four underscores or more is taken for a test's: sentences are that long, other names are
//! not.

use super::{Problems, Source};
use std::collections::BTreeSet;

/// Names of tests on the given pages that no file defines.
pub(crate) fn check<'a>(sources: &[Source], pages: impl Iterator<Item = (&'a str, &'a str)>) -> Problems {
    let defined: BTreeSet<&str> = sources.iter().flat_map(|s| defined(&s.text)).collect();
    let mut problems = Problems::new();
    for (path, text) in pages {
        for (number, line) in text.lines().enumerate() {
            for name in named(line).filter(|name| !defined.contains(name)) {
                problems.push(format!("{path}:{}: there is no test `{name}`", number + 1));
            }
        }
    }
    problems
}

fn named(line: &str) -> impl Iterator<Item = &str> {
    let sentence = |name: &&str| {
        name.bytes().all(|b| b == b'_' || b.is_ascii_lowercase() || b.is_ascii_digit())
            && name.matches('_').count() >= 4
    };
    line.split('`').skip(1).step_by(2).filter(sentence)
}

fn defined(text: &str) -> impl Iterator<Item = &str> {
    let name =
        |rest: &'_ str| rest.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
    text.split("fn ").skip(1).map(move |rest| &rest[..name(rest)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_a_page_names_and_nobody_wrote_is_found() {
        let source = Source::parse("a.rs", "//! Head.\nfn the_first_of_the_two_holds() {}").expect("Rust");
        let page =
            "see `the_first_of_the_two_holds` and\n`the_second_of_the_two_holds`, `max_len`, `a_b_c_d`";
        let found = check(&[source], [("p.md", page)].into_iter());
        assert_eq!(found, ["p.md:2: there is no test `the_second_of_the_two_holds`"]);
    }
}
