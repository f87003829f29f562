//! Files that go along with an email.

use serde_json::json;

use super::{engine, made};
use crate::domain::template::{AttachmentBody, EmailBody, TemplateBody, TemplateVariant};
use crate::domain::{Attachment, AttachmentSource, Channel, Content};

fn with(attachments: Vec<AttachmentBody>) -> TemplateBody {
    let email = EmailBody { subject: "s".into(), text: Some("t".into()), attachments, ..EmailBody::default() };
    TemplateVariant { email: Some(email), ..TemplateVariant::default() }.into()
}

fn linked(name: &str, url: &str) -> AttachmentBody {
    AttachmentBody { name: name.into(), url: Some(url.into()), ..AttachmentBody::default() }
}

fn given(content_type: &str, base64: &str) -> AttachmentBody {
    let (content_type, content_base64) = (Some(content_type.into()), Some(base64.into()));
    AttachmentBody { name: "a.csv".into(), content_type, content_base64, ..AttachmentBody::default() }
}

#[test]
fn names_and_urls_are_filled_in_and_files_come_along() {
    let body = with(vec![
        linked("Счёт {{ deal.number }}.pdf", "https://crm.example.com/bills/{{ deal.number }}.pdf"),
        given("text/csv", "YTti"),
    ]);
    let checked = engine().check(&body).expect("fine");
    assert_eq!(checked.variables, ["deal.number"]);
    let data = json!({ "deal": { "number": "4\r\n2" } });
    let Ok(Content::Email(email)) = made(&body, Channel::Email, &json!({ "deal": { "number": 42 } })) else { panic!() };
    assert_eq!(
        email.attachments,
        [
            Attachment {
                name: "Счёт 42.pdf".into(),
                source: AttachmentSource::Url("https://crm.example.com/bills/42.pdf".into()),
            },
            Attachment {
                name: "a.csv".into(),
                source: AttachmentSource::Inline { content_type: "text/csv".into(), bytes: (*b"a;b").into() },
            },
        ]
    );
    insta::assert_snapshot!(made(&body, Channel::Email, &data).expect_err("no URL"), @"the URL of an attachment has to begin with http:// or https://, all in ASCII (/email/attachments/0/url, line 1, column 1)");
    insta::assert_snapshot!(made(&body, Channel::Email, &json!({})).expect_err("missing"), @"`deal.number` is missing (/email/attachments/0/name, line 1, column 9)");
}

#[test]
fn every_mistake_is_named_when_the_template_is_saved() {
    let body = with(vec![
        AttachmentBody { name: "a".into(), ..AttachmentBody::default() },
        AttachmentBody { url: Some("https://x".into()), ..given("text/csv", "YTti") },
        given("csv", "YTti"),
        given("text/csv; x=\"\r\n\"", "YTti"),
        given("text/csv", "no base64!"),
        linked(" ", "https://x/{{ "),
    ]);
    let problems = engine().check(&body).expect_err("wrong");
    let said: Vec<_> = problems.0.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(said.join("\n"), @r"
    /email/attachments/0, line 1, column 1: give either url, or contentType and contentBase64
    /email/attachments/1, line 1, column 1: give either url, or contentType and contentBase64
    /email/attachments/2, line 1, column 1: contentType is like application/pdf
    /email/attachments/3, line 1, column 1: contentType is like application/pdf
    /email/attachments/4, line 1, column 1: contentBase64 is not base64
    /email/attachments/5/name, line 1, column 1: is empty
    /email/attachments/5/url, line 1, column 11: unexpected end of input, expected expression
    ");
    let many = with(vec![linked("a", "https://x"); 21]);
    insta::assert_snapshot!(engine().check(&many).expect_err("too many"), @"/email/attachments, line 1, column 1: at most 20 attachments");
}
