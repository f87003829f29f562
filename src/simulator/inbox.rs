//! The sandbox inbox: a page that shows what was taken, as a person would see it.
//!
//! The page asks `/_sim/taken` like any other client and puts values in as text only. A mail's HTML is a page of its
//! own in a frame: no scripts, nothing from elsewhere.

use std::fmt::Write as _;
use std::sync::LazyLock;

use base64::Engine as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::answer::Answer;
use super::request::{Method, Request};
use super::stage::Stage;

const PAGE: &str = include_str!("inbox.html");
const PATH: &str = "/_sim/inbox";
const HTML: &str = "text/html; charset=utf-8";

/// The page may run its own script and style, and ask the simulator; nothing else.
static PAGE_POLICY: LazyLock<String> = LazyLock::new(|| {
    let mut policy = String::from("default-src 'none'; connect-src 'self'; frame-src 'self'; base-uri 'none'");
    for (directive, element) in [("script-src", "script"), ("style-src", "style")] {
        let text =
            PAGE.split_once(&format!("<{element}>")).and_then(|(_, rest)| rest.split_once(&format!("</{element}>")));
        let hash = Sha256::digest(text.map_or("", |(text, _)| text));
        // Writing to a String cannot fail.
        let _ = write!(policy, "; {directive} 'sha256-{}'", base64::engine::general_purpose::STANDARD.encode(hash));
    }
    policy
});

/// A mail may have its own styles and pictures inside it, as most mail clients show one from a stranger.
const MAIL_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; \
                           form-action 'none'; frame-ancestors 'self'; sandbox";

pub(super) fn owns(path: &str) -> bool {
    path.strip_prefix(PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

pub(super) fn answer(stage: &Stage, request: &Request) -> Answer {
    let rest = request.path().strip_prefix(PATH).unwrap_or_default().trim_matches('/');
    if request.method != Method::Get {
        return Answer::json(405, &json!({ "error": "not with this method" }));
    }
    let (page, policy) = match rest.parse() {
        _ if rest.is_empty() => (PAGE.to_owned(), PAGE_POLICY.clone()),
        Ok(n) => match stage.record.get(n).and_then(|taken| taken.html) {
            Some(html) => (html, MAIL_POLICY.to_owned()),
            None => return not_found(),
        },
        Err(_) => return not_found(),
    };
    Answer { security_policy: Some(policy), ..Answer::new(200, HTML, page) }
}

fn not_found() -> Answer {
    Answer::json(404, &json!({ "error": "no such mail, or not kept any more" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_builds_no_html() {
        assert_eq!(PAGE.matches("<script>").count() + PAGE.matches("<style>").count(), 2);
        for never in ["http://", "https://", "innerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!PAGE.contains(never), "{never}");
        }
        assert_eq!(PAGE_POLICY.matches("'sha256-").count(), 2);
    }
}
