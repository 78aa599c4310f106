//! Rule: `unsafe` lives in a few named places and nowhere else (LAYOUT).

use super::source::each_token;
use super::{Problems, Source};
use proc_macro2::TokenTree;

/// Where it may be: files, and folders that end in `/`.
const ALLOWED: [&str; 4] = [
    "crates/host/src/sys/",
    "crates/jit/src/memory.rs",
    "crates/jit/src/enter.rs",
    "crates/riscv/src/ram.rs",
];

/// Every `unsafe` elsewhere, in macros too.
pub(crate) fn check(sources: &[Source]) -> Problems {
    let allowed =
        |path: &str| ALLOWED.iter().any(|&a| path == a || (a.ends_with('/') && path.starts_with(a)));
    let mut problems = Problems::new();
    for source in sources.iter().filter(|source| !allowed(&source.path)) {
        each_token(&source.tokens, &mut |token| {
            if let TokenTree::Ident(ident) = token
                && ident == "unsafe"
            {
                let line = ident.span().start().line;
                problems.push(format!("{}:{line}: `unsafe` outside its places ({ALLOWED:?})", source.path));
            }
        });
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsafe_block_is_found_even_in_a_macro() {
        let source = |path, text| Source::parse(path, text).expect("Rust");
        let bad = "fn f() {\n    m!(unsafe { g() });\n}";
        assert_eq!(check(&[source("crates/host/src/net.rs", bad)]).len(), 1);
        assert!(check(&[source("crates/host/src/sys/tap.rs", bad)]).is_empty());
        assert!(check(&[source("a.rs", "//! unsafe\n#![forbid(unsafe_code)]")]).is_empty());
    }
}
