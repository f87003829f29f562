//! What can be wrong with a template, and with one rendering of it.

use std::fmt;

use crate::domain::Channel;

/// A place in a template's source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// JSON pointer into the template's body: `/text`, `/whatsappTemplate/body/0`; empty for the body itself.
    pub part: String,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part.as_str() {
            "" => f.write_str("template"),
            part => write!(f, "{part}, line {}, column {}", self.line, self.column),
        }
    }
}

/// One thing its author has to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateProblem {
    pub place: Place,
    pub message: String,
}

impl fmt::Display for TemplateProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Everything its author has to mend, in the order of the body. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct TemplateProblems(pub Vec<TemplateProblem>);

/// Why one message could not be made. None of them goes away by trying again with the same template and data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    #[error("the template holds nothing that {channel} could send")]
    NoBody { channel: Channel },
    /// The template prints or uses a value that the data does not hold, or holds as null.
    #[error("`{variable}` is missing ({place})")]
    Missing { variable: String, place: Place },
    /// The template asks for what cannot be done: a list printed, a number divided by zero.
    #[error("{message} ({place})")]
    Failed { message: String, place: Place },
    #[error("the template took more than its {fuel} units of work ({place})")]
    TooMuchWork { fuel: u64, place: Place },
    #[error("{part} grew past {limit_bytes} bytes")]
    TooBig { part: String, limit_bytes: usize },
    /// Rendered, but longer than its channel takes. The unit is the channel's: characters, or UTF-16 units at Telegram.
    #[error("{part} is {length} characters long; {channel} takes {limit}")]
    TooLong { part: String, channel: Channel, limit: usize, length: usize },
    #[error("{part} came out empty")]
    Empty { part: String },
    /// The template itself is broken.
    #[error("the template is broken")]
    Broken(#[source] TemplateProblems),
    #[error("the data to render is not an object")]
    NotAnObject,
}

impl RenderError {
    /// JSON pointer into the template's body of the part at fault, where it is one.
    pub fn part(&self) -> Option<&str> {
        match self {
            RenderError::Missing { place, .. }
            | RenderError::Failed { place, .. }
            | RenderError::TooMuchWork { place, .. } => Some(&place.part),
            RenderError::TooBig { part, .. } | RenderError::TooLong { part, .. } | RenderError::Empty { part } => {
                Some(part)
            }
            RenderError::Broken(problems) => problems.0.first().map(|problem| problem.place.part.as_str()),
            RenderError::NoBody { .. } | RenderError::NotAnObject => None,
        }
    }

    /// Where in the part, if it is at one place.
    pub fn place(&self) -> Option<&Place> {
        match self {
            RenderError::Missing { place, .. }
            | RenderError::Failed { place, .. }
            | RenderError::TooMuchWork { place, .. } => Some(place),
            RenderError::Broken(problems) => problems.0.first().map(|problem| &problem.place),
            RenderError::NoBody { .. }
            | RenderError::TooBig { .. }
            | RenderError::TooLong { .. }
            | RenderError::Empty { .. }
            | RenderError::NotAnObject => None,
        }
    }

    /// The variable that was missing.
    pub fn variable(&self) -> Option<&str> {
        match self {
            RenderError::Missing { variable, .. } => Some(variable),
            _ => None,
        }
    }
}
