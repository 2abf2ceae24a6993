//! The faults of the wire: a stream between http and the socket that harms the bytes of an answer.
//!
//! Whoever decides about an answer arms the [`Link`] of its connection with a fault before the first byte of the answer
//! goes out. The [`Wire`] takes it up with that byte, lets the head pass, and counts the bytes of the body. It relies on
//! answers that say their `Content-Length` and on clients that do not send a request before they have the answer to the
//! one before. It lies above TLS, so that it counts and flips what the client sees, and TLS stays whole.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::server::TlsStream;

use crate::faults::Fault;
use crate::script::Hit;

/// How long the end of a connection waits for the client to take what was sent.
const LAST_BYTES: Duration = Duration::from_secs(5);

/// What a trickle sends at a time: this part of a second's bytes.
const TRICKLES: u64 = 20;

/// A connection that a client made, plain or TLS.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// What lies below.
    fn tcp(&self) -> &TcpStream;
}

impl Socket for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Socket for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// Where the next answer's fault waits for the wire of its connection.
#[derive(Clone, Default)]
pub(crate) struct Link(Arc<Mutex<Option<Hit>>>);

impl Link {
    /// The answer that comes next on this connection has this fault; nothing happens if it is not one of the wire.
    pub(crate) fn arm(&self, hit: &Hit) {
        if hit.fault().is_of_the_wire() {
            *self.0.lock() = Some(hit.clone());
        }
    }
}

/// How the connection ends once http is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// As http left it.
    Plain,
    /// FIN, and with TLS a close_notify.
    Cut,
    /// RST, once the client has what was sent.
    Reset,
    /// RST at once.
    Dead,
}

/// See the module.
pub(crate) struct Wire<S> {
    stream: S,
    link: Link,
    harm: Option<Harm>,
    pub(crate) end: End,
}

/// A fault at work on an answer.
struct Harm {
    hit: Hit,
    /// The head as far as it passed.
    head: Vec<u8>,
    /// Bytes of the body that passed; None before the body.
    passed: Option<u64>,
    /// Bytes of the body in all.
    length: u64,
    /// Which byte to flip.
    flip: u64,
    /// Bytes to add.
    extra: u64,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Harm {
    fn new(hit: Hit) -> Self {
        Self {
            hit,
            head: Vec::new(),
            passed: None,
            length: 0,
            flip: 0,
            extra: 0,
            sleep: None,
        }
    }

    /// The head has passed.
    fn begin_body(&mut self) {
        let head = String::from_utf8_lossy(&self.head).to_ascii_lowercase();
        self.length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
            .unwrap_or(0);
        self.passed = Some(0);
        match self.hit.fault() {
            Fault::FlipByte(offset) => {
                self.flip = offset.unwrap_or_else(|| fastrand::u64(..self.length.max(1)));
            }
            Fault::ExtraBytes(extra) => self.extra = *extra,
            _ => {}
        }
    }
}

impl<S: Socket> Wire<S> {
    pub(crate) fn new(stream: S, link: Link) -> Self {
        Self {
            stream,
            link,
            harm: None,
            end: End::Plain,
        }
    }

    /// Ends the connection the way that was decided.
    pub(crate) async fn close(mut self) {
        match self.end {
            End::Plain => {}
            End::Cut => {
                let _ = timeout(LAST_BYTES, self.stream.shutdown()).await;
            }
            End::Reset => {
                let _ = timeout(LAST_BYTES, async {
                    let _ = self.stream.flush().await;
                    while unacknowledged(self.stream.tcp()) > 0 {
                        sleep(Duration::from_millis(1)).await;
                    }
                })
                .await;
                let _ = self.stream.tcp().set_zero_linger();
            }
            End::Dead => {
                let _ = self.stream.tcp().set_zero_linger();
            }
        }
    }

    fn break_off(&mut self, end: End) -> io::Error {
        self.end = end;
        self.harm = None;
        io::ErrorKind::ConnectionAborted.into()
    }

    /// Passes bytes of the head on.
    fn poll_head(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Some(harm) = &mut self.harm else {
            return Poll::Ready(Ok(0));
        };
        let known = harm.head.len();
        harm.head.extend_from_slice(buf);
        let end = harm.head.windows(4).position(|four| four == b"\r\n\r\n");
        let len = end.map_or(buf.len(), |at| at + 4 - known);
        harm.head.truncate(known);
        let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &buf[..len]))?;
        harm.head.extend_from_slice(&buf[..sent]);
        if end.is_some() && sent == len {
            harm.begin_body();
            if harm.length == 0 && harm.extra == 0 {
                self.harm = None;
            }
        }
        Poll::Ready(Ok(sent))
    }

    /// Passes bytes of the body on, so many at most.
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        buf: &[u8],
        most: u64,
    ) -> Poll<io::Result<usize>> {
        let len = usize::try_from(most).map_or(buf.len(), |most| most.min(buf.len()));
        let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &buf[..len]))?;
        if let Some(harm) = &mut self.harm {
            let passed = harm.passed.unwrap_or(0) + sent as u64;
            harm.passed = Some(passed);
            if passed >= harm.length && harm.extra == 0 {
                self.harm = None;
            }
        }
        Poll::Ready(Ok(sent))
    }

    /// Passes on what the fault lets through.
    fn poll_harmed(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Some(harm) = &mut self.harm else {
            return Poll::Ready(Ok(0));
        };
        let hit = harm.hit.clone();
        if *hit.fault() == Fault::ResetBefore {
            hit.fires();
            return Poll::Ready(Err(self.break_off(End::Reset)));
        }
        let Some(passed) = harm.passed else {
            return self.poll_head(cx, buf);
        };
        match hit.fault() {
            Fault::ResetAfter(bytes) | Fault::CutAfter(bytes) if passed >= *bytes => {
                hit.fires();
                let end = match hit.fault() {
                    Fault::CutAfter(_) => End::Cut,
                    _ => End::Reset,
                };
                Poll::Ready(Err(self.break_off(end)))
            }
            Fault::ResetAfter(bytes) | Fault::CutAfter(bytes) => {
                self.poll_body(cx, buf, bytes - passed)
            }
            Fault::StallAfter(bytes, time) if passed >= *bytes => {
                hit.fires();
                let Some(time) = time else {
                    // Until the client says or closes something.
                    let mut byte = [0];
                    let tcp = self.stream.tcp();
                    ready!(tcp.poll_peek(cx, &mut ReadBuf::new(&mut byte)))?;
                    return Poll::Ready(Err(self.break_off(End::Plain)));
                };
                let sleep = harm.sleep.get_or_insert_with(|| Box::pin(sleep(*time)));
                ready!(sleep.as_mut().poll(cx));
                self.harm = None;
                Pin::new(&mut self.stream).poll_write(cx, buf)
            }
            Fault::StallAfter(bytes, _) => self.poll_body(cx, buf, bytes - passed),
            Fault::Trickle(rate) => {
                hit.fires();
                let rate = (*rate).max(1);
                let piece = (rate / TRICKLES).max(1).min(buf.len() as u64);
                // Each piece waits as long as it takes, and then goes.
                let takes = Duration::from_secs_f64(piece as f64 / rate as f64);
                let sleep = harm.sleep.get_or_insert_with(|| Box::pin(sleep(takes)));
                ready!(sleep.as_mut().poll(cx));
                let sent = ready!(self.poll_body(cx, buf, piece));
                if let Some(harm) = &mut self.harm {
                    harm.sleep = None;
                }
                Poll::Ready(sent)
            }
            Fault::FlipByte(_) if passed == harm.flip => {
                let Some(byte) = buf.first() else {
                    return Poll::Ready(Ok(0));
                };
                let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &[byte ^ 1]))?;
                if sent > 0 {
                    hit.fires();
                    self.harm = None;
                }
                Poll::Ready(Ok(sent))
            }
            Fault::FlipByte(_) => {
                let most = harm.flip.checked_sub(passed).unwrap_or(u64::MAX);
                self.poll_body(cx, buf, most)
            }
            Fault::ExtraBytes(_) => {
                let most = harm.length - passed;
                self.poll_body(cx, buf, most)
            }
            _ => {
                self.harm = None;
                Pin::new(&mut self.stream).poll_write(cx, buf)
            }
        }
    }

    /// Sends the bytes too many, once the body has passed.
    fn poll_extra(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(harm) = &mut self.harm
            && harm.extra > 0
            && harm.passed == Some(harm.length)
        {
            let len = harm.extra.min(4096) as usize;
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &[b'x'; 4096][..len]))?;
            harm.hit.fires();
            harm.extra -= sent as u64;
            if sent == 0 || harm.extra == 0 {
                self.harm = None;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn is_harmed(&mut self) -> bool {
        if self.harm.is_none() {
            self.harm = self.link.0.lock().take().map(Harm::new);
        }
        self.harm.is_some()
    }
}

impl<S: Socket> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: Socket> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.end != End::Plain {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        ready!(self.poll_extra(cx))?;
        if self.is_harmed() {
            return self.poll_harmed(cx, buf);
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.end == End::Plain && !self.is_harmed() {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        }
        let first = bufs.iter().find(|buf| !buf.is_empty());
        self.poll_write(cx, first.map_or(&[], |buf| buf))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_extra(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.end != End::Plain {
            // Left to `close`.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Bytes that were sent and that the other side has not acknowledged yet; 0 if nobody can say.
fn unacknowledged(tcp: &TcpStream) -> libc::c_int {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ writes one int, which outlives the call, and the descriptor is open as long as the stream.
    let said = unsafe { libc::ioctl(tcp.as_raw_fd(), libc::TIOCOUTQ, &mut bytes) };
    if said == 0 { bytes } else { 0 }
}
