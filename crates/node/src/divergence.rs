//! Compares two digests and names what differs first (DESIGN 2: "a divergence is detected, named and stops the replica").

use alloc::format;
use alloc::string::String;
use pollux_vocab::{Digest, PAGE_BYTES};

/// What differs between `ours` and `theirs`, in words; `None` if they agree.
#[must_use]
pub fn compare(ours: &Digest, theirs: &Digest) -> Option<String> {
    if ours.harts.len() != theirs.harts.len() || ours.devices.len() != theirs.devices.len() {
        return Some(format!(
            "the machines differ in kind: {} harts and {} devices here, {} and {} there",
            ours.harts.len(),
            ours.devices.len(),
            theirs.harts.len(),
            theirs.devices.len()
        ));
    }
    if ours.ram != theirs.ram {
        return Some(page_difference(ours, theirs));
    }
    if let Some(hart) = (0..ours.harts.len()).find(|&i| ours.harts[i] != theirs.harts[i]) {
        return Some(format!("the registers of hart {hart} differ"));
    }
    (0..ours.devices.len())
        .find(|&i| ours.devices[i] != theirs.devices[i])
        .map(|device| format!("the state of device section {device} differs"))
}

fn page_difference(ours: &Digest, theirs: &Digest) -> String {
    let mut pages = alloc::collections::BTreeMap::new();
    for page in &ours.changed {
        pages.insert(page.page, (Some(page.hash), None));
    }
    for page in &theirs.changed {
        pages.entry(page.page).or_insert((None, None)).1 = Some(page.hash);
    }
    match pages.into_iter().find(|(_, (here, there))| here != there) {
        Some((page, (here, there))) => {
            let show = |hash: Option<u64>| hash.map_or("unchanged".into(), |h| format!("{h:#018x}"));
            format!(
                "page {page:#x} (guest address {:#x}) differs: {} here, {} there",
                page.saturating_mul(PAGE_BYTES),
                show(here),
                show(there)
            )
        }
        None => format!(
            "RAM differs ({:#018x} here, {:#018x} there) in pages changed earlier",
            ours.ram, theirs.ram
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use pollux_vocab::PageHash;

    #[test]
    fn the_first_differing_page_is_named() {
        let page = |page, hash| PageHash { page, hash };
        let ours = Digest { ram: 1, changed: vec![page(0x80001, 7), page(0x80005, 8)], ..Digest::default() };
        let theirs =
            Digest { ram: 2, changed: vec![page(0x80001, 7), page(0x80005, 9)], ..Digest::default() };
        let what = compare(&ours, &theirs).expect("they differ");
        assert!(what.contains("page 0x80005"), "{what}");
        assert!(what.contains("0x80005000"), "{what}");
    }

    #[test]
    fn a_page_that_changed_on_one_side_only_is_named() {
        let ours = Digest { ram: 1, changed: vec![PageHash { page: 9, hash: 1 }], ..Digest::default() };
        let theirs = Digest { ram: 2, ..Digest::default() };
        assert!(compare(&ours, &theirs).expect("they differ").contains("unchanged there"));
    }

    #[test]
    fn equal_digests_agree_and_a_differing_hart_is_named() {
        let ours = Digest { harts: vec![1, 2], ..Digest::default() };
        assert_eq!(compare(&ours, &ours), None);
        let theirs = Digest { harts: vec![1, 3], ..Digest::default() };
        assert!(compare(&ours, &theirs).expect("they differ").contains("hart 1"));
    }
}
