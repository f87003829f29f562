//! A template's HTML with each piece of template code as one character.
//!
//! What the template prints where is not known before it is rendered, but where it prints is. So the HTML is read with
//! every `{{ … }}` and `{% … %}` standing for itself, and comments and `raw` marks, which print nothing, left out.
//! Read with minijinja's own tokenizer, so that both see the same code.

use std::ops::Range;

use minijinja::machinery::{Token, tokenize};

/// Stands for the n-th piece of code. Nobody assigns characters on the plane it begins.
const FIRST: u32 = 0xF_0000;
/// How many pieces the plane can tell apart; `grammar` lets through far fewer.
const PLANE: u32 = 0xFFFE;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CodeKind {
    /// `{{ … }}`.
    Expression,
    /// `if`, `for`.
    Open,
    /// `elif`, `else`.
    Middle,
    /// `endif`, `endfor`.
    Close,
    /// `set x` with a body up to `endset`.
    Capture,
    EndCapture,
    /// `set x = …`.
    Statement,
}

#[derive(Clone, Debug)]
pub(super) struct Code {
    pub(super) kind: CodeKind,
    /// In the source.
    pub(super) range: Range<usize>,
}

/// The HTML, flattened.
pub(super) struct Flat {
    pub(super) text: String,
    pub(super) code: Vec<Code>,
    /// Where pieces of `text` begin, and where in the source they come from.
    pieces: Vec<(usize, usize)>,
}

impl Flat {
    /// `source` has passed `grammar`. The error is the offset of a character that cannot be told from code.
    pub(super) fn of(source: &str) -> Result<Flat, usize> {
        if let Some((at, _)) = source.char_indices().find(|&(_, c)| code_at(c).is_some()) {
            return Err(at);
        }
        let mut flat = Flat { text: String::new(), code: Vec::new(), pieces: Vec::new() };
        let mut open: Option<(usize, CodeKind)> = None;
        let mut words = Vec::new();
        for token in tokenize(source, false, minijinja::syntax::SyntaxConfig::default()) {
            let Ok((token, span)) = token else { break };
            let range = span.start_offset as usize..span.end_offset as usize;
            match token {
                Token::TemplateData(_) => {
                    flat.pieces.push((flat.text.len(), range.start));
                    flat.text.push_str(&source[range]);
                }
                Token::VariableStart => open = Some((range.start, CodeKind::Expression)),
                Token::BlockStart => {
                    open = Some((range.start, CodeKind::Statement));
                    words.clear();
                }
                Token::VariableEnd | Token::BlockEnd => {
                    if let Some((start, kind)) = open.take() {
                        let kind = if kind == CodeKind::Statement { statement(&words) } else { kind };
                        flat.pieces.push((flat.text.len(), start));
                        flat.text.push(stand_in(flat.code.len()));
                        flat.code.push(Code { kind, range: start..range.end });
                    }
                }
                token if words.len() < 3 => words.push(token),
                _ => {}
            }
        }
        Ok(flat)
    }

    /// Where in the source the character at `at` in the text comes from.
    pub(super) fn source_offset(&self, at: usize) -> usize {
        let piece = self.pieces.partition_point(|&(start, _)| start <= at).checked_sub(1);
        piece.map_or(0, |piece| {
            let (start, source) = self.pieces[piece];
            source + (at - start)
        })
    }

    /// The code that stands at this place of the text.
    pub(super) fn code_at(&self, at: usize) -> Option<&Code> {
        self.text[at..].chars().next().and_then(code_at).map(|n| &self.code[n])
    }
}

/// The number of the code that `c` stands for.
pub(super) fn code_at(c: char) -> Option<usize> {
    u32::from(c).checked_sub(FIRST).filter(|&n| n < PLANE).map(|n| n as usize)
}

fn stand_in(n: usize) -> char {
    let n = u32::try_from(n).unwrap_or(PLANE).min(PLANE - 1);
    char::from_u32(FIRST + n).expect("the plane is whole")
}

fn statement(words: &[Token<'_>]) -> CodeKind {
    match words {
        [Token::Ident("if" | "for"), ..] => CodeKind::Open,
        [Token::Ident("elif" | "else"), ..] => CodeKind::Middle,
        [Token::Ident("endif" | "endfor"), ..] => CodeKind::Close,
        [Token::Ident("endset"), ..] => CodeKind::EndCapture,
        [Token::Ident("set"), _, Token::Assign] => CodeKind::Statement,
        [Token::Ident("set"), ..] => CodeKind::Capture,
        _ => CodeKind::Statement,
    }
}
