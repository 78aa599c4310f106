//! One type for the two kinds of stream a port may come over, Unix and TCP.
//!
//! Invariant: a TCP stream has Nagle's algorithm off from the start; a held-back frame is a late frame.

use crate::config::SwitchAddr;
use rustix::net::sockopt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// A silent peer is asked after this time, again at these intervals, and given up after so many questions:
/// 25 s in all.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;
/// What was sent and is not acknowledged for so long ends the connection, in milliseconds. A port is given up earlier by
/// its signs of life; this is for the side that is not asked, and for what the kernel still holds of a closed one.
const UNACKNOWLEDGED_MAX_MS: u32 = 10_000;

/// A connected stream.
#[derive(Debug)]
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    /// Connects, waiting at most `timeout` per address tried.
    pub(crate) fn connect(addr: &SwitchAddr, timeout: Duration) -> io::Result<Self> {
        match addr {
            SwitchAddr::Unix(path) => Ok(Self::Unix(UnixStream::connect(path)?)),
            SwitchAddr::Tcp(name) => {
                let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                for address in name.to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, timeout.max(Duration::from_millis(1))) {
                        Ok(stream) => {
                            prepare(&stream)?;
                            return Ok(Self::Tcp(stream));
                        }
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }

    pub(crate) fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_nonblocking(on),
            Self::Tcp(stream) => stream.set_nonblocking(on),
        }
    }

    pub(crate) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_read_timeout(timeout),
            Self::Tcp(stream) => stream.set_read_timeout(timeout),
        }
    }

    pub(crate) fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_write_timeout(timeout),
            Self::Tcp(stream) => stream.set_write_timeout(timeout),
        }
    }

    pub(crate) fn shutdown(&self) {
        // An error here says that the peer was faster; either way the stream is over.
        let _ = match self {
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl Read for &Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => (&*stream).read(buf),
            Stream::Tcp(stream) => (&*stream).read(buf),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => (&*stream).write(buf),
            Stream::Tcp(stream) => (&*stream).write(buf),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

/// Frames leave at once, and a peer whose host is gone is noticed though nothing is sent.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED_MAX_MS)?;
    Ok(())
}

/// Where ports connect to. A Unix socket's file is removed when this is dropped.
#[derive(Debug)]
pub(crate) enum Listener {
    Unix { listener: UnixListener, path: std::path::PathBuf },
    Tcp(TcpListener),
}

impl Listener {
    /// Binds, non-blocking. A socket file that nobody listens on any more is replaced.
    pub(crate) fn bind(addr: &SwitchAddr) -> io::Result<Self> {
        match addr {
            SwitchAddr::Unix(path) => {
                let listener = bind_unix(path)?;
                listener.set_nonblocking(true)?;
                Ok(Self::Unix { listener, path: path.clone() })
            }
            SwitchAddr::Tcp(name) => {
                let listener = TcpListener::bind(name.as_str())?;
                listener.set_nonblocking(true)?;
                Ok(Self::Tcp(listener))
            }
        }
    }

    /// The address that was bound, with the port that the system chose if 0 was asked for.
    pub(crate) fn bound(&self) -> io::Result<SwitchAddr> {
        Ok(match self {
            Self::Unix { path, .. } => SwitchAddr::Unix(path.clone()),
            Self::Tcp(listener) => SwitchAddr::Tcp(listener.local_addr()?.to_string()),
        })
    }

    /// The next connection, non-blocking, with a name for the log.
    pub(crate) fn accept(&self) -> io::Result<(Stream, String)> {
        let (stream, name) = match self {
            Self::Unix { listener, .. } => (Stream::Unix(listener.accept()?.0), "unix".to_owned()),
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                prepare(&stream)?;
                (Stream::Tcp(stream), peer.to_string())
            }
        };
        stream.set_nonblocking(true)?;
        Ok((stream, name))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix { listener, .. } => listener.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix { path, .. } = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Binds a Unix socket for this user only: whoever may connect may speak as any guest.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            // A socket left by a switch that was killed refuses connections; a living switch accepts them.
            // Connecting to a file of another type is refused too, so its type is looked at first.
            let is_socket = std::fs::symlink_metadata(path)?.file_type().is_socket();
            match UnixStream::connect(path) {
                Err(refused) if is_socket && refused.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path)?;
                    UnixListener::bind(path)?
                }
                _ => return Err(error),
            }
        }
        other => other?,
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tcp_port_ends_by_itself_when_nothing_is_acknowledged_at_either_end() {
        let listener = Listener::bind(&SwitchAddr::Tcp("127.0.0.1:0".into())).unwrap();
        let near = Stream::connect(&listener.bound().unwrap(), Duration::from_secs(5)).unwrap();
        let far = loop {
            if let Ok((far, _)) = listener.accept() {
                break far;
            }
        };
        for end in [near, far] {
            let Stream::Tcp(end) = end else { panic!("a TCP stream") };
            assert_eq!(sockopt::tcp_user_timeout(&end).unwrap(), UNACKNOWLEDGED_MAX_MS);
        }
    }
}
