//! Whom we trust on the other side of an encrypted connection.

use std::error::Error as StdError;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::OnceCell;

type BoxError = Box<dyn StdError + Send + Sync>;

/// The certificates that vouch for a server. Clones share what was read.
#[derive(Clone, Default)]
pub(super) struct Trust(Arc<OnceCell<Arc<ClientConfig>>>);

impl Trust {
    /// The certificates of a PEM file, and no others.
    pub(super) fn of_file(path: &Path) -> Result<Trust, BoxError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(path)? {
            roots.add(certificate?)?;
        }
        if roots.is_empty() {
            return Err("there is no certificate in it".into());
        }
        Ok(Trust(Arc::new(OnceCell::from(Arc::new(client(roots)?)))))
    }

    /// By default the system's certificates, which are read here the first time: it takes about 0.16 s.
    pub(super) async fn config(&self) -> Result<Arc<ClientConfig>, BoxError> {
        self.0.get_or_try_init(of_system).await.cloned()
    }
}

async fn of_system() -> Result<Arc<ClientConfig>, BoxError> {
    // Reading some hundred files takes long enough to delay every other task of this thread.
    let roots = tokio::task::spawn_blocking(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots
    })
    .await?;
    if roots.is_empty() {
        return Err(io::Error::other("this system has no root certificates (package ca-certificates)").into());
    }
    Ok(Arc::new(client(roots)?))
}

fn client(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    // The provider is passed, so that nothing has to be installed for the whole process first.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
