//! A filter as the parser reads it: connectives and names, operators, values.
//!
//! ss(8) wants white space around everything. Here it may be left out where it is not
//! needed; a value ends at white space, a parenthesis, `&` or `|` that is not quoted.

use super::ast::Op;
use super::error::FilterError;

/// The bytes that something takes in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: usize,
    pub(super) to: usize,
}

/// What can stand where a condition may begin or end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    End,
    Open,
    Close,
    And,
    Or,
    Not,
    /// A name.
    Name(&'a str),
    /// An operator, or another character that begins no condition.
    Stray,
}

/// A value and where it stands. A backslash that keeps a special character of a glob
/// pattern from being one is left in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) text: String,
    pub(super) span: Span,
}

#[derive(Debug)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

/// Characters that a glob pattern gives a meaning to.
pub(super) const GLOB: [char; 5] = ['*', '?', '[', ']', '\\'];

fn ends_value(c: char) -> bool {
    c.is_whitespace() || matches!(c, '(' | ')' | '&' | '|')
}

fn ends_name(c: char) -> bool {
    ends_value(c) || matches!(c, '!' | '=' | '<' | '>')
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) fn error(&self, span: Span, message: impl Into<String>) -> FilterError {
        FilterError::new(self.text, span.from, span.to, message.into())
    }

    /// Goes on after `span`.
    pub(super) fn take(&mut self, span: Span) {
        self.at = span.to;
    }

    /// The place that has been reached, without anything in it.
    pub(super) fn here(&mut self) -> Span {
        self.skip_space();
        Span { from: self.at, to: self.at }
    }

    /// What comes next, which stays there.
    pub(super) fn peek(&mut self) -> (Token<'a>, Span) {
        self.skip_space();
        let rest = self.rest();
        let symbol = |token, len: usize| (token, len);
        let (token, len) = match rest.chars().next() {
            None => symbol(Token::End, 0),
            Some('(') => symbol(Token::Open, 1),
            Some(')') => symbol(Token::Close, 1),
            Some('&') => symbol(Token::And, if rest.starts_with("&&") { 2 } else { 1 }),
            Some('|') => symbol(Token::Or, if rest.starts_with("||") { 2 } else { 1 }),
            Some('!') if rest.starts_with("!=") => symbol(Token::Stray, 2),
            Some('!') => symbol(Token::Not, 1),
            Some('=' | '<' | '>') => {
                let second = rest.as_bytes().get(1) == Some(&b'=');
                symbol(Token::Stray, if second { 2 } else { 1 })
            }
            Some(_) => {
                let len = rest.find(ends_name).unwrap_or(rest.len());
                let name = rest.get(..len).unwrap_or_default();
                (keyword(name), len)
            }
        };
        (token, Span { from: self.at, to: self.at + len })
    }

    /// The operator that comes next, where one does: it is taken.
    pub(super) fn operator(&mut self) -> Option<(Op, Span)> {
        self.skip_space();
        let rest = self.rest();
        let symbols = ["==", "!=", "<=", ">=", "=", "<", ">"];
        let symbol = symbols.into_iter().find(|symbol| rest.starts_with(symbol));
        let word = || rest.get(..rest.find(ends_value).unwrap_or(rest.len()));
        let word = symbol.or_else(word)?;
        let op = match word {
            "=" | "==" | "eq" => Op::Eq,
            "!=" | "ne" | "neq" => Op::Ne,
            "<" | "lt" => Op::Lt,
            "<=" | "le" | "leq" => Op::Le,
            ">" | "gt" => Op::Gt,
            ">=" | "ge" | "geq" => Op::Ge,
            _ => return None,
        };
        let span = Span { from: self.at, to: self.at + word.len() };
        self.take(span);
        Some((op, span))
    }

    /// The value that comes next: it is taken. None at the end, and where a connective or
    /// a parenthesis comes first.
    pub(super) fn value(&mut self) -> Result<Option<Value>, FilterError> {
        self.skip_space();
        let from = self.at;
        let mut text = String::new();
        let mut chars = self.rest().char_indices();
        let mut to = self.text.len();
        while let Some((offset, c)) = chars.next() {
            let at = from + offset;
            match c {
                _ if ends_value(c) => {
                    to = at;
                    break;
                }
                '\'' | '"' => loop {
                    match chars.next() {
                        Some((_, end)) if end == c => break,
                        Some((_, inside)) => text.push(inside),
                        None => {
                            let span = Span { from: at, to: self.text.len() };
                            let message = format!("the quote {c} is not closed");
                            return Err(self.error(span, message));
                        }
                    }
                },
                '\\' => match chars.next() {
                    Some((_, next)) => {
                        if GLOB.contains(&next) {
                            text.push('\\');
                        }
                        text.push(next);
                    }
                    None => {
                        let span = Span { from: at, to: at + 1 };
                        let message = "the backslash at the end has nothing to escape";
                        return Err(self.error(span, message));
                    }
                },
                _ => text.push(c),
            }
        }
        self.at = to;
        Ok((to > from).then_some(Value { text, span: Span { from, to } }))
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }
}

fn keyword(name: &str) -> Token<'_> {
    match name {
        _ if name.eq_ignore_ascii_case("and") => Token::And,
        _ if name.eq_ignore_ascii_case("or") => Token::Or,
        _ if name.eq_ignore_ascii_case("not") => Token::Not,
        _ => Token::Name(name),
    }
}

/// A value as it is written so that it is read as `text` again.
pub(super) fn written(text: &str) -> String {
    let plain = |c: char| !ends_value(c) && !c.is_control() && !matches!(c, '\'' | '"');
    let starts_plain = !text.starts_with(['=', '<', '>', '!']);
    if !text.is_empty() && starts_plain && text.chars().all(|c| plain(c) && c != '\\') {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\"'\"'"))
}
