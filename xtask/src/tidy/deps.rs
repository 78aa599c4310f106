//! Rule: every dependency has its line in `docs/dependencies.md`, and every line its dependency.

use super::Problems;
use super::graph::{Dependency, Metadata};
use anyhow::{Context, Result};
use std::collections::BTreeSet;

/// Dependencies without a line, lines without a dependency, workspace dependencies that nobody uses.
pub(crate) fn check(metadata: &Metadata, manifest: &str, page: &str) -> Result<Problems> {
    let manifest: toml::Table = toml::from_str(manifest).context("Cargo.toml")?;
    let workspace = manifest.get("workspace").and_then(|w| w.get("dependencies")).and_then(|d| d.as_table());
    let foreign = |(_, value): &(&String, &toml::Value)| value.get("path").is_none();
    let declared: BTreeSet<&str> =
        workspace.into_iter().flatten().filter(foreign).map(|(name, _)| name.as_str()).collect();
    let dependencies = metadata.packages.iter().flat_map(|package| &package.dependencies);
    let used: BTreeSet<&str> =
        dependencies.filter(|d: &&Dependency| d.source.is_some()).map(|d| d.name.as_str()).collect();
    let described: BTreeSet<&str> = page.lines().filter_map(described).collect();
    let page = "docs/dependencies.md";
    let mut problems = Problems::new();
    for name in used.union(&declared).filter(|name| !described.contains(*name)) {
        problems
            .push(format!("{page}: {name} has no line; say what it is for, why this one, licence, upkeep"));
    }
    for name in described.iter().filter(|name| !used.contains(*name)) {
        problems.push(format!("{page}: {name} is no longer a dependency; remove its line"));
    }
    for name in declared.difference(&used) {
        problems.push(format!("Cargo.toml: nobody uses the workspace dependency {name}; remove it"));
    }
    Ok(problems)
}

/// The dependency that a line of the page's table is about.
fn described(line: &str) -> Option<&str> {
    let (name, rest) = line.strip_prefix("| `")?.split_once('`')?;
    rest.trim_start().starts_with('|').then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::graph::Package;

    #[test]
    fn a_dependency_without_its_line_is_found_and_so_is_a_line_without_its_dependency() {
        let dependency =
            |name: &str| Dependency { name: name.into(), source: Some("registry".into()), kind: None };
        let dependencies = vec![dependency("crc"), dependency("stray")];
        let metadata = Metadata { packages: vec![Package { name: "pollux-codec".into(), dependencies }] };
        let manifest = "[workspace.dependencies]\ncrc = '3'\nidle = '1'\npollux-vocab = { path = 'v' }";
        let found =
            check(&metadata, manifest, "| `crc` | checksums |\n| `gone` | nothing |\n").expect("TOML");
        let about = |name: &str| found.iter().filter(|problem| problem.contains(name)).count();
        // No line; no line and not used; a line and not used.
        assert_eq!((about("stray"), about("idle"), about("gone"), about("crc")), (1, 2, 1, 0), "{found:?}");
    }
}
