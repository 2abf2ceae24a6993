//! HTTP connections, made with the network settings that the login uses, too.

use std::time::Duration;

use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::{HttpConnectorSettings, SharedHttpConnector};
use tokio::time::Instant;

use crate::network::Network;
use crate::sync::{Mutex, lock};

/// A handshake across a continent takes a tenth of this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// A pool is not renewed more often: each new connection costs a handshake.
const RENEWED_AT_MOST: Duration = Duration::from_secs(5);

/// Connections that are kept for the next request.
#[derive(Debug)]
pub(super) struct Pool {
    network: Network,
    is_direct: bool,
    idle: usize,
    current: Mutex<(SharedHttpConnector, Instant)>,
}

impl Pool {
    /// A pool that keeps `idle` connections; `is_direct` to use no proxy.
    pub(super) fn new(network: Network, is_direct: bool, idle: usize) -> Self {
        let first = connector(&network, is_direct, idle);
        Self {
            network,
            is_direct,
            idle,
            current: Mutex::new((first, Instant::now())),
        }
    }

    /// One that has `connector` and never another.
    #[cfg(any(test, fuzzing))]
    pub(super) fn fixed(connector: SharedHttpConnector) -> Self {
        Self {
            network: Network::default(),
            is_direct: true,
            idle: 0,
            // Not to be renewed for some decades.
            current: Mutex::new((connector, Instant::now() + Duration::from_secs(1 << 30))),
        }
    }

    /// Where to send the next request.
    pub(super) fn current(&self) -> SharedHttpConnector {
        lock(&self.current).0.clone()
    }

    /// Lets go of all connections that are there: requests under way end on them, new ones go over new
    /// ones. After a change of the network all old ones are silent, and each would have to be found out.
    pub(super) fn renew(&self) {
        let mut current = lock(&self.current);
        if current.1.elapsed() >= RENEWED_AT_MOST {
            tracing::debug!("new connections from now on");
            let next = connector(&self.network, self.is_direct, self.idle);
            *current = (next, Instant::now());
        }
    }
}

fn connector(network: &Network, is_direct: bool, idle: usize) -> SharedHttpConnector {
    let trust = match &network.authorities {
        Some(pem) => TrustStore::empty().with_pem_certificate(pem.clone()),
        None => TrustStore::default(),
    };
    let context = TlsContext::builder().with_trust_store(trust).build();
    let settings = HttpConnectorSettings::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .build();
    let builder = Connector::builder()
        .proxy_config(match is_direct {
            true => ProxyConfig::disabled(),
            false => ProxyConfig::from_env(),
        })
        .pool_max_idle_per_host(idle)
        .connector_settings(settings)
        .sleep_impl(TokioSleep::new())
        .tls_provider(Provider::Rustls(CryptoMode::Ring));
    let builder = match context {
        Ok(context) => builder.tls_context(context),
        // The login's stack has read the same certificates and would have complained.
        Err(_) => builder,
    };
    SharedHttpConnector::new(builder.build())
}
