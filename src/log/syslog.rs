//! Lines to the syslog socket, one datagram each (RFC 3164, as glibc's `syslog(3)` sends them).

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;

/// Where syslog daemons listen, and the journal.
const SOCKET: &str = "/dev/log";

/// `LOG_DAEMON`.
const FACILITY: u8 = 3 << 3;

pub(super) struct Syslog(UnixDatagram);

impl Syslog {
    pub(super) fn connect() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(SOCKET)?;
        Ok(Self(socket))
    }
}

/// One event is one write. The daemon may have been restarted since the last one.
impl Write for Syslog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let datagram = datagram(text.trim(), std::process::id());
        if self.0.send(datagram.as_bytes()).is_err() {
            self.0.connect(SOCKET)?;
            self.0.send(datagram.as_bytes())?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn datagram(line: &str, pid: u32) -> String {
    let severity = |word: &str| match word {
        "ERROR" => Some(3),
        "WARN" => Some(4),
        "INFO" => Some(6),
        "DEBUG" | "TRACE" => Some(7),
        _ => None,
    };
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let (severity, text) = match severity(word) {
        Some(severity) => (severity, rest.trim_start()),
        None => (6, line),
    };
    format!("<{}>s3credmount[{pid}]: {text}", FACILITY | severity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_become_severities() {
        assert_eq!(datagram("WARN it rains", 7), "<28>s3credmount[7]: it rains");
        assert_eq!(datagram("{\"a\":1}", 7), "<30>s3credmount[7]: {\"a\":1}");
    }
}
