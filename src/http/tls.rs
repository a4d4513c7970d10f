//! TLS by the service itself, so that `https` and `wss` need no proxy. The certificate is read again when its file changes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tracing::{error, info};

use crate::config::TlsConfig;

/// Between two looks at whether the files have changed. Who renews a certificate does so days before the old one ends.
const FILE_POLL: Duration = Duration::from_secs(30);
/// WebSocket upgrades are of HTTP/1.1.
const ALPN: &[u8] = b"http/1.1";

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("--tls-cert {path}: cannot be read as PEM certificates")]
    ReadCertificates { path: PathBuf, source: pem::Error },
    #[error("--tls-cert {path}: has no certificate")]
    NoCertificate { path: PathBuf },
    #[error("--tls-key {path}: cannot be read as a PEM private key")]
    ReadKey { path: PathBuf, source: pem::Error },
    #[error("--tls-key {path}: does not go with the certificate, or is of a kind that is not supported")]
    KeyOfOther { path: PathBuf, source: rustls::Error },
    #[error("cannot set TLS up")]
    SetUp(#[source] rustls::Error),
}

/// What connections are secured by.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    certificate: Arc<Certificate>,
}

impl Tls {
    /// Reads certificate and key.
    pub fn load(files: TlsConfig) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let read_at = changed(&files);
        let current = RwLock::new(Arc::new(read(&files, &provider)?));
        let certificate =
            Arc::new(Certificate { files, provider: Arc::clone(&provider), current, read_at: RwLock::new(read_at) });
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::SetUp)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Certificate>::clone(&certificate));
        config.alpn_protocols = vec![ALPN.to_vec()];
        // clients that come back need no whole handshake, and the service keeps nothing for them
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::SetUp)?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), certificate })
    }

    pub fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Reads the files again whenever they have changed. What cannot be read leaves what there was.
    pub async fn follow(self) {
        loop {
            sleep(FILE_POLL).await;
            self.certificate.refresh();
        }
    }
}

/// The certificate of the moment.
#[derive(Debug)]
struct Certificate {
    files: TlsConfig,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<CertifiedKey>>,
    read_at: RwLock<Changed>,
}

impl Certificate {
    fn refresh(&self) {
        let now = changed(&self.files);
        if *self.read_at.read() == now {
            return;
        }
        match read(&self.files, &self.provider) {
            Ok(certificate) => {
                *self.current.write() = Arc::new(certificate);
                info!(file = %self.files.cert.display(), "the TLS certificate was renewed");
            }
            Err(error) => {
                error!(
                    error = &error as &dyn std::error::Error,
                    "the TLS files have changed and cannot be used; the old certificate stays"
                );
            }
        }
        *self.read_at.write() = now;
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read()))
    }
}

/// When the certificate's and the key's file were last written; of a file that is not there, nothing.
type Changed = [Option<SystemTime>; 2];

fn changed(files: &TlsConfig) -> Changed {
    let written = |path: &Path| -> io::Result<SystemTime> { fs::metadata(path)?.modified() };
    [written(&files.cert).ok(), written(&files.key).ok()]
}

fn read(files: &TlsConfig, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let (path, source) = (&files.cert, CertificateDer::pem_file_iter(&files.cert));
    let cannot_read = |source| TlsError::ReadCertificates { path: path.clone(), source };
    let chain: Vec<_> = source.map_err(cannot_read)?.collect::<Result<_, _>>().map_err(cannot_read)?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate { path: path.clone() });
    }
    let path = &files.key;
    let key = PrivateKeyDer::from_pem_file(path).map_err(|source| TlsError::ReadKey { path: path.clone(), source })?;
    CertifiedKey::from_der(chain, key, provider).map_err(|source| TlsError::KeyOfOther { path: path.clone(), source })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use tempfile::TempDir;

    use super::*;

    /// Writes a new certificate and its key, or a key of another.
    fn write(files: &TlsConfig, whose: &str) {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed([whose.to_owned()]).unwrap();
        fs::write(&files.cert, cert.pem()).unwrap();
        fs::write(&files.key, signing_key.serialize_pem()).unwrap();
    }

    fn subject(tls: &Tls) -> Vec<u8> {
        tls.certificate.current.read().cert[0].to_vec()
    }

    #[test]
    fn a_new_certificate_takes_the_place_of_the_old_one() {
        let directory = TempDir::new().unwrap();
        let files = TlsConfig { cert: directory.path().join("cert.pem"), key: directory.path().join("key.pem") };
        write(&files, "first.example");
        let tls = Tls::load(files.clone()).unwrap();
        let first = subject(&tls);
        tls.certificate.refresh();
        assert_eq!(subject(&tls), first, "nothing has changed");

        fs::write(&files.key, "no key").unwrap();
        tls.certificate.refresh();
        assert_eq!(subject(&tls), first, "half of a new pair is no certificate");

        write(&files, "second.example");
        tls.certificate.refresh();
        assert_ne!(subject(&tls), first);
    }
}
