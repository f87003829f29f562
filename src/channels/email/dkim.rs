//! DKIM: our signature under a message, for whoever receives it to hold against the key in the DNS.
//!
//! Source: RFC 6376 (relaxed/relaxed, rsa-sha256) and RFC 8463 (ed25519-sha256). Signed by the library that does TLS.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest, Sha256};

/// What a receiver must be able to trust. Headers that a message does not have are left out.
const SIGNED: &[&str] = &[
    "from",
    "reply-to",
    "to",
    "subject",
    "date",
    "message-id",
    "auto-submitted",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
];

/// A key with the name it is found under.
pub(super) struct Dkim {
    selector: String,
    domain: String,
    key: Key,
}

enum Key {
    Rsa(Box<RsaKeyPair>),
    Ed25519(Ed25519KeyPair),
}

impl Dkim {
    /// Takes a PEM. The error never repeats it.
    pub(super) fn new(selector: &str, domain: &str, pem: &str) -> Result<Dkim, String> {
        let key =
            PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| "is not a private key in PEM".to_owned())?;
        let rsa = |key: Result<RsaKeyPair, ring::error::KeyRejected>| {
            key.map(|key| Key::Rsa(Box::new(key))).map_err(|error| format!("cannot be used: {error}"))
        };
        let key = match &key {
            PrivateKeyDer::Pkcs1(key) => rsa(RsaKeyPair::from_der(key.secret_pkcs1_der()))?,
            PrivateKeyDer::Pkcs8(key) => match Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.secret_pkcs8_der()) {
                Ok(key) => Key::Ed25519(key),
                Err(_) => rsa(RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()))?,
            },
            _ => return Err("is neither an RSA nor an Ed25519 key".into()),
        };
        Ok(Dkim { selector: selector.to_owned(), domain: domain.to_owned(), key })
    }

    /// The header to put before `message`.
    pub(super) fn sign(&self, message: &[u8], now: Timestamp) -> String {
        let end = message.windows(4).position(|bytes| bytes == b"\r\n\r\n").map_or(message.len(), |at| at + 2);
        let (head, body) = (&message[..end], message.get(end + 2..).unwrap_or_default());
        let headers = headers(&String::from_utf8_lossy(head));
        let signed: Vec<_> = SIGNED.iter().filter_map(|name| headers.iter().find(|(known, _)| known == name)).collect();
        let algorithm = match self.key {
            Key::Rsa(_) => "rsa-sha256",
            Key::Ed25519(_) => "ed25519-sha256",
        };
        let unsigned = format!(
            "v=1; a={algorithm}; c=relaxed/relaxed; d={}; s={};\r\n t={}; h={};\r\n bh={};\r\n b=",
            self.domain,
            self.selector,
            now.as_second(),
            signed.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(":"),
            BASE64_STANDARD.encode(body_hash(body)),
        );
        let mut covered = String::new();
        for (name, value) in signed {
            covered.push_str(&format!("{name}:{value}\r\n"));
        }
        covered.push_str(&format!("dkim-signature:{}", relaxed(&unsigned)));
        let signature = BASE64_STANDARD.encode(self.key.sign(covered.as_bytes()));
        // Folded, as a header line has its limit.
        let lines: Vec<_> = signature.as_bytes().chunks(72).map(String::from_utf8_lossy).collect();
        format!("DKIM-Signature: {unsigned}{}\r\n", lines.join("\r\n "))
    }
}

impl Key {
    fn sign(&self, covered: &[u8]) -> Vec<u8> {
        match self {
            Key::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), covered, &mut signature)
                    .expect("the signature has the length of the key");
                signature
            }
            // RFC 8463, 3: what is signed is the hash.
            Key::Ed25519(key) => key.sign(&Sha256::digest(covered)).as_ref().to_vec(),
        }
    }
}

/// Names in small letters and relaxed values, in their order.
fn headers(head: &str) -> Vec<(String, String)> {
    let mut headers: Vec<(String, String)> = Vec::new();
    for line in head.split_terminator("\r\n") {
        match headers.last_mut() {
            Some((_, value)) if line.starts_with([' ', '\t']) => value.push_str(line),
            _ => {
                let (name, value) = line.split_once(':').unwrap_or((line, ""));
                headers.push((name.trim_end().to_ascii_lowercase(), value.to_owned()));
            }
        }
    }
    for (_, value) in &mut headers {
        *value = relaxed(value);
    }
    headers
}

/// RFC 6376, 3.4.2: on one line, every run of blanks one space, none at the ends.
fn relaxed(value: &str) -> String {
    value.split([' ', '\t', '\r', '\n']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// RFC 6376, 3.4.4: runs of blanks are one space, none at a line's end; no empty lines at the end.
fn body_hash(body: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    let mut empty_lines = 0;
    let mut line = Vec::with_capacity(1024);
    for raw in body.split_inclusive(|&byte| byte == b'\n') {
        line.clear();
        let raw = raw.strip_suffix(b"\r\n").or_else(|| raw.strip_suffix(b"\n")).unwrap_or(raw);
        let is_blank = |byte: u8| matches!(byte, b' ' | b'\t');
        for &byte in raw {
            match (is_blank(byte), line.last()) {
                (true, Some(b' ')) => {}
                (true, _) => line.push(b' '),
                (false, _) => line.push(byte),
            }
        }
        if line.last() == Some(&b' ') {
            line.pop();
        }
        if line.is_empty() {
            empty_lines += 1;
            continue;
        }
        for _ in 0..std::mem::take(&mut empty_lines) {
            hasher.update(b"\r\n");
        }
        hasher.update(&line);
        hasher.update(b"\r\n");
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests;
