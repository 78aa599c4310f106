//! Rule: "DESIGN 2.4" in a Rust file means point 4 of section 2 of `docs/design.md`, and is there; so is STYLE's.

use super::{Problems, Source};

/// Citations of sections and points that the pages do not have.
pub(crate) fn check(sources: &[Source], design: &str, style: &str) -> Problems {
    let mut problems = Problems::new();
    for source in sources {
        for (number, line) in source.text.lines().enumerate() {
            let mut complain =
                |what: String| problems.push(format!("{}:{}: {what}", source.path, number + 1));
            for (section, point) in citations(line, "DESIGN ") {
                if !has_section(design, section, point) {
                    complain(format!("docs/design.md has no {}", shown(section, point)));
                }
            }
            for (point, _) in citations(line, "STYLE ") {
                if !style.lines().any(|l| l.starts_with(&format!("{point}. "))) {
                    complain(format!("docs/style.md has no rule {point}"));
                }
            }
        }
    }
    problems
}

/// The numbers behind a word: `DESIGN 2.4` gives (2, Some(4)).
fn citations(line: &str, word: &str) -> Vec<(u32, Option<u32>)> {
    line.split(word)
        .skip(1)
        .filter_map(|rest| {
            let (section, rest) = number(rest.strip_prefix("section ").unwrap_or(rest))?;
            Some((section, rest.strip_prefix('.').and_then(number).map(|(point, _)| point)))
        })
        .collect()
}

fn number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

fn has_section(page: &str, section: u32, point: Option<u32>) -> bool {
    let Some((_, body)) = page.split_once(&format!("\n## {section}. ")) else { return false };
    let body = body.split("\n## ").next().unwrap_or_default();
    point.is_none_or(|point| body.lines().any(|line| line.starts_with(&format!("{point}. "))))
}

fn shown(section: u32, point: Option<u32>) -> String {
    point.map_or(format!("section {section}"), |point| format!("point {point} in section {section}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_citation_of_what_is_not_there_is_found() {
        let design = "# Design\n\n## 1. One\n\n## 2. Two\n1. a\n2. b\n\n## 3. Three\n3. c\n";
        let style = "1. a rule\n";
        let problems = |text: &str| {
            let source = Source::parse("a.rs", &format!("//! {text}\n")).expect("Rust");
            check(&[source], design, style)
        };
        let word = ["DESI", "GN"].concat();
        let rule = ["STY", "LE"].concat();
        assert!(problems(&format!("{word} 1, {word} 2.2, {rule} 1")).is_empty());
        assert_eq!(problems(&format!("{word} 4")).len(), 1);
        assert_eq!(problems(&format!("{word} 2.3")), ["a.rs:1: docs/design.md has no point 3 in section 2"]);
        assert_eq!(problems(&format!("{rule} 2 and {word} section 9")).len(), 2);
    }
}
