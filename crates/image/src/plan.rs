//! In which order the second stage installs: debootstrap's for the base system, apt's own for the rest.
//!
//! dpkg's scripts cannot run before what dpkg itself consists of is there. debootstrap's answer is a fixed order for a
//! handful of packages, then everything that Debian calls required at once, with dependencies ignored until all of it
//! is unpacked (`second_stage_install` in debootstrap's `scripts/debian-common`). What comes after that, apt can order: a simulated
//! installation names its steps.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Installed one by one before anything else, in this order.
const CORE: [&str; 7] = ["base-passwd", "base-files", "dpkg", "libc6", "perl-base", "mawk", "debconf"];

/// The plan's text, a step a line: what to do, then files (`core`, `unpack`) or packages (`configure`).
pub(crate) fn plan(required: &BTreeSet<String>, debs: &[(String, PathBuf)], simulation: &str) -> String {
    let file = |name: &str| {
        let path = debs.iter().find(|(n, _)| n == name).map(|(_, path)| path.as_path());
        path.and_then(Path::file_name).map(|f| f.to_string_lossy().into_owned())
    };
    let mut text = String::new();
    if !required.is_empty() {
        for name in CORE.iter().filter_map(|name| file(name)) {
            text += &format!("core {name}\n");
        }
        let rest = debs.iter().map(|(name, _)| name.as_str());
        let rest = rest.filter(|name| required.contains(*name) && !CORE.contains(name));
        text += &format!("unpack {}\npending\n", rest.filter_map(file).collect::<Vec<_>>().join(" "));
    }
    let mut open: Option<&str> = None;
    for line in simulation.lines() {
        let mut words = line.split_whitespace();
        let (Some(verb), Some(name)) = (words.next(), words.next()) else { continue };
        let name = name.split(':').next().unwrap_or(name);
        if required.contains(name) || CORE.contains(&name) && !required.is_empty() {
            continue;
        }
        let (verb, word) = match (verb, file(name)) {
            ("Inst", Some(file)) => ("unpack", file),
            ("Conf", _) => ("configure", name.to_owned()),
            _ => continue,
        };
        let begin = if open == Some(verb) {
            " "
        } else if open.is_some() {
            "\n"
        } else {
            ""
        };
        text += begin;
        if open != Some(verb) {
            text += verb;
            text.push(' ');
        }
        text += &word;
        open = Some(verb);
    }
    if open.is_some() {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debs(names: &[&str]) -> Vec<(String, PathBuf)> {
        names.iter().map(|n| ((*n).to_owned(), PathBuf::from(format!("/a/{n}_1_all.deb")))).collect()
    }

    const SIMULATION: &str = "Reading lists\nInst dpkg (1 x [riscv64])\nConf dpkg (1 x)\nInst a [0] (1 x [riscv64])\n\
        Inst b:riscv64 (1 x)\nConf a (1 x)\nConf b (1 x)\nInst c (1 x)\nConf c (1 x)\n";

    #[test]
    fn what_dpkg_is_made_of_comes_first_and_each_package_once() {
        let required = ["libc6", "tar", "dpkg", "base-passwd"].map(str::to_owned).into();
        let all = debs(&["libc6", "tar", "dpkg", "base-passwd", "a", "b", "c"]);
        assert_eq!(
            plan(&required, &all, SIMULATION),
            "core base-passwd_1_all.deb\ncore dpkg_1_all.deb\ncore libc6_1_all.deb\nunpack tar_1_all.deb\npending\n\
             unpack a_1_all.deb b_1_all.deb\nconfigure a b\nunpack c_1_all.deb\nconfigure c\n"
        );
    }

    #[test]
    fn on_an_installed_base_apts_order_is_kept() {
        let all = debs(&["dpkg", "a", "b", "c"]);
        let text = plan(&BTreeSet::new(), &all, SIMULATION);
        assert_eq!(
            text,
            "unpack dpkg_1_all.deb\nconfigure dpkg\nunpack a_1_all.deb b_1_all.deb\nconfigure a b\n\
             unpack c_1_all.deb\nconfigure c\n"
        );
        assert_eq!(plan(&BTreeSet::new(), &[], "Reading lists\n"), "", "nothing to do");
    }
}
