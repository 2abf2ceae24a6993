//! Accepting connections and speaking http on them: the only place that sees a socket.
//!
//! A [`Door`] is a listener that can be closed for a while and whose connections can all be killed. Each connection is a
//! task: the TLS handshake, if there is TLS, then a [`Wire`] for its faults, then the [`Protocol`]: hyper ([`Http`]) or
//! the lean loop of S3. Above the wire nobody ends a connection but by giving it up: how the socket is closed is decided
//! in one place, at the end of the task.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

use crate::reply::Reply;
use crate::wire::{End, Link, Socket, Wire};

/// Bytes that http buffers for a connection: little, so that what was counted as sent is about what was sent.
const BUFFER: usize = 256 * 1024;

/// Connections that may wait to be accepted: more than any test opens at once.
const BACKLOG: u32 = 4096;

/// How long the handle waits for the listener to close or open, and for connections to die.
const PATIENCE: Duration = Duration::from_secs(10);

/// The handle of a listener.
pub(crate) struct Door {
    commands: mpsc::UnboundedSender<Command>,
    kill: watch::Sender<()>,
    mute: watch::Sender<()>,
    /// Held by each connection that is to hear the next `kill`.
    living: Arc<Mutex<Arc<()>>>,
}

/// Open or close, and tell when it is done.
struct Command {
    open: bool,
    done: SyncSender<io::Result<()>>,
}

/// The other side of a [`Door`].
pub(crate) struct Porter {
    pub(crate) address: SocketAddr,
    listener: TcpListener,
    /// Bound and never listening: keeps the port ours while the listener is closed. Two sockets with SO_REUSEADDR may
    /// share an address as long as at most one listens.
    _placeholder: TcpSocket,
    commands: mpsc::UnboundedReceiver<Command>,
    signals: Signals,
    living: Arc<Mutex<Arc<()>>>,
}

/// What all connections that are there hear.
#[derive(Clone)]
struct Signals {
    kill: watch::Receiver<()>,
    mute: watch::Receiver<()>,
}

/// Listens on 127.0.0.`host`, within a runtime.
pub(crate) fn listen(host: u8, port: u16) -> io::Result<(Door, Porter)> {
    let placeholder = bind((Ipv4Addr::new(127, 0, 0, host), port).into())?;
    let address = placeholder.local_addr()?;
    let listener = bind(address)?.listen(BACKLOG)?;
    let (sender, commands) = mpsc::unbounded_channel();
    let (kill, killed) = watch::channel(());
    let (mute, muted) = watch::channel(());
    let living = Arc::default();
    let door = Door {
        commands: sender,
        kill,
        mute,
        living: Arc::clone(&living),
    };
    let porter = Porter {
        address,
        listener,
        _placeholder: placeholder,
        commands,
        signals: Signals {
            kill: killed,
            mute: muted,
        },
        living,
    };
    Ok((door, porter))
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

impl Door {
    /// Opens or closes the listener; on return it is done. Connections that are there go on.
    pub(crate) fn set_open(&self, open: bool) -> io::Result<()> {
        let (done, answer) = sync_channel(1);
        self.commands
            .send(Command { open, done })
            .map_err(io::Error::other)?;
        answer.recv_timeout(PATIENCE).map_err(io::Error::other)?
    }

    /// Lets all connections that are there hang: nothing is read from them or sent on them any more.
    pub(crate) fn mute_connections(&self) {
        self.mute.send_replace(());
    }

    /// Resets all connections, and returns how many there were when they are dead.
    pub(crate) fn kill_connections(&self) -> usize {
        let dying = std::mem::take(&mut *self.living.lock());
        let count = Arc::strong_count(&dying) - 1;
        self.kill.send_replace(());
        let begin = Instant::now();
        while Arc::strong_count(&dying) > 1 && begin.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        count
    }
}

/// What is spoken on a connection.
pub(crate) trait Protocol: Clone + Send + Sync + 'static {
    /// Speaks it until either side ends. Answers with faults of the wire arm the link.
    fn converse<S: Socket>(
        &self,
        wire: &mut Wire<S>,
        link: Link,
    ) -> impl Future<Output = ()> + Send;
}

/// Serves for ever, each connection in a task of its own.
pub(crate) async fn serve<P: Protocol>(porter: Porter, tls: Option<TlsAcceptor>, protocol: P) {
    let Porter {
        address,
        listener,
        _placeholder,
        mut commands,
        signals,
        living,
    } = porter;
    let mut listener = Some(listener);
    loop {
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(Command { open, done }) = commands.recv() => {
                let result = match open {
                    false => {
                        listener = None;
                        Ok(())
                    }
                    true if listener.is_some() => Ok(()),
                    true => bind(address).and_then(|socket| socket.listen(BACKLOG)).map(|again| {
                        listener = Some(again);
                    }),
                };
                let _ = done.send(result);
            }
            accepted = accepted => match accepted {
                Ok((stream, _)) => {
                    // Answers are written whole: waiting to fill a segment only adds delay. A socket that refuses the
                    // option serves as well.
                    let _ = stream.set_nodelay(true);
                    // Before the generation is taken: a kill between the two is seen twice rather than not at all.
                    let mut signals = signals.clone();
                    signals.kill.mark_unchanged();
                    signals.mute.mark_unchanged();
                    let alive = living.lock().clone();
                    let (tls, protocol) = (tls.clone(), protocol.clone());
                    tokio::spawn(async move {
                        attend(stream, tls, protocol, signals).await;
                        drop(alive);
                    });
                }
                // Out of file descriptors, or a client gone before we took it: the next one may do better.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
        }
    }
}

/// One connection, from its first byte to its last.
async fn attend<P: Protocol>(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    protocol: P,
    mut signals: Signals,
) {
    match tls {
        None => attend_socket(stream, protocol, signals).await,
        Some(tls) => tokio::select! {
            // A client that does not trust us hangs up; that is its right.
            Ok(stream) = tls.accept(stream) => attend_socket(stream, protocol, signals.clone()).await,
            _ = signals.kill.changed() => {}
            else => {}
        },
    }
}

async fn attend_socket<S: Socket, P: Protocol>(stream: S, protocol: P, mut signals: Signals) {
    let link = Link::default();
    let mut wire = Wire::new(stream, link.clone());
    let killed = tokio::select! {
        // In this order: what is sent after a signal is not answered any more.
        biased;
        // An error means that the world ends, and all connections with it.
        _ = signals.kill.changed() => true,
        _ = signals.mute.changed() => {
            let _ = signals.kill.changed().await;
            true
        }
        () = protocol.converse(&mut wire, link) => false,
    };
    if killed {
        wire.end = End::Dead;
    }
    wire.close().await;
}

/// http/1.1 by hyper, answered by a function. The link is there for faults of the wire.
#[derive(Clone)]
pub(crate) struct Http<H>(pub(crate) H);

impl<H, F> Protocol for Http<H>
where
    H: Fn(Request<Incoming>, Link) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    /// Errors are the client's: it sees them as a closed connection.
    async fn converse<S: Socket>(&self, wire: &mut Wire<S>, link: Link) {
        let service = service_fn(move |request| {
            let answer = (self.0)(request, link.clone());
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let _ = http1::Builder::new()
            .timer(TokioTimer::new())
            .max_buf_size(BUFFER)
            .serve_connection(TokioIo::new(wire), service)
            .await;
    }
}
