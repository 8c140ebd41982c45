//! What is remembered about a connection as values by key: the context of connmix clients, and
//! sessions of others that are JSON objects (connmix sections 4 and 7.1).
//!
//! Values are JSON texts, so nothing is lost or rewritten on the way, and the whole is a JSON
//! object whose keys are sorted by their bytes. Invariant: it has at most
//! [`CONTEXT_BYTES_MAX`] bytes between its braces. Costs: one allocation per key and value; an
//! empty context has none.

use crate::limits::CONTEXT_BYTES_MAX;
use crate::wire::json::{Index, ValueKind, quoted};

/// The context of one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Sorted by key. The keys are JSON strings too, with quotes, as they stand in the object.
    values: Vec<(Box<str>, Box<str>)>,
    /// Of the JSON object without its braces, and one comma more than there are.
    bytes: usize,
}

/// A value to set; `None` deletes. Key and value are JSON texts.
pub type ContextValue = (Box<str>, Option<Box<str>>);

/// The context would grow beyond its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextFull;

impl Context {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The value of a key, as JSON text. The key is a JSON string with its quotes.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.place(key).ok().map(|place| &*self.values[place].1)
    }

    /// Sets and deletes values. If the context would become too large nothing is changed.
    pub fn set(&mut self, values: &[ContextValue]) -> Result<(), ContextFull> {
        let mut changed = self.clone();
        for (key, value) in values {
            changed.set_one(key, value.as_deref());
        }
        if changed.bytes > CONTEXT_BYTES_MAX && changed.bytes > self.bytes {
            return Err(ContextFull);
        }
        *self = changed;
        Ok(())
    }

    /// Every key and value, sorted by key.
    fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(key, value)| (&**key, &**value))
    }

    /// The whole as a JSON object.
    pub fn to_json(&self) -> String {
        let mut text = String::with_capacity(self.bytes + 2);
        for (key, value) in self.iter() {
            text.push(if text.is_empty() { '{' } else { ',' });
            text.extend([key, ":", value]);
        }
        text.push_str(if text.is_empty() { "{}" } else { "}" });
        text
    }

    fn place(&self, key: &str) -> Result<usize, usize> {
        self.values.binary_search_by(|(other, _)| (**other).cmp(key))
    }

    fn set_one(&mut self, key: &str, value: Option<&str>) {
        let size = |value: &str| key.len() + value.len() + 2;
        match (self.place(key), value) {
            (Ok(place), Some(value)) => {
                self.bytes = self.bytes + value.len() - self.values[place].1.len();
                self.values[place].1 = value.into();
            }
            (Ok(place), None) => {
                self.bytes -= size(&self.values[place].1);
                self.values.remove(place);
            }
            (Err(place), Some(value)) => {
                self.bytes += size(value);
                self.values.insert(place, (key.into(), value.into()));
            }
            (Err(_), None) => {}
        }
    }
}

/// The values of a JSON object; `None` if it is not one.
pub fn values(object: &str) -> Option<Vec<ContextValue>> {
    let mut index = Index::default();
    let object = index.read(object.as_bytes()).filter(|value| value.kind() == ValueKind::Object)?;
    let values = object.members();
    Some(values.map(|(key, value)| (quoted(&key).into(), Some(value.text().into()))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(context: &mut Context, values: &[(&str, Option<&str>)]) -> Result<(), ContextFull> {
        let quoted = |key: &str| format!("\"{key}\"").into();
        let values: Vec<ContextValue> =
            values.iter().map(|(key, value)| (quoted(key), value.map(Box::from))).collect();
        context.set(&values)
    }

    #[test]
    fn values_are_merged_and_deleted_and_keys_are_sorted() {
        let mut context = Context::default();
        assert_eq!(context.to_json(), "{}");
        set(&mut context, &[("user_id", Some("10000"))]).expect("there is room");
        set(&mut context, &[("lang", Some("\"en\"")), ("user_id", Some("10001"))]).expect("room");
        assert_eq!(context.to_json(), r#"{"lang":"en","user_id":10001}"#);
        assert_eq!(context.get("\"user_id\""), Some("10001"));
        set(&mut context, &[("lang", None), ("nothing", None)]).expect("there is room");
        assert_eq!(context.to_json(), r#"{"user_id":10001}"#);
        assert_eq!(context.bytes + 1, context.to_json().len(), "a comma too many is counted");
    }

    #[test]
    fn a_context_that_would_be_too_large_is_left_as_it_is() {
        let mut context = Context::default();
        set(&mut context, &[("a", Some("1"))]).expect("there is room");
        let long = format!("\"{}\"", "x".repeat(CONTEXT_BYTES_MAX));
        assert_eq!(set(&mut context, &[("b", Some("2")), ("c", Some(&long))]), Err(ContextFull));
        assert_eq!(context.to_json(), r#"{"a":1}"#);
    }
}
