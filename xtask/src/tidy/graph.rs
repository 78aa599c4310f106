//! Rule: the arrows between crates are those that `docs/layout.md` draws ("Edges"), no more and no fewer.
//!
//! Dependencies of tests alone are free: a test may name what it judges by.

use super::Problems;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The page that draws the graph.
const PAGE: &str = "docs/layout.md";
/// Crates that are no part of the product: they may name what they like.
const FREE: [&str; 2] = ["tests", "xtask"];

/// `a -> b`: a names b.
type Edges = BTreeMap<String, BTreeSet<String>>;

/// What `cargo metadata` says, as far as it matters here.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    /// The workspace's crates.
    pub(crate) packages: Vec<Package>,
}

/// One crate of the workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) dependencies: Vec<Dependency>,
}

/// What it depends on.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// Where it comes from; `None` for a crate of the workspace.
    pub(crate) source: Option<String>,
    /// `None` for a plain dependency, else `dev` or `build`.
    pub(crate) kind: Option<String>,
}

/// Asks cargo.
pub(crate) fn metadata(root: &Path) -> Result<Metadata> {
    let mut command = crate::ci::cargo_command(root);
    let output = command.args(["metadata", "--format-version", "1", "--no-deps"]).output()?;
    ensure!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("cargo metadata says something else than expected")
}

/// Arrows that are not drawn, and drawn ones that are not there.
pub(crate) fn check(metadata: &Metadata, page: &str) -> Result<Problems> {
    let drawn = edges(page)?;
    let mut problems = Problems::new();
    if let Some(name) = on_a_cycle(&drawn) {
        problems.push(format!("{PAGE}: the graph has a cycle through {name}; arrows go one way"));
    }
    let mut missing = drawn.clone();
    for package in metadata.packages.iter().filter(|p| !FREE.contains(&short(&p.name))) {
        let from = short(&package.name);
        let Some(allowed) = drawn.get(from) else {
            problems.push(format!("{PAGE}: the crate {from} is not in the graph; draw it"));
            continue;
        };
        let ours = |d: &&Dependency| d.source.is_none() && d.kind.as_deref() != Some("dev");
        let there: BTreeSet<_> =
            package.dependencies.iter().filter(ours).map(|d| short(&d.name).to_owned()).collect();
        for to in there.difference(allowed) {
            problems.push(format!("crates: {from} must not depend on {to}: {PAGE} draws no such arrow"));
        }
        for to in allowed.difference(&there) {
            problems
                .push(format!("{PAGE}: {from} -> {to} is drawn, and the manifest has no such dependency"));
        }
        missing.remove(from);
    }
    problems.extend(missing.keys().map(|name| format!("{PAGE}: there is no crate {name}")));
    Ok(problems)
}

/// Reads the block of the page that is fenced as `edges`.
fn edges(page: &str) -> Result<Edges> {
    let block = page.split_once("```edges\n").and_then(|(_, rest)| rest.split_once("```"));
    let (block, _) = block.with_context(|| format!("{PAGE} has no block fenced as `edges`"))?;
    let line = |line: &str| {
        let (from, to) = line.split_once("->").with_context(|| format!("{PAGE}: no arrow in {line:?}"))?;
        Ok((from.trim().to_owned(), to.split_whitespace().map(str::to_owned).collect()))
    };
    block.lines().map(line).collect()
}

/// A crate from which the arrows lead back to it.
fn on_a_cycle(edges: &Edges) -> Option<&str> {
    edges.keys().map(String::as_str).find(|name| {
        let (mut ahead, mut seen) = (vec![*name], BTreeSet::new());
        while let Some(at) = ahead.pop() {
            for next in edges.get(at).into_iter().flatten() {
                if next == name {
                    return true;
                }
                if seen.insert(next.as_str()) {
                    ahead.push(next);
                }
            }
        }
        false
    })
}

/// A crate's name without the project's.
fn short(name: &str) -> &str {
    name.strip_prefix("pollux-").unwrap_or(if name == "pollux" { "cli" } else { name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(from: &str, to: &str, kind: Option<&str>) -> Metadata {
        let dependency = Dependency { name: to.into(), source: None, kind: kind.map(Into::into) };
        Metadata { packages: vec![Package { name: from.into(), dependencies: vec![dependency] }] }
    }

    const PAGE: &str = "text\n```edges\nnode -> machine\nmachine ->\n```\nmore";

    fn problems(from: &str, to: &str, kind: Option<&str>) -> String {
        check(&metadata(from, to, kind), PAGE).expect("a graph").join("\n")
    }

    #[test]
    fn an_arrow_that_is_not_drawn_is_found() {
        assert!(!problems("pollux-node", "pollux-machine", None).contains("must not"));
        assert!(problems("pollux-machine", "pollux-node", None).contains("must not depend on node"));
        assert!(!problems("pollux-machine", "pollux-node", Some("dev")).contains("must not"));
        assert!(!problems("pollux-tests", "pollux-host", None).contains("host"));
        assert!(problems("pollux-novelty", "pollux-machine", None).contains("novelty is not in the graph"));
    }

    #[test]
    fn an_arrow_or_a_crate_that_is_drawn_and_not_there_is_found() {
        assert!(problems("pollux-node", "pollux-machine", Some("dev")).contains("node -> machine is drawn"));
        assert!(problems("pollux-node", "pollux-machine", None).contains("there is no crate machine"));
    }

    #[test]
    fn a_cycle_is_found() {
        let page = "```edges\na -> b\nb -> c\nc -> b\n```";
        assert_eq!(on_a_cycle(&edges(page).expect("a graph")), Some("b"));
        assert_eq!(on_a_cycle(&edges(PAGE).expect("a graph")), None);
    }

    #[test]
    fn a_page_without_a_graph_is_an_error() {
        assert!(edges("no graph").is_err());
        assert!(edges("```edges\nnonsense\n```").is_err());
    }
}
