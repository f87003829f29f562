//! Signatures with keys made for this test. Both algorithms are deterministic, so that what dkimpy (an implementation
//! of its own) verified once is verified for good.

use super::*;

const RSA: &str = include_str!("rsa.test.pem");
const ED25519: &str = include_str!("ed25519.test.pem");

/// Folded headers, runs of blanks, blanks at line ends, empty lines in the middle and at the end.
const MESSAGE: &str = "Date: Thu, 1 Jan 2026 00:00:00 +0000\r\nFrom: =?utf-8?B?0KHQtdCy0LXRgA==?=\r\n <news@example.com>\r\n\
    To: anna@example.org\r\nSubject: a  b\t c\r\nMessage-ID: <7@example.com>\r\nX-Unsigned: x\r\n\
    List-Unsubscribe: <https://example.com/u/7>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n\
    MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nHello  \t you \r\n\r\n \r\n.\r\nbye\r\n\r\n\r\n";

fn sign(pem: &str) -> String {
    let dkim = Dkim::new("s1", "example.com", pem).expect("a key");
    dkim.sign(MESSAGE.as_bytes(), Timestamp::from_second(1_767_225_600).expect("a time")).replace("\r\n", "\n")
}

#[test]
fn signatures_are_those_that_another_implementation_verified() {
    insta::assert_snapshot!(sign(ED25519), @"
    DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed; d=example.com; s=s1;
     t=1767225600; h=from:to:subject:date:message-id:list-unsubscribe:list-unsubscribe-post:mime-version:content-type;
     bh=nIhTcuyUgZsngRL2ReLFHLMywTHmrn/4b/FLMJLq3ZU=;
     b=VnLLCBlgv8TFcLQMn7cNJxSLlnXWqaWQCTCepedHYSn36FOw0zxyD2Lh7UICMxs0k8efCT91
     3qSZSAz9jn3PAA==
    ");
    insta::assert_snapshot!(sign(RSA), @"
    DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.com; s=s1;
     t=1767225600; h=from:to:subject:date:message-id:list-unsubscribe:list-unsubscribe-post:mime-version:content-type;
     bh=nIhTcuyUgZsngRL2ReLFHLMywTHmrn/4b/FLMJLq3ZU=;
     b=TE8kCVO9YfkHAiPSEI/wzKHvHaqQVAHeyILODlpswOpRMYmTfQE9ySY8KV2r1SBkjyGAGqpq
     Hz8LuCkXLJnq7nwy+AmI2ZITfX6zwAkVFMjdkOu5rIof/mp/MChYjnUEVvJNXRf719+FabeP
     Inswsn2LM/sUIWFYct/cCyZpaPJgoftBCrcF7BktLs8HNqMqzizqEA5VQID02CLHyUtuTOmh
     292Ctbrr/OycYnGSJeIpR3oZYx8vQuRfFXqiqkposWani88zZ7UfIJqp4nwvyEErbSB6qTlg
     mvtw5MVZkElT7jLnfU7GoSNgyIW8iTD6HLso/j8F49DunE+gpInrLQ==
    ");
}

#[test]
fn only_usable_keys_are_taken_and_none_is_repeated() {
    for pem in ["", "secret", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"] {
        let error = Dkim::new("s1", "example.com", pem).err().expect("refused");
        assert!(!error.contains("secret") && !error.contains("c2Vj"), "{error}");
    }
}

#[test]
fn an_empty_body_hashes_as_the_standard_says() {
    // RFC 6376, 3.4.4.
    let empty = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    for body in ["", "\r\n", "\r\n \t\r\n\r\n"] {
        assert_eq!(BASE64_STANDARD.encode(body_hash(body.as_bytes())), empty, "{body:?}");
    }
}
