//! The judge: QEMU's `virt` board with a CPU that has what Pollux has and nothing more.
//!
//! RAM is a file shared with QEMU, so the results need not squeeze through a UART.

use crate::record::{RAM_BYTES, RECORDS};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

const QEMU: &str = "qemu-system-riscv64";

/// From nothing (`rv64i`) up to what Pollux implements. `svadu` without `svade`: `menvcfg.ADUE` then decides about accessed
/// and dirty bits.
const CPU: &str = "rv64i,m=on,a=on,f=on,d=on,c=on,s=on,u=on,zicsr=on,zifencei=on,zicntr=on,zihintpause=on,\
                   b=on,zba=on,zbb=on,zbs=on,zicbom=on,zicboz=on,sstc=on,sv39=on,sv48=on,svade=off,svadu=on,\
                   zicond=on,zimop=on,zca=on,zcb=on,zcmop=on,zawrs=on,zacas=on,zfa=on,zfhmin=on,zbc=on,\
                   zbkb=on,svinval=on,svnapot=on,svpbmt=on,\
                   pmp=on,mmu=on,pmu-mask=0";

/// Longest that QEMU may take over one batch.
const PATIENCE: Duration = Duration::from_secs(8);

/// Whether QEMU is installed.
pub(crate) fn is_there() -> bool {
    Command::new(QEMU)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

/// Boots `image` and returns the memory it leaves, up to `used` bytes.
pub(crate) fn run(image: &[u8]) -> Vec<u8> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (firmware, ram) = (directory.path().join("image.bin"), directory.path().join("ram"));
    fs::write(&firmware, image).expect("the image is written");
    let backend = format!("memory-backend-file,id=ram,size={RAM_BYTES},mem-path={},share=on", ram.display());
    let mut qemu = Command::new(QEMU)
        .args(["-machine", "virt,memory-backend=ram", "-cpu", CPU, "-m", &format!("{}M", RAM_BYTES >> 20)])
        .args(["-object", &backend, "-bios"])
        .arg(&firmware)
        .args(["-display", "none", "-serial", "none", "-monitor", "none"])
        .stdin(Stdio::null())
        .spawn()
        .expect("QEMU starts");
    let started = Instant::now();
    loop {
        if let Some(status) = qemu.try_wait().expect("QEMU can be waited for") {
            assert!(status.success(), "QEMU failed: {status}");
            break;
        }
        if started.elapsed() > PATIENCE {
            qemu.kill().expect("QEMU can be stopped");
            qemu.wait().expect("QEMU can be waited for");
            eprintln!("QEMU did not finish within {PATIENCE:?}");
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    let mut bytes = fs::read(&ram).expect("QEMU's memory can be read");
    bytes.truncate(image.len().max(RECORDS));
    bytes
}
