//! Encrypted connections: whom else to trust than the system does, and why there is none.

use std::io;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{CertificateError, Error, RootCertStore};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The certificates of a PEM file, as its text. The client would pass over what it cannot read, and say later that it
/// does not know who signed the broker's certificate.
pub(super) fn read_ca(path: &Path) -> Result<String, BoxError> {
    let text = std::fs::read_to_string(path)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        roots.add(certificate?)?;
    }
    if roots.is_empty() { Err("there is no certificate in it".into()) } else { Ok(text) }
}

/// What was wrong with the encryption, and what to do; `None` when it was something else. Where it was is said after it.
pub(super) fn refusal(error: &io::Error) -> Option<String> {
    let error: &Error = error.get_ref()?.downcast_ref()?;
    Some(match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the issuer of its certificate is unknown (queue.ca_file names whom to trust)".into()
        }
        // It answered in plain text.
        Error::InvalidMessage(_) => {
            "no TLS is spoken (amqps:// is for the broker's port for it, as a rule 5671)".into()
        }
        error => format!("no encrypted connection: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        for (text, said) in [
            ("", "no certificate"),
            ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no certificate"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate"),
        ] {
            std::fs::write(file.path(), text).expect("written");
            let error = read_ca(file.path()).expect_err(text).to_string();
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }
}
