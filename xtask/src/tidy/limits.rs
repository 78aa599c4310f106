//! Rule: what `docs/limits.md` says of a bound is what the code says.
//!
//! A row is `| what | value | place |`. The value is a number, or numbers with units ("64 MiB", "300 ms"); the place is
//! `path`: `NAME`, where NAME is a constant, or a field that is given its default there.

use super::{Problems, Source};
use std::collections::BTreeMap;
use syn::visit::{self, Visit};

/// Rows whose value is not the code's, or whose place is not there.
pub(crate) fn check(sources: &[Source], page: &str) -> Problems {
    let mut problems = Problems::new();
    for (number, line) in page.lines().enumerate() {
        let at = format!("docs/limits.md:{}", number + 1);
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", _, value, place, ""] = cells[..] else { continue };
        let quoted: Vec<&str> = place.split('`').skip(1).step_by(2).collect();
        let [path, name] = quoted[..] else { continue };
        let Some(source) = sources.iter().find(|s| s.path == path) else {
            problems.push(format!("{at}: there is no file {path}"));
            continue;
        };
        match (amount(value), Values::of(&source.file).0.get(name)) {
            (None, _) => problems.push(format!("{at}: `{value}` is no amount; write it as `64 MiB`")),
            (_, None) => problems.push(format!("{at}: {path} has no number {name}")),
            (Some(said), Some(is)) if said != *is => {
                problems.push(format!("{at}: says {value}, and {name} is {is} ({path})"));
            }
            _ => {}
        }
    }
    problems
}

/// A written amount as the code counts it: bytes, nanoseconds or pieces.
fn amount(text: &str) -> Option<u128> {
    let (number, unit) = text.split_once(' ').unwrap_or((text, ""));
    let number: u128 = number.replace(',', "").parse().ok()?;
    let scale = match unit.split(' ').next()? {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "µs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "min" => 60_000_000_000,
        _ => 1,
    };
    Some(number * scale)
}

/// The numbers that a file names.
#[derive(Default)]
struct Values(BTreeMap<String, u128>);

impl Values {
    fn of(file: &syn::File) -> Self {
        let mut values = Self::default();
        values.visit_file(file);
        values
    }

    fn keep(&mut self, name: &syn::Ident, value: &syn::Expr) {
        if let Some(mut value) = self.eval(value) {
            let name = name.to_string();
            // Milliseconds and seconds that the type does not say, the name does.
            if name.to_lowercase().ends_with("_ms") {
                value *= 1_000_000;
            }
            self.0.insert(name, value);
        }
    }

    fn eval(&self, value: &syn::Expr) -> Option<u128> {
        match value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Int(int), .. }) => int.base10_parse().ok(),
            syn::Expr::Paren(inner) => self.eval(&inner.expr),
            syn::Expr::Cast(inner) => self.eval(&inner.expr),
            syn::Expr::Path(path) => self.0.get(&path.path.segments.last()?.ident.to_string()).copied(),
            syn::Expr::Binary(binary) => {
                let (left, right) = (self.eval(&binary.left)?, self.eval(&binary.right)?);
                match binary.op {
                    syn::BinOp::Mul(_) => left.checked_mul(right),
                    syn::BinOp::Add(_) => left.checked_add(right),
                    syn::BinOp::Sub(_) => left.checked_sub(right),
                    syn::BinOp::Shl(_) => left.checked_shl(right.try_into().ok()?),
                    _ => None,
                }
            }
            syn::Expr::Call(call) => {
                let syn::Expr::Path(path) = &*call.func else { return None };
                let number = self.eval(call.args.first()?)?;
                match path.path.segments.last()?.ident.to_string().as_str() {
                    "from_secs" => Some(number * 1_000_000_000),
                    "from_millis" => Some(number * 1_000_000),
                    "from_micros" => Some(number * 1_000),
                    "from_nanos" | "Some" => Some(number),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

impl<'a> Visit<'a> for Values {
    fn visit_item_const(&mut self, item: &'a syn::ItemConst) {
        self.keep(&item.ident, &item.expr);
    }

    fn visit_impl_item_const(&mut self, item: &'a syn::ImplItemConst) {
        self.keep(&item.ident, &item.expr);
    }

    fn visit_field_value(&mut self, field: &'a syn::FieldValue) {
        if let syn::Member::Named(name) = &field.member {
            self.keep(name, &field.expr);
        }
        visit::visit_field_value(self, field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_that_the_page_says_wrongly_is_found() {
        let code = "//! Head.\nconst A_MAX: u64 = 2 << 20;\nconst B: Duration = Duration::from_millis(300);\n\
            const C_MAX: usize = 2 * D_MAX as usize;\nconst D_MAX: usize = 1_000;\n\
            impl Default for S { fn default() -> Self { Self { wait_ns: 5_000_000_000 } } }";
        let source = Source::parse("a.rs", code).expect("Rust");
        let row = |value: &str, name: &str| format!("| it | {value} | `a.rs`: `{name}` |\n");
        let right = [row("2 MiB", "A_MAX"), row("300 ms", "B"), row("1,000", "D_MAX"), row("5 s", "wait_ns")];
        assert!(check(std::slice::from_ref(&source), &right.concat()).is_empty());
        let wrong = [row("3 MiB", "A_MAX"), row("300", "B"), row("1", "E_MAX"), row("much", "D_MAX")];
        assert_eq!(check(std::slice::from_ref(&source), &wrong.concat()).len(), 4);
        assert_eq!(check(&[], &row("2 MiB", "A_MAX")), ["docs/limits.md:1: there is no file a.rs"]);
    }
}
