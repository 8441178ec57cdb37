//! Reads single conditions: a field, an operator where there is one, a value.

use super::ast::{Condition, End, Equality, Expr, Op};
use super::error::{FilterError, quoted};
use super::fields::{NumberField, TextField, canonical, names, nearest_field};
use super::lexer::{Span, Token, Value};
use super::parse_address::{addresses, port};
use super::parse_other::{cgroup_path, device, mark};
use super::parser::{Parsed, Parser, Result};
use super::pattern::Pattern;
use super::states::StateSet;

impl Parser<'_> {
    /// A condition, whose field's name was taken.
    pub(super) fn condition(&mut self, name: &str, span: Span) -> Result<Parsed> {
        let field = canonical(name);
        match field.as_str() {
            "src" => self.address(name, End::Local),
            "dst" => self.address(name, End::Remote),
            "sport" => self.port(name, End::Local),
            "dport" => self.port(name, End::Remote),
            "autobound" => Ok(Condition::Autobound.into()),
            "dev" => {
                let (equality, value) =
                    self.equality(name, "an interface, as dev eth0")?;
                let device = self.read(&value, |text| device(text, self.context))?;
                Ok(Condition::Device { equality, device }.into())
            }
            "fwmark" => {
                let (equality, given) =
                    self.equality(name, "a mark, as fwmark 0x10/0xff")?;
                let (value, mask) = self.read(&given, mark)?;
                Ok(Condition::Mark { equality, value, mask }.into())
            }
            _ => match (NumberField::of_name(&field), TextField::of_name(&field)) {
                (Some(field), _) => self.number(name, field),
                (_, Some(field)) => self.text(name, field),
                _ => Err(self.no_field(name, span)),
            },
        }
    }

    fn address(&mut self, name: &str, end: End) -> Result<Parsed> {
        let form =
            format!("an address, as {name} 10.0.0.0/8, {name} [::1]:80 or {name} :443");
        let (equality, value) = self.equality(name, &form)?;
        let patterns = self.read(&value, |text| addresses(text, self.context))?;
        let mut all = patterns
            .into_iter()
            .map(|pattern| Expr::Is(Condition::Address { end, equality, pattern }));
        let first =
            all.next().ok_or_else(|| self.missing(format!("{name} needs {form}")))?;
        let several = all.len() > 0;
        let expr = match equality {
            Equality::Same => all.fold(first, Expr::or),
            Equality::Other => all.fold(first, Expr::and),
        };
        Ok(Parsed { expr, depth: if several { 2 } else { 1 } })
    }

    fn port(&mut self, name: &str, end: End) -> Result<Parsed> {
        let form = format!("a port, as {name} = :80 or {name} > 1023");
        let (op, op_span) = self.comparison();
        let value = self.needed(name, &form, op_span)?;
        let port = self.read(&value, |text| port(text, self.context))?;
        if port.port.is_none() && !matches!(op, Op::Eq | Op::Ne) {
            let message = format!("{name} {op} needs a port: * is every one");
            return Err(self.lexer.error(op_span, message));
        }
        Ok(Condition::Port { end, op, port }.into())
    }

    fn number(&mut self, name: &str, field: NumberField) -> Result<Parsed> {
        let unit = field.unit();
        let (op, op_span) = self.comparison();
        let given = self.needed(name, unit.form(), op_span)?;
        let value = self.read(&given, |text| {
            let form = unit.form();
            unit.parse(text).ok_or_else(|| format!("{} is not {form}", quoted(text)))
        })?;
        Ok(Condition::Number { field, op, value }.into())
    }

    fn text(&mut self, name: &str, field: TextField) -> Result<Parsed> {
        let (equality, value) = self.equality(name, field.form())?;
        if value.text.is_empty() {
            let message = format!("{name} needs {}", field.form());
            return Err(self.lexer.error(value.span, message));
        }
        let pattern = match field {
            TextField::Cgroup => Pattern::new(&cgroup_path(&value.text)),
            _ => Pattern::new(&value.text),
        };
        Ok(Condition::Text { field, equality, pattern }.into())
    }

    /// An operator, `=` where there is none, and where it is or would be.
    fn comparison(&mut self) -> (Op, Span) {
        let here = self.lexer.here();
        self.lexer.operator().unwrap_or((Op::Eq, here))
    }

    /// An operator that is `=` or `!=`, and the value behind it.
    fn equality(&mut self, name: &str, form: &str) -> Result<(Equality, Value)> {
        let (op, span) = self.comparison();
        let equality = match op {
            Op::Eq => Equality::Same,
            Op::Ne => Equality::Other,
            _ => {
                let message = format!("{name} takes = or !=, for it has no order");
                return Err(self.lexer.error(span, message));
            }
        };
        Ok((equality, self.needed(name, form, span)?))
    }

    /// The value after an operator; where that is not written, `and`, `or` and `not` are
    /// none.
    fn needed(&mut self, name: &str, form: &str, op: Span) -> Result<Value> {
        let next = self.lexer.peek().0;
        let joins = matches!(next, Token::And | Token::Or | Token::Not);
        let value = if joins && op.from == op.to { None } else { self.lexer.value()? };
        value.ok_or_else(|| self.missing(format!("{name} needs {form}")))
    }

    /// What a value stands for, or the mistake in it.
    fn read<T>(
        &self,
        value: &Value,
        read: impl FnOnce(&str) -> std::result::Result<T, String>,
    ) -> Result<T> {
        read(&value.text).map_err(|message| self.lexer.error(value.span, message))
    }

    fn no_field(&self, name: &str, span: Span) -> FilterError {
        let looks_like_address = name.starts_with(['[', ':', '*', '/', '@'])
            || name.starts_with(|c: char| c.is_ascii_digit());
        let message = if let Some(meant) = nearest_field(name) {
            format!(
                "{} is no field; did you mean {meant}? There are: {}",
                quoted(name),
                fields()
            )
        } else if looks_like_address {
            format!(
                "{} is no field; an address follows src or dst, a port sport or dport",
                quoted(name)
            )
        } else if StateSet::of_name(name).is_some() {
            format!("{} is no field; a state follows state or exclude", quoted(name))
        } else {
            format!("{} is no field; there are: {}", quoted(name), fields())
        };
        self.lexer.error(span, message)
    }
}

fn fields() -> String {
    names().collect::<Vec<_>>().join(", ")
}
