//! TLS of a check: whose certificate is believed, and what a failed handshake says, in words.
//!
//! Every check makes a full handshake: a session that is resumed says nothing of the certificate of today.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme, WantsVerifier,
    client::{
        Resumption, WantsClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::{fs, io::AsyncReadExt, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::Inconclusive;
use crate::config::{Tls, Trust};

/// Largest file of certificate authorities, in bytes: all that a system trusts take a fifth of it.
const CA_FILE_BYTES: u64 = 1 << 20;

/// The client side of a check's TLS.
#[derive(Debug)]
pub(super) struct TlsClient {
    tls: Tls,
    /// Host header of the check.
    host: Option<String>,
    /// The CA file as it was last read, and what it made.
    read: Mutex<Option<(Vec<u8>, Arc<ClientConfig>)>>,
}

/// What a handshake needs.
pub(super) struct Session {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl TlsClient {
    pub(super) fn new(tls: Tls, host: Option<String>) -> Self {
        Self { tls, host, read: Mutex::new(None) }
    }

    /// Makes ready for a handshake with `endpoint`. The CA file is read for each, so that a new one is believed at once.
    pub(super) async fn session(&self, endpoint: SocketAddr) -> Result<Session, Inconclusive> {
        let config = match &self.tls.trust {
            Trust::System => system()?,
            Trust::Anyone => anyone()?,
            Trust::File(path) => self.of_file(path, read(path).await?)?,
        };
        let name = self.tls.name.as_deref().or(self.host.as_deref().map(without_port));
        let name = match name {
            Some(name) => ServerName::try_from(name.to_owned()).map_err(|error| {
                Inconclusive(format!("{name:?} cannot be asked for by TLS: {error}; set sni"))
            })?,
            None => endpoint.ip().into(),
        };
        Ok(Session { connector: config.into(), name })
    }

    fn of_file(&self, path: &str, text: Vec<u8>) -> Result<Arc<ClientConfig>, Inconclusive> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, config)) = &*read
            && *before == text
        {
            return Ok(Arc::clone(config));
        }
        let config = trusting(roots(path, &text)?)?;
        *read = Some((text, Arc::clone(&config)));
        Ok(config)
    }
}

impl Session {
    /// Shakes hands over `stream`, or says why it did not work.
    pub(super) async fn handshake(self, stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
        let name = self.name.to_str().into_owned();
        self.connector.connect(self.name, stream).await.map_err(|error| words(&error, &name))
    }
}

/// The name in a Host header.
fn without_port(host: &str) -> &str {
    if let Some((address, _)) = host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        return address;
    }
    match host.rsplit_once(':') {
        Some((name, _)) if host.parse::<IpAddr>().is_err() => name,
        _ => host,
    }
}

async fn read(path: &str) -> Result<Vec<u8>, Inconclusive> {
    let unreadable = |error: io::Error| Inconclusive(format!("the CA file {path} cannot be read: {error}"));
    // Before it is opened: opening a pipe waits for a writer.
    if !fs::metadata(path).await.map_err(unreadable)?.is_file() {
        return Err(Inconclusive(format!("the CA file {path} is no regular file")));
    }
    let mut text = Vec::new();
    let file = fs::File::open(path).await.map_err(unreadable)?;
    file.take(CA_FILE_BYTES + 1).read_to_end(&mut text).await.map_err(unreadable)?;
    if text.len() as u64 > CA_FILE_BYTES {
        return Err(Inconclusive(format!("the CA file {path} has more than {CA_FILE_BYTES} bytes")));
    }
    Ok(text)
}

fn roots(path: &str, text: &[u8]) -> Result<RootCertStore, Inconclusive> {
    let unusable = |error: &dyn std::fmt::Display| Inconclusive(format!("the CA file {path}: {error}"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text) {
        let certificate = certificate.map_err(|error| unusable(&error))?;
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    if roots.is_empty() {
        return Err(unusable(&"no certificate found, expected at least one in PEM"));
    }
    Ok(roots)
}

/// Trusts what the system trusts: looked up once, as a store takes memory and targets may be thousands.
fn system() -> Result<Arc<ClientConfig>, Inconclusive> {
    static SYSTEM: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = SYSTEM.get() {
        return Ok(Arc::clone(config));
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        let fix = "install the package ca-certificates, or set ca";
        return Err(Inconclusive(format!("this system trusts no certificate authority; {fix}")));
    }
    let config = trusting(roots)?;
    Ok(Arc::clone(SYSTEM.get_or_init(|| config)))
}

fn anyone() -> Result<Arc<ClientConfig>, Inconclusive> {
    let verifier = Arc::new(AnyCertificate(Arc::new(ring::default_provider())));
    Ok(finished(builder()?.dangerous().with_custom_certificate_verifier(verifier)))
}

fn trusting(roots: RootCertStore) -> Result<Arc<ClientConfig>, Inconclusive> {
    Ok(finished(builder()?.with_root_certificates(roots)))
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, Inconclusive> {
    // Named, as another crate may bring a second provider, and then there is no default.
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Inconclusive(format!("TLS cannot be set up: {error}")))
}

fn finished(builder: ConfigBuilder<ClientConfig, WantsClientCert>) -> Arc<ClientConfig> {
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// A failed handshake, for an operator.
fn words(error: &io::Error, name: &str) -> String {
    let tls = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
    match tls {
        Some(Error::InvalidCertificate(error)) => certificate_words(error, name),
        Some(Error::InvalidMessage(error)) => format!("what came is no TLS ({error:?})"),
        Some(error) => error.to_string(),
        None => error.to_string(),
    }
}

fn certificate_words(error: &CertificateError, name: &str) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet".to_owned()
        }
        CertificateError::UnknownIssuer => {
            "the certificate comes from no certificate authority that is trusted here (ca)".to_owned()
        }
        CertificateError::BadSignature => {
            "a signature is wrong: the certificate comes from another authority of the \
                                           same name (ca), or the server has not its key"
                .to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("the certificate is not for {name} (sni)")
        }
        error => format!("the certificate is not accepted: {error}"),
    }
}

/// Believes any certificate, and still that its owner speaks.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
