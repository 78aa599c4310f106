//! Compares two digests and names what differs first (DESIGN 2: "a divergence is detected, named and stops the replica").

use pollux_machine::Difference;
use pollux_vocab::Digest;

/// What differs first between `ours` and `theirs`; `None` if they agree.
#[must_use]
pub fn compare(ours: &Digest, theirs: &Digest) -> Option<Difference> {
    if ours.harts.len() != theirs.harts.len() || ours.devices.len() != theirs.devices.len() {
        return Some(Difference::Parts {
            harts: [ours.harts.len(), theirs.harts.len()],
            devices: [ours.devices.len(), theirs.devices.len()],
        });
    }
    if ours.ram != theirs.ram {
        return Some(memory_difference(ours, theirs));
    }
    if let Some(hart) = (0..ours.harts.len()).find(|&i| ours.harts[i] != theirs.harts[i]) {
        return Some(Difference::Hart(hart));
    }
    (0..ours.devices.len()).find(|&i| ours.devices[i] != theirs.devices[i]).map(Difference::Device)
}

fn memory_difference(ours: &Digest, theirs: &Digest) -> Difference {
    let mut pages = alloc::collections::BTreeMap::new();
    for page in &ours.changed {
        pages.insert(page.page, (Some(page.hash), None));
    }
    for page in &theirs.changed {
        pages.entry(page.page).or_insert((None, None)).1 = Some(page.hash);
    }
    match pages.into_iter().find(|(_, (here, there))| here != there) {
        Some((page, (ours, theirs))) => Difference::Page { page, ours, theirs },
        None => Difference::Memory { ours: ours.ram, theirs: theirs.ram },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;
    use pollux_vocab::PageHash;

    #[test]
    fn the_first_differing_page_is_named() {
        let page = |page, hash| PageHash { page, hash };
        let ours = Digest { ram: 1, changed: vec![page(0x80001, 7), page(0x80005, 8)], ..Digest::default() };
        let theirs =
            Digest { ram: 2, changed: vec![page(0x80001, 7), page(0x80005, 9)], ..Digest::default() };
        let what = compare(&ours, &theirs).expect("they differ");
        assert_eq!(what, Difference::Page { page: 0x80005, ours: Some(8), theirs: Some(9) });
        let what = what.to_string();
        assert!(what.contains("page 0x80005"), "{what}");
        assert!(what.contains("0x80005000"), "{what}");
    }

    #[test]
    fn a_page_that_changed_on_one_side_only_is_named() {
        let ours = Digest { ram: 1, changed: vec![PageHash { page: 9, hash: 1 }], ..Digest::default() };
        let theirs = Digest { ram: 2, ..Digest::default() };
        let what = compare(&ours, &theirs).expect("they differ");
        assert_eq!(what, Difference::Page { page: 9, ours: Some(1), theirs: None });
        assert!(what.to_string().contains("unchanged there"));
    }

    #[test]
    fn equal_digests_agree_and_a_differing_hart_is_named() {
        let ours = Digest { harts: vec![1, 2], ..Digest::default() };
        assert_eq!(compare(&ours, &ours), None);
        let theirs = Digest { harts: vec![1, 3], ..Digest::default() };
        let what = compare(&ours, &theirs).expect("they differ");
        assert_eq!(what, Difference::Hart(1));
        assert!(what.to_string().contains("hart 1"));
    }

    #[test]
    fn a_differing_device_and_a_machine_of_other_parts_are_named() {
        let ours = Digest { harts: vec![1], devices: vec![5, 6], ..Digest::default() };
        let theirs = Digest { devices: vec![5, 7], ..ours.clone() };
        assert_eq!(compare(&ours, &theirs), Some(Difference::Device(1)));
        let theirs = Digest { devices: vec![5], ..ours.clone() };
        assert_eq!(compare(&ours, &theirs), Some(Difference::Parts { harts: [1, 1], devices: [2, 1] }));
        let theirs = Digest { ram: 1, ..ours.clone() };
        assert_eq!(compare(&ours, &theirs), Some(Difference::Memory { ours: 0, theirs: 1 }));
    }
}
