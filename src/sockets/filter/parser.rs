//! The grammar of a filter.
//!
//! ```text
//! list    = operand { [ "and" | "or" ] operand } | states list
//! operand = { "not" } ( "(" list ")" | states | condition )
//! states  = { ( "state" | "exclude" ) NAME { "," NAME } }
//! ```
//!
//! `and` and `or` bind alike, from left to right, as ss(8) reads them (its man page says
//! otherwise); `not` binds to what follows it. States at the head of a list, with no
//! connective behind them, hold for all of the list.

use super::ast::{Condition, Expr, Op};
use super::error::{FilterError, quoted};
use super::fields::canonical;
use super::lexer::{Lexer, Span, Token, Value};
use super::nearest::nearest;
use super::states::StateSet;
use super::{Context, Note};

/// How deep parentheses, `not` and changes between `and` and `or` may nest.
const DEEPEST: usize = 100;

/// What is parsed, with how deep it nests.
pub(super) struct Parsed {
    pub(super) expr: Expr,
    pub(super) depth: usize,
}

impl From<Condition> for Parsed {
    fn from(condition: Condition) -> Self {
        Self { expr: Expr::Is(condition), depth: 1 }
    }
}

pub(super) struct Parser<'a> {
    pub(super) lexer: Lexer<'a>,
    pub(super) context: &'a Context<'a>,
    notes: Vec<Note>,
    text: &'a str,
}

pub(super) type Result<T> = std::result::Result<T, FilterError>;

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str, context: &'a Context<'a>) -> Self {
        Self { lexer: Lexer::new(text), context, notes: Vec::new(), text }
    }

    /// The whole of a filter; None where it is empty.
    pub(super) fn filter(mut self) -> Result<(Option<Expr>, Vec<Note>)> {
        if self.lexer.peek().0 == Token::End {
            return Ok((None, self.notes));
        }
        let Parsed { expr, .. } = self.list(1)?;
        let (token, span) = self.lexer.peek();
        if token != Token::End {
            return Err(self.lexer.error(span, "this ')' closes no parenthesis"));
        }
        Ok((Some(expr), self.notes))
    }

    fn list(&mut self, level: usize) -> Result<Parsed> {
        let starts_with_states = self.next_is_states();
        let mut parsed = self.operand(level)?;
        if starts_with_states && self.next_is_operand() {
            let rest = self.list(level)?;
            let depth = parsed.depth.max(rest.depth) + 1;
            return Ok(Parsed { expr: parsed.expr.and(rest.expr), depth });
        }
        // Whether the last connective was an `or`, which an `and` now takes in whole.
        let mut after_or = false;
        loop {
            let (token, span) = self.lexer.peek();
            let is_or = match token {
                Token::End | Token::Close => return Ok(parsed),
                Token::Or => true,
                _ => false,
            };
            if matches!(token, Token::Or | Token::And) {
                self.lexer.take(span);
            }
            if after_or && !is_or {
                self.notes.push(Note::at(self.text, span.from));
            }
            after_or = is_or;
            let next = self.operand(level)?;
            // Expressions of one kind become one; a change of kind puts what was parsed
            // within another.
            let deepens = match (&parsed.expr, is_or) {
                (Expr::Any(_), true) | (Expr::All(_), false) => 0,
                _ => 1,
            };
            let depth = (parsed.depth + deepens).max(next.depth + 1);
            if depth > DEEPEST {
                return Err(self.too_deep(span));
            }
            let expr = if is_or {
                parsed.expr.or(next.expr)
            } else {
                parsed.expr.and(next.expr)
            };
            parsed = Parsed { expr, depth };
        }
    }

    fn operand(&mut self, level: usize) -> Result<Parsed> {
        let (token, span) = self.lexer.peek();
        if level > DEEPEST {
            return Err(self.too_deep(span));
        }
        match token {
            Token::Open => {
                self.lexer.take(span);
                let parsed = self.list(level + 1)?;
                let (token, end) = self.lexer.peek();
                if token != Token::Close {
                    // A list ends at a parenthesis or at the end.
                    return Err(self.lexer.error(span, "this '(' is not closed"));
                }
                self.lexer.take(end);
                Ok(parsed)
            }
            Token::Not => {
                self.lexer.take(span);
                let Parsed { expr, depth } = self.operand(level + 1)?;
                Ok(Parsed { expr: Expr::Not(Box::new(expr)), depth: depth + 1 })
            }
            Token::Name(_) if self.next_is_states() => self.states(),
            Token::Name(name) => {
                self.lexer.take(span);
                self.condition(name, span)
            }
            Token::End | Token::Close | Token::And | Token::Or | Token::Stray => {
                Err(self.no_operand(token, span))
            }
        }
    }

    fn next_is_states(&mut self) -> bool {
        match self.lexer.peek().0 {
            Token::Name(name) => matches!(canonical(name).as_str(), "state" | "exclude"),
            _ => false,
        }
    }

    fn next_is_operand(&mut self) -> bool {
        matches!(self.lexer.peek().0, Token::Open | Token::Not | Token::Name(_))
    }

    /// `state` adds, `exclude` takes away, from left to right, as in ss.
    fn states(&mut self) -> Result<Parsed> {
        let mut set = None;
        while let (Token::Name(word), span) = self.lexer.peek()
            && self.next_is_states()
        {
            self.lexer.take(span);
            let is_exclude = canonical(word) == "exclude";
            // ss has no operator here; people write one.
            if let Some((op, span)) = self.lexer.operator()
                && op != Op::Eq
            {
                let message = format!("{word} takes a state's name; exclude takes away");
                return Err(self.lexer.error(span, message));
            }
            let Some(value) = self.lexer.value()? else {
                let message = format!("{word} needs a state: {}", state_names());
                return Err(self.missing(message));
            };
            let named = self.named_states(&value)?;
            set = Some(match (set, is_exclude) {
                (None, false) => named,
                (None, true) => StateSet::ALL.without(named),
                (Some(set), false) => named.or(set),
                (Some(set), true) => set.without(named),
            });
        }
        Ok(Condition::State(set.unwrap_or(StateSet::ALL)).into())
    }

    fn named_states(&self, value: &Value) -> Result<StateSet> {
        let mut all = StateSet::NONE;
        for name in value.text.split(',') {
            let Some(states) = StateSet::of_name(name) else {
                let meant = nearest(&canonical(name), StateSet::names())
                    .map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
                let names = state_names();
                let end = if meant.is_empty() { ";" } else { "" };
                let message = format!(
                    "{} is no state{meant}{end} there are: {names}",
                    quoted(name)
                );
                return Err(self.lexer.error(value.span, message));
            };
            all = all.or(states);
        }
        Ok(all)
    }

    /// That something is missing where it would come next.
    pub(super) fn missing(&mut self, message: String) -> FilterError {
        let here = self.lexer.here();
        self.lexer.error(here, message)
    }

    fn too_deep(&self, span: Span) -> FilterError {
        self.lexer.error(span, format!("this nests more than {DEEPEST} levels deep"))
    }

    fn no_operand(&self, token: Token<'_>, span: Span) -> FilterError {
        let found = self.text.get(span.from..span.to).unwrap_or_default();
        let message = match token {
            Token::End => "a condition is missing at the end, as sport = :80".into(),
            Token::Close => "a condition is missing before this ')'".into(),
            Token::Stray => {
                format!("{} needs a field before it, as sport = :80", quoted(found))
            }
            _ => format!("{} needs a condition before it, as sport = :80", quoted(found)),
        };
        self.lexer.error(span, message)
    }
}

fn state_names() -> String {
    StateSet::names().collect::<Vec<_>>().join(", ")
}
