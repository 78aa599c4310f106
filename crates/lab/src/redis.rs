//! A connection to redis, as the clients of `demo` and `chaos` have it.

use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One connection to redis, RESP over TCP.
pub struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    /// Connects; no answer may take longer than `patience`.
    pub fn open(address: SocketAddr, patience: Duration) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// Sends one command and waits for its reply: the integer, the string, or `None` for nil.
    pub fn call(&mut self, command: &[&str]) -> Result<Option<String>> {
        self.send(command)?;
        self.receive().with_context(|| format!("{command:?}"))
    }

    /// Sends one command. Its reply comes after those of the commands before it.
    pub fn send(&mut self, command: &[&str]) -> Result<()> {
        let mut request = format!("*{}\r\n", command.len());
        for word in command {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        Ok(self.reader.get_mut().write_all(request.as_bytes())?)
    }

    /// Waits for the next reply.
    pub fn receive(&mut self) -> Result<Option<String>> {
        let line = self.line()?;
        match line.split_at_checked(1) {
            Some(("+" | ":", text)) => Ok(Some(text.into())),
            Some(("$", "-1")) => Ok(None),
            Some(("$", _)) => Ok(Some(self.line()?)),
            _ => bail!("redis answered {line:?}"),
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.reader.read_line(&mut line)? > 0, "the connection was closed");
        Ok(line.trim_end().into())
    }
}
