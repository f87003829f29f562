//! A template version ready to render: every part of every variant, and which variant is whose.

use minijinja::Environment;

use super::attachments::{self, AttachmentPart, AttachmentParts, Written};
use super::filters::{Language, USUAL};
use super::html::{Link, SourceMap};
use super::parts::{
    EMAIL_ATTACHMENTS, EMAIL_HTML, EMAIL_SUBJECT, EMAIL_TEXT, Form, Part, SMS_TEXT, TELEGRAM_HTML, TEXT, WHATSAPP_TEXT,
    at_start, attachment_pointer, body_pointer, button_pointer, header_pointer, message_of,
};
use super::position::place_of_error;
use super::{Engine, TemplateProblem};
use crate::domain::Channel;
use crate::domain::template::{AttachmentBody, TemplateBody, TemplateVariant, WhatsAppTemplate};

pub(super) struct Compiled {
    pub(super) environment: Environment<'static>,
    /// The main one first.
    variants: Vec<Variant>,
}

/// The bodies of one language.
pub(super) struct Variant {
    pub(super) locale: Option<String>,
    /// As locales are compared.
    key: Option<String>,
    /// None if the filters do not know it.
    pub(super) language: Option<Language>,
    pub(super) text: Option<CompiledPart>,
    /// The same text where WhatsApp reads marks in it.
    pub(super) text_for_whatsapp: Option<CompiledPart>,
    pub(super) sms_text: Option<CompiledPart>,
    pub(super) whatsapp_text: Option<CompiledPart>,
    pub(super) whatsapp_template: Option<ApprovedParts>,
    pub(super) telegram_html: Option<CompiledPart>,
    pub(super) email: Option<EmailParts>,
}

pub(super) struct ApprovedParts {
    pub(super) template: WhatsAppTemplate,
    pub(super) header: Vec<CompiledPart>,
    pub(super) body: Vec<CompiledPart>,
    pub(super) buttons: Vec<CompiledPart>,
}

pub(super) struct EmailParts {
    pub(super) subject: CompiledPart,
    pub(super) html: Option<CompiledPart>,
    pub(super) text: CompiledPart,
    pub(super) attachments: Vec<AttachmentParts>,
}

pub(super) struct CompiledPart {
    /// In the environment.
    pub(super) name: String,
    /// JSON pointer into the body.
    pub(super) pointer: String,
    /// As its author wrote it, with the way back to it, where what is rendered is not that.
    pub(super) origin: Option<(String, SourceMap)>,
    pub(super) links: Vec<Link>,
    /// Made from HTML, so that what a block left out can leave empty lines.
    pub(super) is_derived: bool,
}

impl Compiled {
    /// The nearest variant to `locale` that has something for `channel`: the locale itself, what is left of it when its
    /// last parts go one by one, the main variant.
    pub(super) fn choose(&self, locale: Option<&str>, channel: Channel) -> Option<&Variant> {
        /// Longer than any locale.
        const LONGEST: usize = 64;
        let key = locale.filter(|locale| locale.len() <= LONGEST).map(locale_key);
        let mut wanted = key.as_deref();
        while let Some(key) = wanted {
            let fits = |variant: &&Variant| variant.key.as_deref() == Some(key) && variant.serves(channel);
            if let Some(variant) = self.variants.iter().find(fits) {
                return Some(variant);
            }
            wanted = key.rsplit_once('-').map(|(shorter, _)| shorter);
        }
        self.variants.first().filter(|variant| variant.serves(channel))
    }
}

/// Case and `_` or `-` tell no locales apart.
pub(super) fn locale_key(locale: &str) -> String {
    locale.to_ascii_lowercase().replace('_', "-")
}

impl Variant {
    /// What a channel's message is made of.
    pub(super) fn parts(&self, channel: Channel) -> Vec<&CompiledPart> {
        fn text<'a>(own: &'a Option<CompiledPart>, common: &'a Option<CompiledPart>) -> Option<&'a CompiledPart> {
            own.as_ref().or(common.as_ref())
        }
        match (channel, &self.whatsapp_template, &self.email) {
            (Channel::WhatsApp, Some(approved), _) => {
                approved.header.iter().chain(&approved.body).chain(&approved.buttons).collect()
            }
            (Channel::Email, _, Some(email)) => {
                [Some(&email.subject), email.html.as_ref(), Some(&email.text)].into_iter().flatten().collect()
            }
            (Channel::WhatsApp, ..) => text(&self.whatsapp_text, &self.text_for_whatsapp).into_iter().collect(),
            (Channel::Telegram, ..) => text(&self.telegram_html, &self.text).into_iter().collect(),
            (Channel::Sms, ..) => text(&self.sms_text, &self.text).into_iter().collect(),
            (Channel::Email, ..) => Vec::new(),
        }
    }

    fn serves(&self, channel: Channel) -> bool {
        match channel {
            Channel::WhatsApp => {
                self.whatsapp_template.is_some() || self.whatsapp_text.is_some() || self.text.is_some()
            }
            Channel::Telegram => self.telegram_html.is_some() || self.text.is_some(),
            Channel::Sms => self.sms_text.is_some() || self.text.is_some(),
            Channel::Email => self.email.is_some(),
        }
    }
}

impl Engine {
    /// The error is the first mistake: a saved template was checked, but perhaps by an earlier release.
    pub(super) fn compile(&self, body: &TemplateBody) -> Result<Compiled, TemplateProblem> {
        let mut compiler = Compiler { engine: self, environment: self.language().clone() };
        let variants = body
            .variants()
            .map(|(locale, pointer, variant)| compiler.variant(locale, &pointer, variant))
            .collect::<Result<_, _>>()?;
        Ok(Compiled { environment: compiler.environment, variants })
    }
}

struct Compiler<'a> {
    engine: &'a Engine,
    environment: Environment<'static>,
}

impl Compiler<'_> {
    fn variant(
        &mut self,
        locale: Option<&str>,
        at: &str,
        variant: &TemplateVariant,
    ) -> Result<Variant, TemplateProblem> {
        let mut part = |pointer: &str, source: &Option<String>, form| {
            source.as_ref().map(|source| self.part(format!("{at}{pointer}"), source, form)).transpose()
        };
        let text = part(TEXT, &variant.text, Form::Plain)?;
        let text_for_whatsapp = part(TEXT, &variant.text, Form::WhatsApp)?;
        let sms_text = part(SMS_TEXT, &variant.sms_text, Form::Plain)?;
        let whatsapp_text = part(WHATSAPP_TEXT, &variant.whatsapp_text, Form::WhatsApp)?;
        let telegram_html = part(TELEGRAM_HTML, &variant.telegram_html, Form::TelegramHtml)?;
        let whatsapp_template = variant.whatsapp_template.as_ref().map(|template| self.approved(at, template));
        let email = self.email(at, variant)?;
        Ok(Variant {
            locale: locale.map(str::to_owned),
            key: locale.map(locale_key),
            language: locale.map_or(Some(USUAL), Language::of_locale),
            text,
            text_for_whatsapp,
            sms_text,
            whatsapp_text,
            whatsapp_template: whatsapp_template.transpose()?,
            telegram_html,
            email,
        })
    }

    fn approved(&mut self, at: &str, template: &WhatsAppTemplate) -> Result<ApprovedParts, TemplateProblem> {
        let mut lines = |pointer: fn(usize) -> String, sources: Vec<&String>| {
            let lines = sources.into_iter().enumerate();
            lines
                .map(|(n, source)| self.part(format!("{at}{}", pointer(n)), source, Form::Plain))
                .collect::<Result<_, _>>()
        };
        Ok(ApprovedParts {
            header: lines(header_pointer, template.header.iter().collect())?,
            body: lines(body_pointer, template.body.iter().collect())?,
            buttons: lines(button_pointer, template.buttons.iter().map(|button| &button.value).collect())?,
            template: template.clone(),
        })
    }

    fn email(&mut self, at: &str, variant: &TemplateVariant) -> Result<Option<EmailParts>, TemplateProblem> {
        let Some(email) = &variant.email else { return Ok(None) };
        let subject = self.part(format!("{at}{EMAIL_SUBJECT}"), &email.subject, Form::Plain)?;
        let mut html = None;
        let mut text = None;
        if let Some(source) = &email.html {
            let pointer = format!("{at}{EMAIL_HTML}");
            let part = Part { pointer: pointer.clone(), source, form: Form::EmailHtml };
            let ready = self.engine.ready(&part, email.text.is_none())?;
            if let Some((derived, map)) = ready.text {
                let origin = Some((source.clone(), map));
                // Named after the HTML, which is what its author has to mend.
                let name = format!("{pointer}.text");
                let part = CompiledPart { name, pointer: pointer.clone(), origin, links: Vec::new(), is_derived: true };
                text = Some(self.add(part, derived)?);
            }
            let origin = ready.map.map(|map| (source.clone(), map));
            let name = pointer.clone() + Form::EmailHtml.suffix();
            let part = CompiledPart { name, pointer, origin, links: ready.links, is_derived: false };
            html = Some(self.add(part, ready.source)?);
        }
        if let Some(source) = &email.text {
            text = Some(self.part(format!("{at}{EMAIL_TEXT}"), source, Form::Plain)?);
        }
        let attachments = email.attachments.iter().enumerate();
        let attachments =
            attachments.map(|(n, attachment)| self.attachment(at, n, attachment)).collect::<Result<_, _>>()?;
        // Without both there is nothing to send; `check` says so.
        Ok(text.map(|text| EmailParts { subject, html, text, attachments }))
    }

    fn attachment(
        &mut self,
        at: &str,
        n: usize,
        attachment: &AttachmentBody,
    ) -> Result<AttachmentParts, TemplateProblem> {
        let mut part = |field, source| self.part(format!("{at}{}", attachment_pointer(n, field)), source, Form::Plain);
        let name = part("name", &attachment.name)?;
        let written = attachments::read(attachment);
        let source = match written.map_err(|problem| at_start(&format!("{at}{EMAIL_ATTACHMENTS}/{n}"), problem))? {
            Written::Url(url) => AttachmentPart::Url(part("url", url)?),
            Written::Inline { content_type, bytes } => {
                AttachmentPart::Inline { content_type: content_type.to_owned(), bytes: bytes.into() }
            }
        };
        Ok(AttachmentParts { name, source })
    }

    fn part(&mut self, pointer: String, source: &str, form: Form) -> Result<CompiledPart, TemplateProblem> {
        let ready = self.engine.ready(&Part { pointer: pointer.clone(), source, form }, false)?;
        let origin = ready.map.map(|map| (source.to_owned(), map));
        let name = pointer.clone() + form.suffix();
        self.add(CompiledPart { name, pointer, origin, links: ready.links, is_derived: false }, ready.source)
    }

    fn add(&mut self, part: CompiledPart, source: String) -> Result<CompiledPart, TemplateProblem> {
        match self.environment.add_template_owned(part.name.clone(), source.clone()) {
            Ok(()) => Ok(part),
            Err(error) => Err(TemplateProblem {
                place: place_of_error(&part.pointer, &source, &error),
                message: message_of(&error),
            }),
        }
    }
}
