//! A certificate authority made at the start of a world, and the one certificate of all its hosts.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

/// A name for S3 that nobody resolves, unless a test sees to it: certificates are for it, too.
pub const S3_NAME: &str = "s3.mock.test";

/// See the module.
pub(crate) struct Authority {
    /// The certificate that clients shall trust.
    pub(crate) ca_pem: String,
    /// For all listeners.
    pub(crate) acceptor: TlsAcceptor,
}

impl Authority {
    /// Makes keys and certificates: ECDSA P-256, for `localhost`, [`S3_NAME`] and 127.0.0.1 to 127.0.0.4.
    pub(crate) fn new() -> io::Result<Self> {
        Self::make().map_err(io::Error::other)
    }

    fn make() -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let ca_key = KeyPair::generate()?;
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // Another one each time: a client that keeps CAs by name must not mix up two worlds.
        let name = format!("mock-earthdata CA {:08x}", fastrand::u32(..));
        ca.distinguished_name.push(DnType::CommonName, name);
        let ca_certificate = ca.self_signed(&ca_key)?;
        let issuer = Issuer::new(ca, ca_key);

        let leaf_key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new(vec!["localhost".to_owned(), S3_NAME.to_owned()])?;
        for host in 1..=4 {
            let address = IpAddr::V4(Ipv4Addr::new(127, 0, 0, host));
            leaf.subject_alt_names.push(SanType::IpAddress(address));
        }
        leaf.distinguished_name
            .push(DnType::CommonName, "mock-earthdata");
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.use_authority_key_identifier_extension = true;
        let certificate = leaf.signed_by(&leaf_key, &issuer)?;

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            ca_pem: ca_certificate.pem(),
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }
}
