//! A cable that can be cut: between a port and a switch, by a process that goes on taking what is sent.
#![allow(unreachable_pub, dead_code, reason = "two crates' tests have it as a module")]

use pollux_switch::SwitchAddr;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A cable between a port and a TCP switch that can be cut without either end being told.
pub struct Cable {
    pub addr: SwitchAddr,
    cut: Arc<AtomicBool>,
}

impl Cable {
    pub fn to(switch: &SwitchAddr) -> Self {
        let SwitchAddr::Tcp(switch) = switch.clone() else { panic!("a cable leads to a TCP switch") };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = SwitchAddr::Tcp(listener.local_addr().unwrap().to_string());
        let cut = Arc::new(AtomicBool::new(false));
        let is_cut = Arc::clone(&cut);
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let far = TcpStream::connect(&switch).unwrap();
                for (from, to) in [(near.try_clone(), far.try_clone()), (Ok(far), Ok(near))] {
                    let (from, to, is_cut) = (from.unwrap(), to.unwrap(), Arc::clone(&is_cut));
                    std::thread::spawn(move || carry(from, to, &is_cut));
                }
            }
        });
        Self { addr, cut }
    }

    pub fn set_cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::SeqCst);
    }
}

/// Carries bytes one way. What comes while the cable is cut is lost, and with it the connection's meaning: it carries
/// nothing more, and is not closed.
fn carry(mut from: TcpStream, mut to: TcpStream, is_cut: &AtomicBool) {
    let mut buffer = [0; 4096];
    let mut lost = false;
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        lost |= is_cut.load(Ordering::SeqCst);
        if !lost && to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    if !lost {
        let _ = to.shutdown(Shutdown::Write);
    }
}
