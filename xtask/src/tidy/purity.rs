//! Rule: the pure crates are `no_std` and forbid unsafe code, so that the compiler proves their purity (LAYOUT).

use super::{Problems, Source};

/// The crates whose folders these are.
pub(crate) const PURE: [&str; 9] =
    ["vocab", "codec", "isa", "machine", "riscv", "codegen", "protocol", "arbiter", "node"];
/// The one whose `ram.rs` may have `unsafe`, and which may therefore deny instead of forbid.
const MAY_DENY: &str = "riscv";

/// Pure crates whose root lacks an attribute.
pub(crate) fn check(sources: &[Source]) -> Problems {
    let mut problems = Problems::new();
    for name in PURE {
        let path = format!("crates/{name}/src/lib.rs");
        let Some(source) = sources.iter().find(|source| source.path == path) else { continue };
        if !source.file.attrs.iter().any(|attr| attr.path().is_ident("no_std")) {
            problems.push(format!("{path}:1: lacks `#![no_std]`; this crate is pure"));
        }
        let denies = name == MAY_DENY && has_lint(&source.file, "deny");
        if !(denies || has_lint(&source.file, "forbid")) {
            problems.push(format!("{path}:1: lacks `#![forbid(unsafe_code)]`; this crate is pure"));
        }
    }
    problems
}

fn has_lint(file: &syn::File, level: &str) -> bool {
    let lints = file.attrs.iter().filter(|attr| attr.path().is_ident(level));
    let mut lists = lints.filter_map(|attr| attr.meta.require_list().ok());
    lists.any(|list| list.tokens.to_string().contains("unsafe_code"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pure_crate_without_its_attributes_is_found() {
        let check = |name: &str, text| {
            super::check(&[Source::parse(&format!("crates/{name}/src/lib.rs"), text).expect("Rust")]).len()
        };
        assert_eq!(check("vocab", "#![no_std]\n#![forbid(unsafe_code)]"), 0);
        assert_eq!(check("vocab", "#![cfg_attr(not(test), no_std)]\n#![deny(unsafe_code)]"), 2);
        assert_eq!(check("riscv", "#![no_std]\n#![deny(unsafe_code)]"), 0);
        assert_eq!(check("host", ""), 0);
    }
}
