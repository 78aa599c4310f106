//! Rule: the arrows between crates go one way (LAYOUT, "Edges").
//!
//! Dependencies of tests alone are free: a test may name what it judges by.

use super::Problems;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::path::Path;

/// `a -> b`: a may name b. `tests` and `xtask` are no part of the product.
const EDGES: [(&str, &[&str]); 18] = [
    (
        "cli",
        &[
            "host", "switch", "image", "node", "machine", "codec", "protocol", "arbiter", "vocab", "jit",
            "sim", "observer",
        ],
    ),
    ("host", &["node", "machine", "codec", "protocol", "arbiter", "vocab", "switch"]),
    ("sim", &["node", "machine", "codec", "protocol", "arbiter", "vocab", "jit"]),
    ("node", &["machine", "protocol", "arbiter", "codec", "vocab"]),
    ("observer", &["machine", "codec", "vocab"]),
    ("jit", &["codegen", "machine", "vocab"]),
    ("codegen", &["machine", "isa", "vocab"]),
    ("machine", &["isa", "codec", "vocab"]),
    ("protocol", &["vocab"]),
    ("arbiter", &["vocab"]),
    ("codec", &["vocab"]),
    ("vocab", &[]),
    ("isa", &[]),
    ("switch", &[]),
    ("image", &[]),
    ("tests", ANY),
    ("bench", ANY),
    ("xtask", &[]),
];
const ANY: &[&str] = &["*"];

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

/// Arrows that are not allowed.
pub(crate) fn check(metadata: &Metadata) -> Result<Problems> {
    let mut problems = Problems::new();
    for package in &metadata.packages {
        let from = short(&package.name);
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == from) else {
            problems
                .push(format!("crates: {from} is not in LAYOUT's graph; add it to xtask/src/tidy/graph.rs"));
            continue;
        };
        let ours = |d: &&Dependency| d.source.is_none() && d.kind.as_deref() != Some("dev");
        for to in package.dependencies.iter().filter(ours).map(|d| short(&d.name)) {
            if *allowed != ANY && !allowed.contains(&to) {
                problems.push(format!("crates: {from} must not depend on {to} (allowed: {allowed:?})"));
            }
        }
    }
    Ok(problems)
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

    #[test]
    fn an_arrow_against_the_graph_is_found() {
        let check = |from, to, kind| check(&metadata(from, to, kind)).expect("known crates").len();
        assert_eq!(check("pollux-node", "pollux-machine", None), 0);
        assert_eq!(check("pollux-machine", "pollux-node", None), 1);
        assert_eq!(check("pollux-machine", "pollux-node", Some("dev")), 0);
        assert_eq!(check("pollux-tests", "pollux-host", None), 0);
        assert_eq!(check("pollux-novelty", "pollux-vocab", None), 1);
    }

    #[test]
    fn the_graph_has_no_cycle() {
        fn reaches(from: &str, to: &str) -> bool {
            let next = EDGES.iter().find(|(name, _)| *name == from).map_or(&[][..], |(_, next)| next);
            next.iter().any(|&name| name == to || reaches(name, to))
        }
        for (name, _) in EDGES {
            assert!(!reaches(name, name), "{name}");
        }
    }
}
