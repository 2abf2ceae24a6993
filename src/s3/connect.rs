//! Connections to S3: TCP, through the proxy that the environment names, and TLS over it.

use std::error::Error;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector as Tcp};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{CipherSuite, ClientConfig, RootCertStore};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::network::Network;

/// A handshake across a continent takes a tenth of this, with all addresses of a host together.
const TCP_TIMEOUT: Duration = Duration::from_secs(4);
/// With its name, which costs 5 s where the first server of names is dead, with a proxy, and with TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(16);
/// What TLS takes from a socket at once: it asks for one record of 16 KiB at a time, and each question costs.
const TLS_BUFFER: usize = 128 << 10;

/// What to trust, and which ciphers to like best.
fn tls(network: &Network) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let certificates = match &network.authorities {
        Some(pem) => CertificateDer::pem_slice_iter(pem).flatten().collect(),
        None => rustls_native_certs::load_native_certs().certs,
    };
    roots.add_parsable_certificates(certificates);
    if roots.is_empty() {
        tracing::warn!("no usable certificate authorities: no https server will be trusted");
    }
    let mut crypto = rustls::crypto::ring::default_provider();
    // The choice of S3 itself, where both sides have the same; the other takes a third more CPU.
    let first = CipherSuite::TLS13_AES_128_GCM_SHA256;
    crypto
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != first);
    let config = ClientConfig::builder_with_provider(Arc::new(crypto));
    let config = config.with_safe_default_protocol_versions();
    let config = config.expect("ring has ciphers for all versions of TLS");
    config.with_root_certificates(roots).with_no_client_auth()
}

/// Makes connections, none of which takes long.
pub(super) type Connector = Timed<HttpsConnector<Route>>;

/// What makes connections as the network wants them; `is_direct` to use no proxy.
pub(super) fn connector(network: &Network, is_direct: bool) -> Connector {
    let mut tcp = Tcp::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(TCP_TIMEOUT));
    let tls = Arc::new(tls(network));
    let proxies = match is_direct {
        true => Matcher::builder().build(),
        false => Matcher::from_env(),
    };
    let route = Route {
        tcp: tcp.clone(),
        to_proxy: HttpsConnector::from((tcp, tls.clone())),
        proxies: Arc::new(proxies),
    };
    Timed(HttpsConnector::from((route, tls)))
}

type BoxError = Box<dyn Error + Send + Sync>;

/// Gives up on connections that take too long to make.
#[derive(Clone, Debug)]
pub(super) struct Timed<C>(C);

impl<C> Service<Uri> for Timed<C>
where
    C: Service<Uri, Error = BoxError>,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<C::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connection = tokio::time::timeout(CONNECT_TIMEOUT, self.0.call(to));
        Box::pin(async {
            match connection.await {
                Ok(connection) => connection,
                Err(_) => Err("it takes too long to make".into()),
            }
        })
    }
}

/// To the server, or to its proxy and through it.
#[derive(Clone, Debug)]
pub(super) struct Route {
    tcp: Tcp,
    to_proxy: HttpsConnector<Tcp>,
    proxies: Arc<Matcher>,
}

type Way = MaybeHttpsStream<TokioIo<TcpStream>>;

impl Service<Uri> for Route {
    type Response = Buffered<Way>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let size = match to.scheme_str() {
            Some("https") => TLS_BUFFER,
            // HTTP asks for much.
            _ => 1,
        };
        let Some(proxy) = self.proxies.intercept(&to) else {
            let connection = self.tcp.call(to);
            return Box::pin(async move {
                let way = MaybeHttpsStream::Http(connection.await?);
                Ok(Buffered::new(way, size))
            });
        };
        if let Some(scheme @ ("socks4" | "socks4a" | "socks5" | "socks5h")) =
            proxy.uri().scheme_str()
        {
            // As the other stack says it.
            let why = format!("its proxy: unsupported scheme {scheme}");
            return Box::pin(async move { Err(why.into()) });
        }
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.to_proxy.clone());
        if let Some(login) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(login.clone());
        }
        let connection = tunnel.call(to);
        Box::pin(async move { Ok(Buffered::new(connection.await?, size)) })
    }
}

/// Reads what there is from below, up to a number of bytes, however few are asked for.
#[derive(Debug)]
pub(super) struct Buffered<T>(TokioIo<BufReader<TokioIo<T>>>);

impl<T: Read + Write + Unpin> Buffered<T> {
    fn new(below: T, size: usize) -> Self {
        Self(TokioIo::new(BufReader::with_capacity(
            size,
            TokioIo::new(below),
        )))
    }
}

impl<T: Connection + Read> Connection for Buffered<T> {
    fn connected(&self) -> Connected {
        self.0.inner().get_ref().inner().connected()
    }
}

impl<T: Read + Write + Unpin> Read for Buffered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, to)
    }
}

impl<T: Read + Write + Unpin> Write for Buffered<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ciphers_are_those_that_s3_likes_best() {
        let tls = tls(&Network::default());
        let ciphers = &tls.crypto_provider().cipher_suites;
        let first = ciphers.first().map(|suite| suite.suite());
        assert_eq!(first, Some(CipherSuite::TLS13_AES_128_GCM_SHA256));
        let all = rustls::crypto::ring::default_provider().cipher_suites;
        assert_eq!(ciphers.len(), all.len());
    }

    /// Whatever sizes bytes are asked for in, they come in order and once.
    #[tokio::test]
    async fn what_is_read_ahead_is_handed_out_in_order() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        let sent: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        for size in [1, 7, TLS_BUFFER] {
            let (here, mut there) = tokio::io::duplex(1000);
            let mut buffered = TokioIo::new(Buffered::new(TokioIo::new(here), size));
            let bytes = sent.clone();
            tokio::spawn(async move { there.write_all(&bytes).await });
            let (mut got, mut piece) = (Vec::new(), [0; 300]);
            while let Ok(read @ 1..) = buffered.read(&mut piece[..1 + got.len() % 300]).await {
                got.extend_from_slice(&piece[..read]);
            }
            assert!(got == sent, "with {size}");
        }
    }
}
