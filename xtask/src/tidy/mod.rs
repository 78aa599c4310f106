//! `cargo xtask tidy`: the rules of the house that no compiler checks (docs/style.md, docs/layout.md).
//!
//! Each rule is a function from the tree to problems, in a file of its own; a problem says where and what to
//! do. All rules run, so that one look shows everything.

mod cites;
mod deps;
mod graph;
mod heads;
mod limits;
mod lines;
mod purity;
mod ratchet;
mod size;
mod source;
mod tests_named;
mod tree;
mod unsafety;
mod wire;
mod words;

pub(crate) use purity::PURE;

use anyhow::{Result, bail};
use source::Source;
use std::path::Path;
use tree::Tree;

/// What a rule found: one line each, `path:line: what to do`.
type Problems = Vec<String>;

/// Runs every rule; an error if any of them found something.
pub(crate) fn run(root: &Path) -> Result<()> {
    let tree = Tree::read(root)?;
    let metadata = graph::metadata(root)?;
    let mut problems = Problems::new();
    let sources = Source::parse_all(&tree, &mut problems);
    problems.extend(heads::check(&sources));
    problems.extend(size::check(&sources, tree.text("xtask/ratchet.toml").unwrap_or_default())?);
    problems.extend(unsafety::check(&sources));
    problems.extend(purity::check(&sources));
    problems.extend(graph::check(&metadata, tree.text("docs/layout.md").unwrap_or_default())?);
    problems.extend(words::check(&tree));
    let page = |name| tree.text(name).unwrap_or_default();
    problems.extend(cites::check(&sources, page("docs/design.md"), page("docs/style.md")));
    let pages = || tree.texts().filter(|(path, _)| path.ends_with(".md"));
    // What the limits' page names are constants.
    let others = || pages().filter(|(path, _)| *path != "docs/limits.md");
    problems.extend(tests_named::check(&sources, others()));
    problems.extend(lines::check(pages()));
    problems.extend(limits::check(&sources, page("docs/limits.md")));
    problems.extend(wire::check(&sources, tree.text("docs/wire.md").unwrap_or_default()));
    let (manifest, table) = (tree.text("Cargo.toml"), tree.text("docs/dependencies.md"));
    problems.extend(deps::check(&metadata, manifest.unwrap_or_default(), table.unwrap_or_default())?);
    if problems.is_empty() {
        println!("tidy: {} files, {} of them Rust: all good", tree.len(), sources.len());
        return Ok(());
    }
    for problem in &problems {
        eprintln!("tidy: {problem}");
    }
    bail!("tidy: {} problems", problems.len())
}
