//! HTTP over connections that are kept, made with the network settings that the login uses, too.

use std::error::Error;
use std::time::Duration;

use aws_sdk_s3::config::http::{HttpRequest, HttpResponse};
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::result::ConnectorError;
use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;

use super::connect::{Connector, connector};
use crate::network::Network;
use crate::sync::{Mutex, lock};

/// A pool is not renewed more often: each new connection costs a handshake.
const RENEWED_AT_MOST: Duration = Duration::from_secs(5);

/// What is read of a body at once: larger buffers leave the caches of the CPU, and cost a sixth more of it.
const READ_BUFFER: usize = 128 << 10;

/// Headers of an answer. S3 sends a dozen, and one for each of the object's own, which have 2 KB together.
const MOST_HEADERS: usize = 256;

/// Connections that are kept for the next request.
#[derive(Debug)]
pub(super) struct Pool {
    /// What makes new ones, and how many of them are kept; `None` if there is nothing to renew.
    connections: Option<(Connector, usize)>,
    current: Mutex<(SharedHttpConnector, Instant)>,
}

impl Pool {
    /// A pool that keeps `idle` connections; `is_direct` to use no proxy.
    pub(super) fn new(network: &Network, is_direct: bool, idle: usize) -> Self {
        let connector = connector(network, is_direct);
        let first = client(connector.clone(), idle);
        Self {
            connections: Some((connector, idle)),
            current: Mutex::new((first, Instant::now())),
        }
    }

    /// One that has `connector` and never another.
    #[cfg(any(test, fuzzing))]
    pub(super) fn fixed(connector: SharedHttpConnector) -> Self {
        Self {
            connections: None,
            current: Mutex::new((connector, Instant::now())),
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
        if let Some((connector, idle)) = &self.connections
            && current.1.elapsed() >= RENEWED_AT_MOST
        {
            tracing::debug!("new connections from now on");
            *current = (client(connector.clone(), *idle), Instant::now());
        }
    }
}

fn client(connector: Connector, idle: usize) -> SharedHttpConnector {
    let client = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(idle)
        .http1_max_buf_size(READ_BUFFER)
        .http1_max_headers(MOST_HEADERS)
        .build(connector);
    SharedHttpConnector::new(Http(client))
}

/// Sends requests without a body.
#[derive(Debug)]
struct Http(Client<Connector, Empty<Bytes>>);

impl HttpConnector for Http {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let request = match request.try_into_http1x() {
            Ok(request) => request.map(|_| Empty::new()),
            Err(error) => {
                let error = ConnectorError::user(error.into());
                return HttpConnectorFuture::ready(Err(error));
            }
        };
        let answer = self.0.request(request);
        HttpConnectorFuture::new(async move {
            let answer = answer.await.map_err(failed)?;
            let answer = answer.map(SdkBody::from_body_1_x);
            HttpResponse::try_from(answer).map_err(failed)
        })
    }
}

fn failed(error: impl Error + Send + Sync + 'static) -> ConnectorError {
    ConnectorError::io(error.into())
}
