//! A TAP device: a real bridge's way into the guest. The one thing that needs `CAP_NET_ADMIN`.
//!
//! Source: Linux `Documentation/networking/tuntap.rst` (`TUNSETIFF`, `IFF_TAP`, `IFF_NO_PI`).

use rustix::ioctl::{Setter, ioctl};
use std::fs::{File, OpenOptions};
use std::io;

const TUNSETIFF: u32 = 0x4004_54ca;
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
const NAME_BYTES: usize = 16;

/// `struct ifreq` as far as `TUNSETIFF` reads it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; NAME_BYTES],
    flags: u16,
    rest: [u8; 22],
}

/// Opens the TAP device `name`, made if it is not there and the caller may. Reads and writes are whole frames.
pub fn open(name: &str) -> io::Result<File> {
    if name.is_empty() || name.len() >= NAME_BYTES || name.bytes().any(|b| b == 0 || b == b'/') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "an interface name has 1 to 15 bytes"));
    }
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    let mut request = InterfaceRequest { name: [0; NAME_BYTES], flags: IFF_TAP | IFF_NO_PI, rest: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads a `struct ifreq` of 40 bytes, which `InterfaceRequest` lays out (repr(C), 16 + 2 +
    // 22 bytes, no padding), and keeps no pointer to it.
    let set = unsafe { Setter::<TUNSETIFF, InterfaceRequest>::new(request) };
    // SAFETY: the opcode belongs to the argument's type, as above, and the descriptor is open.
    unsafe { ioctl(&file, set) }?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_has_the_size_that_the_kernel_reads() {
        assert_eq!(size_of::<InterfaceRequest>(), 40);
    }

    #[test]
    fn an_impossible_name_is_refused_before_the_kernel_sees_it() {
        for name in ["", "a-name-that-is-too-long", "a/b"] {
            assert_eq!(open(name).expect_err("impossible").kind(), io::ErrorKind::InvalidInput);
        }
    }
}
