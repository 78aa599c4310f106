//! Rule: no unfinished business in code, and no package registry's host name in any file.
//!
//! Where packages come from is each builder's own configuration; the lock file, which cargo writes, is exempt.
//! The words are put together from pieces, so that this file does not contain them.

use super::Problems;
use super::tree::Tree;

/// What marks unfinished code.
const UNFINISHED: [&str; 4] =
    [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("to", "do!("), concat!("XX", "X")];
/// Hosts of package registries.
const HOSTS: [&str; 7] = [
    concat!("crates", ".io"),
    concat!("pypi", ".org"),
    concat!("python", "hosted.org"),
    concat!("npm", "js.org"),
    concat!("npm", "js.com"),
    concat!("deb.debian", ".org"),
    concat!("proxy.golang", ".org"),
];

/// Lines with such words.
pub(crate) fn check(tree: &Tree) -> Problems {
    let mut problems = Problems::new();
    for (path, text) in tree.texts().filter(|(path, _)| !path.ends_with("Cargo.lock")) {
        let code =
            path.ends_with(".rs") || path.ends_with(".sh") || path.ends_with(".S") || path.ends_with(".c");
        for (index, line) in text.lines().enumerate() {
            let at = format!("{path}:{}", index + 1);
            if let Some(word) = UNFINISHED.iter().find(|word| code && contains_word(line, word)) {
                problems.push(format!("{at}: `{word}`: finish it, or say in docs/ that it is not done"));
            }
            if let Some(host) = HOSTS.iter().find(|host| line.contains(*host)) {
                problems.push(format!("{at}: names the package registry host {host}; leave it out"));
            }
        }
    }
    problems
}

/// Whether the word stands there on its own: not in the middle of a name or a string of capitals.
fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !is_part(before) && (word.ends_with('(') || !is_part(after))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_code_and_registry_hosts_are_found() {
        let [marker, _, call, _] = UNFINISHED;
        let text = format!("// {marker}: later\nfn f() {{ {call}) }}\nlet {marker}S_MAX = 1;\n");
        assert_eq!(check(&Tree::of(&[("a.rs", &text)])).len(), 2);
        assert!(check(&Tree::of(&[("notes.md", &text)])).is_empty());
        let text = format!("see {}\n", HOSTS[0]);
        assert_eq!(check(&Tree::of(&[("README.md", &text), ("Cargo.lock", &text)])).len(), 1);
    }
}
