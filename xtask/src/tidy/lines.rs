//! Rule: a line of a Markdown page is at most 119 characters long, so that a change shows which sentence changed.
//!
//! Left alone: tables, which cannot be wrapped; what is between fences or indented by four columns, which is shown as it
//! is; and a line that is one long word, such as a link.

use super::Problems;

const LONGEST: usize = 119;

/// Lines of prose that are too long.
pub(crate) fn check<'a>(pages: impl Iterator<Item = (&'a str, &'a str)>) -> Problems {
    let mut problems = Problems::new();
    for (path, text) in pages {
        let mut fenced = false;
        for (number, line) in text.lines().enumerate() {
            let words = line.trim_start();
            if words.starts_with("```") || words.starts_with("~~~") {
                fenced = !fenced;
            }
            let shown = fenced || line.starts_with("    ") || words.starts_with('|');
            let length = line.chars().count();
            if !shown && length > LONGEST && words.trim_end().contains(' ') {
                problems.push(format!(
                    "{path}:{}: {length} characters, {LONGEST} are the limit: wrap it",
                    number + 1
                ));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_of_prose_is_found_and_tables_and_listings_are_left_alone() {
        let long = "word ".repeat(30);
        let found = |page: &str| check([("p.md", page)].into_iter());
        assert_eq!(found(&long), ["p.md:1: 150 characters, 119 are the limit: wrap it"]);
        assert_eq!(found(&format!("```\n{long}\n```\n| {long} |\n    {long}\n{}", "x".repeat(150))), [""; 0]);
        assert_eq!(found(&format!("```\n```\n{long}")).len(), 1, "after a fence it is prose again");
        assert_eq!(found(&"ä".repeat(119)), [""; 0], "characters are counted, not bytes");
    }
}
