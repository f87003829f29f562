//! What a person reads of an approved WhatsApp template: Meta's text with the parameters in it, as far as the template
//! has that text.

use super::warnings::placeholders;
use crate::domain::Content;
use crate::domain::message::RenderedWhatsAppTemplate;
use crate::domain::template::WhatsAppTemplate;

/// Header and body.
pub(super) fn whole(rendered: &RenderedWhatsAppTemplate, approved: &WhatsAppTemplate) -> String {
    let Some(body) = body(rendered, approved) else {
        return Content::WhatsAppTemplate(rendered.clone()).display_text();
    };
    let header = approved.header_text.as_ref().map(|text| with_parameters(text, &rendered.header));
    header.map_or(body.clone(), |header| format!("{header}\n\n{body}"))
}

pub(super) fn body(rendered: &RenderedWhatsAppTemplate, approved: &WhatsAppTemplate) -> Option<String> {
    approved.body_text.as_ref().map(|text| with_parameters(text, &rendered.body))
}

/// In one go, so that a value that looks like a placeholder stays a value.
fn with_parameters(text: &str, values: &[String]) -> String {
    let names = placeholders(text);
    let mut pieces = text.split("{{");
    let mut filled = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let value = piece.split_once("}}").and_then(|(name, rest)| {
            let at = names.iter().position(|known| *known == name.trim())?;
            Some((values.get(at)?, rest))
        });
        match value {
            Some((value, rest)) => {
                filled.push_str(value);
                filled.push_str(rest);
            }
            None => {
                filled.push_str("{{");
                filled.push_str(piece);
            }
        }
    }
    filled
}
