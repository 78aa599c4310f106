//! Rule: no function over 70 lines, no file over 600 (STYLE 10), but for the exemptions of the ratchet.
//!
//! A function counts from its `fn` to its closing brace; its documentation is free.

use super::ratchet::{Exemptions, Ratchet};
use super::{Problems, Source};
use anyhow::Result;
use syn::visit::{self, Visit};

/// Most lines of a function.
const FUNCTION_LINES_MAX: usize = 70;
/// Most lines of a file.
const FILE_LINES_MAX: usize = 600;

/// What is too long and not exempt, and exemptions that are no longer needed.
pub(crate) fn check(sources: &[Source], ratchet: &str) -> Result<Problems> {
    let ratchet = Ratchet::parse(ratchet)?;
    let mut files = Exemptions::new(&ratchet.file, FILE_LINES_MAX);
    let mut functions = Exemptions::new(&ratchet.function, FUNCTION_LINES_MAX);
    let mut problems = Problems::new();
    for Source { path, text, file, .. } in sources {
        let judged = files.judge(path, "", text.lines().count());
        problems.extend(judged.map(|what| format!("{path}:1: the file {what}")));
        let mut found = Functions::default();
        found.visit_file(file);
        for Function { name, line, lines } in found.0 {
            let judged = functions.judge(path, &name, lines);
            problems.extend(judged.map(|what| format!("{path}:{line}: function `{name}` {what}")));
        }
    }
    problems.extend(files.stale());
    problems.extend(functions.stale());
    Ok(problems)
}

struct Function {
    name: String,
    line: usize,
    lines: usize,
}

#[derive(Default)]
struct Functions(Vec<Function>);

impl Functions {
    fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let start = signature.fn_token.span.start().line;
        let end = block.brace_token.span.close().end().line;
        self.0.push(Function { name: signature.ident.to_string(), line: start, lines: end + 1 - start });
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }
    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }
    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.add(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(lines: usize) -> Source {
        let body = "    g();\n".repeat(lines - 2);
        Source::parse("a.rs", &format!("//! Head of the file.\nfn f() {{\n{body}}}\n")).expect("Rust")
    }

    #[test]
    fn a_function_over_the_limit_is_found_and_can_be_exempt_for_a_reason() {
        assert!(check(&[long(70)], "").expect("no ratchet").is_empty());
        let found = check(&[long(71)], "").expect("no ratchet");
        assert_eq!(found, ["a.rs:2: function `f` has 71 lines, more than 70; split it"]);
        let entry = |lines| {
            format!("[[function]]\npath = 'a.rs'\nname = 'f'\nlines = {lines}\nreason = 'a table of cases'")
        };
        assert!(check(&[long(80)], &entry(80)).expect("ratchet").is_empty());
        assert!(check(&[long(80)], &entry(79)).expect("ratchet")[0].contains("grew"));
        assert!(check(&[long(80)], &entry(101)).expect("ratchet")[0].contains("shrank"));
        assert!(check(&[long(70)], &entry(95)).expect("ratchet")[0].contains("remove"));
        assert!(check(&[long(80)], &entry(80).replace("a table of cases", "")).expect("ratchet").len() == 1);
    }

    #[test]
    fn a_file_over_the_limit_is_found() {
        let source = Source::parse("a.rs", &"//! Line of a long head.\n".repeat(601)).expect("Rust");
        assert!(check(&[source], "").expect("no ratchet")[0].contains("601 lines"));
    }
}
