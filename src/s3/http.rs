//! The SDK's HTTP connections, made with the network settings that the login uses, too.

use std::time::Duration;

use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::{
    HttpConnectorSettings, SharedHttpClient, SharedHttpConnector, http_client_fn,
};

use crate::network::{Network, USER_AGENT};

/// A handshake across a continent takes a tenth of this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// S3 answers within 100 to 200 ms; a full page of a listing takes some more.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(15);

/// One pool of connections, of which `idle` are kept; `is_direct` to use no proxy.
pub(super) fn connector(network: &Network, is_direct: bool, idle: usize) -> SharedHttpConnector {
    let trust = match &network.authorities {
        Some(pem) => TrustStore::empty().with_pem_certificate(pem.clone()),
        None => TrustStore::default(),
    };
    let context = TlsContext::builder().with_trust_store(trust).build();
    let settings = HttpConnectorSettings::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(FIRST_BYTE_TIMEOUT)
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

/// The SDK's client over these connections.
pub(super) fn client(connector: &SharedHttpConnector) -> SharedHttpClient {
    let connector = connector.clone();
    http_client_fn(move |_, _| connector.clone())
}

/// Says who asks. It is no part of the signature, so it can be set last.
#[derive(Debug)]
pub(super) struct UserAgent;

impl Intercept for UserAgent {
    fn name(&self) -> &'static str {
        "s3credmount user agent"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.request_mut().headers_mut();
        headers.insert("user-agent", USER_AGENT);
        Ok(())
    }
}
