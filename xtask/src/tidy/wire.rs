//! Rule: `docs/wire.md` describes the codec as it is.
//!
//! The page carries a hash of the codec's code. Whoever changes the code is reminded to read the page, and puts
//! the new hash there. Comments, documentation and layout of the code do not count.

use super::source::each_token;
use super::{Problems, Source};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use xxhash_rust::xxh3::Xxh3;

/// The code that is described.
const CODEC: &str = "crates/codec/src/";
/// The page's line, before the hash.
const LINE: &str = "Codec sources: `";

/// Complains if the page's hash is another than the code's.
pub(crate) fn check(sources: &[Source], page: &str) -> Problems {
    let hash = hash(sources);
    let line = format!("{LINE}{hash:016x}`");
    if page.lines().any(|found| found == line) {
        return Problems::new();
    }
    vec![format!(
        "docs/wire.md: the codec has changed: make the page say what it does, then its line `{line}`"
    )]
}

/// A hash over the tokens of all codec files, in the order of their paths.
fn hash(sources: &[Source]) -> u64 {
    let mut hasher = Xxh3::new();
    for source in sources.iter().filter(|source| source.path.starts_with(CODEC)) {
        hasher.update(source.path.as_bytes());
        each_token(&without_docs(&source.tokens), &mut |token| {
            match token {
                TokenTree::Group(group) => hasher.update(match group.delimiter() {
                    Delimiter::Parenthesis => b"(",
                    Delimiter::Brace => b"{",
                    Delimiter::Bracket => b"[",
                    Delimiter::None => b" ",
                }),
                other => hasher.update(other.to_string().as_bytes()),
            }
            hasher.update(b"\n");
        });
    }
    hasher.digest()
}

/// The tokens without `#[doc = "…"]` and `#![doc = "…"]`, which is what doc comments are.
fn without_docs(tokens: &TokenStream) -> TokenStream {
    let mut kept: Vec<TokenTree> = Vec::new();
    for token in tokens.clone() {
        let TokenTree::Group(group) = &token else {
            kept.push(token);
            continue;
        };
        let first = group.stream().into_iter().next();
        let is_doc = matches!(first, Some(TokenTree::Ident(ident)) if ident == "doc");
        if group.delimiter() == Delimiter::Bracket && is_doc {
            while kept.last().is_some_and(|t| matches!(t, TokenTree::Punct(p) if "#!".contains(p.as_char())))
            {
                kept.pop();
            }
        } else {
            kept.push(proc_macro2::Group::new(group.delimiter(), without_docs(&group.stream())).into());
        }
    }
    kept.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_layout_do_not_count_and_code_does() {
        let of = |text| hash(&[Source::parse("crates/codec/src/a.rs", text).expect("Rust")]);
        let code = of("//! Head.\n/// Doc.\nconst A: u8 = 1;");
        assert_eq!(code, of("//! Other head.\n// Why.\n/// Other\n/// doc.\nconst A: u8\n    = 1;"));
        assert_ne!(code, of("//! Head.\n/// Doc.\nconst A: u8 = 2;"));
        assert_ne!(of("fn f() { g(!a[0]) }"), of("fn f() { g(a[0]) }"));
    }

    #[test]
    fn the_page_must_carry_the_hash() {
        let sources = [Source::parse("crates/codec/src/a.rs", "const A: u8 = 1;").expect("Rust")];
        let line = format!("{LINE}{:016x}`", hash(&sources));
        assert!(check(&sources, &format!("# Wire\n\n{line}\n")).is_empty());
        assert_eq!(check(&sources, "# Wire\n").len(), 1);
    }
}
