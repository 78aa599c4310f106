//! What boot loaders' configurations say: kernel, initial RAM disk, command line of what starts by default.
//!
//! Read as far as generators write them (Debian's `u-boot-update`, `grub-mkconfig`): no scripts are run.

/// What is started.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Entry {
    /// Path of the kernel, as the configuration has it.
    pub(crate) kernel: String,
    /// Path of the initial RAM disk.
    pub(crate) initrd: Option<String>,
    /// The kernel's.
    pub(crate) command_line: String,
}

/// The default entry of an `extlinux.conf`, which U-Boot reads, too.
pub(crate) fn extlinux(text: &str) -> Option<Entry> {
    let mut default = None;
    let mut entries: Vec<(String, Entry)> = Vec::new();
    for line in text.lines() {
        let Some((key, value)) = line.trim().split_once(char::is_whitespace) else { continue };
        let value = value.trim().to_owned();
        match (key.to_ascii_lowercase().as_str(), entries.last_mut()) {
            ("default", _) => default = Some(value),
            ("label", _) => entries.push((value, Entry::default())),
            ("linux" | "kernel", Some((_, entry))) => entry.kernel = value,
            ("initrd", Some((_, entry))) => entry.initrd = Some(value),
            ("append", Some((_, entry))) => entry.command_line = value,
            _ => {}
        }
    }
    entries.retain(|(_, entry)| !entry.kernel.is_empty());
    let chosen = entries.iter().position(|(label, _)| Some(label) == default.as_ref()).unwrap_or(0);
    entries.into_iter().nth(chosen).map(|(_, entry)| entry)
}

/// The first entry of a `grub.cfg` made by `grub-mkconfig`, which is the one that starts by default.
pub(crate) fn grub(text: &str) -> Option<Entry> {
    let mut entry: Option<Entry> = None;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        // `($root)/boot/…`: which disk that is, is known already.
        let path = |word: &str| word.rsplit_once(')').map_or(word, |(_, path)| path).to_owned();
        match (words.next(), &mut entry) {
            (Some("linux" | "linuxefi"), None) => {
                let kernel = path(words.next()?);
                // What a variable stands for is not known here.
                let command_line = words.filter(|word| !word.contains('$')).collect::<Vec<_>>().join(" ");
                entry = Some(Entry { kernel, initrd: None, command_line });
            }
            (Some("initrd" | "initrdefi"), Some(entry)) => {
                entry.initrd = words.next().map(path);
                break;
            }
            (Some("}"), Some(_)) => break,
            _ => {}
        }
    }
    entry
}

/// The newest `vmlinuz-VERSION` (or `vmlinux-`, or `Image`) among the files in the folder `prefix`.
pub(crate) fn newest(names: &[String], prefix: &str) -> Option<Entry> {
    let version = |name: &str| {
        let version = name.strip_prefix("vmlinuz-").or_else(|| name.strip_prefix("vmlinux-"))?;
        // 6.12.9 is older than 6.12.10.
        let numbers = version.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u64>().unwrap_or(0));
        Some((numbers.collect::<Vec<_>>(), version.to_owned()))
    };
    let kernel = names.iter().filter_map(|name| Some((version(name)?, name))).max();
    if let Some(((_, version), name)) = kernel {
        let initrd = [format!("initrd.img-{version}"), format!("initramfs-{version}.img")];
        let initrd = initrd.into_iter().find(|name| names.contains(name));
        return Some(Entry {
            kernel: format!("{prefix}/{name}"),
            initrd: initrd.map(|name| format!("{prefix}/{name}")),
            command_line: String::new(),
        });
    }
    let plain = names.iter().find(|name| *name == "Image")?;
    Some(Entry { kernel: format!("{prefix}/{plain}"), ..Entry::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kernel: &str, initrd: &str, command_line: &str) -> Entry {
        Entry { kernel: kernel.into(), initrd: Some(initrd.into()), command_line: command_line.into() }
    }

    #[test]
    fn extlinux_starts_its_default_label_and_else_the_first() {
        let text = "## generated\ndefault l0r\nmenu title x\n\nlabel l0\n\tmenu label Debian\n\tlinux /boot/vmlinux-6\n\
            \tinitrd /boot/initrd.img-6\n\tfdtdir /usr/lib/\n\tappend root=UUID=1 ro quiet\n\nlabel l0r\n\
            \tlinux /boot/vmlinux-6\n\tinitrd /boot/initrd.img-6\n\tappend root=UUID=1 ro single\n";
        assert_eq!(
            extlinux(text),
            Some(entry("/boot/vmlinux-6", "/boot/initrd.img-6", "root=UUID=1 ro single"))
        );
        let first = extlinux(&text.replace("default l0r", "default gone"));
        assert_eq!(first.expect("the first").command_line, "root=UUID=1 ro quiet");
        assert_eq!(extlinux("label a\nappend x\n"), None, "nothing to start");
    }

    #[test]
    fn grub_starts_its_first_entry_and_variables_are_left_out() {
        let text = "set timeout=5\nmenuentry 'Debian' --class debian {\n\tinsmod gzio\n\techo 'Loading Linux'\n\
            \tlinux\t($root)/boot/vmlinux-6 root=PARTUUID=2 ro $extra console=ttyS0\n\techo x\n\tinitrd\t/boot/initrd.img-6\n}\n\
            menuentry 'old' {\n\tlinux /boot/vmlinux-5\n}\n";
        let wanted = entry("/boot/vmlinux-6", "/boot/initrd.img-6", "root=PARTUUID=2 ro console=ttyS0");
        assert_eq!(grub(text), Some(wanted));
        assert_eq!(grub("menuentry x {\n}\n"), None);
    }

    #[test]
    fn of_several_kernels_the_newest_by_number_is_taken_with_its_own_initial_ram_disk() {
        let names = [
            "vmlinux-6.12.9-a",
            "vmlinux-6.12.10-a",
            "initrd.img-6.12.9-a",
            "initrd.img-6.12.10-a",
            "config-6",
        ];
        let names = names.map(str::to_owned);
        assert_eq!(
            newest(&names, "/boot"),
            Some(entry("/boot/vmlinux-6.12.10-a", "/boot/initrd.img-6.12.10-a", ""))
        );
        assert_eq!(newest(&names[2..], "/boot"), None);
    }
}
