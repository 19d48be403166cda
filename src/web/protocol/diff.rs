//! Edits that turn one JSON value into another, as `sse_v3` sends them.
//!
//! An edit is `[action, path, value]`. Text that grows costs what it grew by. Gradio's clients apply
//! edits one after the other, so each path is true of the value as the edits before it left it.

use serde::Serialize;
use serde::ser::{SerializeTuple, Serializer};
use serde_json::{Map, Value};

use crate::event::output::json_length;

/// The edits that turn one value into another, in order. None when they are equal.
pub(crate) type Edits = Vec<Edit>;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Edit {
    action: Action,
    path: Vec<Step>,
    /// Null for a deletion.
    value: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    /// Puts another value in the place.
    Replace,
    /// Adds text to the end of text.
    Append,
    /// Sets a new key of an object, or inserts into an array before the index.
    Add,
    /// Removes a key or an item.
    Delete,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Step {
    Key(String),
    Index(usize),
}

impl Serialize for Edit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut edit = serializer.serialize_tuple(3)?;
        edit.serialize_element(&self.action)?;
        edit.serialize_element(&self.path)?;
        edit.serialize_element(&self.value)?;
        edit.end()
    }
}

/// The edits that turn `old` into `new`: never longer on the wire than `new` itself, put in place of
/// the whole.
pub(crate) fn diff(old: &Value, new: &Value) -> Edits {
    let mut differ = Differ { edits: Vec::new(), path: Vec::new() };
    differ.values(old, new);
    let whole =
        |new: &Value| vec![Edit { action: Action::Replace, path: vec![], value: new.clone() }];
    // One edit of part of a value, with its path, can still be longer than a small value.
    if differ.edits.is_empty()
        || length(&differ.edits) <= length(new) + r#"[["replace",[],]]"#.len()
    {
        differ.edits
    } else {
        whole(new)
    }
}

struct Differ {
    edits: Edits,
    path: Vec<Step>,
}

impl Differ {
    fn values(&mut self, old: &Value, new: &Value) {
        match (old, new) {
            (old, new) if old == new => {}
            (Value::String(old), Value::String(new)) if new.starts_with(old.as_str()) => {
                self.edit(Action::Append, Value::from(&new[old.len()..]));
            }
            (Value::Array(old), Value::Array(new)) => self.arrays(old, new),
            (Value::Object(old), Value::Object(new)) => self.objects(old, new),
            (_, new) => self.edit(Action::Replace, new.clone()),
        }
    }

    /// What stands the same at both ends is left alone. Of the rest, item is held against item; then
    /// the surplus goes or comes.
    fn arrays(&mut self, old: &[Value], new: &[Value]) {
        let same = old.iter().zip(new).take_while(|(old, new)| old == new).count();
        let (old_rest, new_rest) = (&old[same..], &new[same..]);
        let tail = old_rest.iter().rev().zip(new_rest.iter().rev());
        let tail = tail.take_while(|(old, new)| old == new).count();
        let old_rest = &old_rest[..old_rest.len() - tail];
        let new_rest = &new_rest[..new_rest.len() - tail];
        let paired = old_rest.len().min(new_rest.len());
        for (at, (old, new)) in old_rest.iter().zip(new_rest).enumerate() {
            self.at(Step::Index(same + at), |differ| differ.values(old, new));
        }
        // From the back, so that no deletion moves another's place.
        for at in (paired..old_rest.len()).rev() {
            self.at(Step::Index(same + at), |differ| differ.edit(Action::Delete, Value::Null));
        }
        for (at, new) in new_rest.iter().enumerate().skip(paired) {
            self.at(Step::Index(same + at), |differ| differ.edit(Action::Add, new.clone()));
        }
    }

    fn objects(&mut self, old: &Map<String, Value>, new: &Map<String, Value>) {
        // A client in JavaScript that sets this key changes the object's kind, not its content.
        let strange = "__proto__";
        if old.get(strange) != new.get(strange) {
            return self.edit(Action::Replace, Value::Object(new.clone()));
        }
        for key in old.keys().filter(|key| !new.contains_key(*key)) {
            let step = Step::Key(key.clone());
            self.at(step, |differ| differ.edit(Action::Delete, Value::Null));
        }
        for (key, new) in new {
            self.at(Step::Key(key.clone()), |differ| match old.get(key) {
                Some(old) => differ.values(old, new),
                None => differ.edit(Action::Add, new.clone()),
            });
        }
    }

    fn at(&mut self, step: Step, edit: impl FnOnce(&mut Self)) {
        self.path.push(step);
        edit(self);
        self.path.pop();
    }

    fn edit(&mut self, action: Action, value: Value) {
        self.edits.push(Edit { action, path: self.path.clone(), value });
    }
}

/// The bytes of a value as JSON.
fn length(value: &impl Serialize) -> usize {
    // A value of JSON can always be written.
    json_length(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// Applies edits as Gradio's clients do.
    fn apply(mut value: Value, edits: Value) -> Value {
        for edit in edits.as_array().unwrap() {
            let (action, path) = (edit[0].as_str().unwrap(), edit[1].as_array().unwrap());
            let Some((last, way)) = path.split_last() else {
                value = match action {
                    "replace" => edit[2].clone(),
                    "append" => joined(&value, &edit[2]),
                    other => panic!("{other} has no place at the root"),
                };
                continue;
            };
            let parent = way.iter().fold(&mut value, |value, step| match step {
                Value::String(key) => value.get_mut(key.as_str()).unwrap(),
                index => value.get_mut(index.as_u64().unwrap() as usize).unwrap(),
            });
            match parent {
                Value::Array(items) => {
                    let at = last.as_u64().unwrap() as usize;
                    match action {
                        "replace" => items[at] = edit[2].clone(),
                        "append" => items[at] = joined(&items[at], &edit[2]),
                        "add" => items.insert(at, edit[2].clone()),
                        _ => drop(items.remove(at)),
                    }
                }
                Value::Object(fields) => {
                    let key = last.as_str().unwrap();
                    match action {
                        "append" => fields[key] = joined(&fields[key], &edit[2]),
                        "delete" => drop(fields.remove(key).unwrap()),
                        _ => drop(fields.insert(key.into(), edit[2].clone())),
                    }
                }
                other => panic!("{other} has no parts"),
            }
        }
        value
    }

    fn joined(text: &Value, more: &Value) -> Value {
        format!("{}{}", text.as_str().unwrap(), more.as_str().unwrap()).into()
    }

    fn edits(old: Value, new: Value) -> Value {
        let edits = serde_json::to_value(diff(&old, &new)).unwrap();
        assert_eq!(apply(old, edits.clone()), new);
        edits
    }

    #[test]
    fn growing_text_costs_what_it_grew_by() {
        assert_eq!(edits(json!("now "), json!("now serving")), json!([["append", [], "serving"]]));
        let chat = |text: &str| json!([{"role": "user", "content": "hello"}, {"role": "assistant", "content": text}]);
        assert_eq!(
            edits(chat("It is a long answer"), chat("It is a long answer, is it")),
            json!([["append", [1, "content"], ", is it"]])
        );
    }

    #[test]
    fn a_chat_of_500_tokens_sends_each_about_once() {
        let tokens = (0..500).map(|n| format!("token{n} ")).collect::<Vec<_>>();
        let mut text = String::new();
        let mut old = json!([{"role": "assistant", "content": ""}]);
        let mut sent = 0;
        for token in &tokens {
            text += token;
            let new = json!([{"role": "assistant", "content": text}]);
            sent += length(&diff(&old, &new));
            old = new;
        }
        // Whole values would be 2.2 MB.
        assert!(sent < text.len() + 500 * r#"[["append",[0,"content"],""]]"#.len() + 1, "{sent}");
    }

    #[test]
    fn arrays_lose_and_gain_at_either_end() {
        let long = |n: usize| json!(format!("a long text, number {n}, that nobody sends twice"));
        let window = |from: usize| Value::from((from..from + 4).map(long).collect::<Vec<_>>());
        assert_eq!(
            edits(json!([long(1), long(2)]), json!([long(1), long(2), 3, 4])),
            json!([["add", [2], 3], ["add", [3], 4]])
        );
        assert_eq!(
            edits(json!([1, long(1), long(2), 2, 3]), json!([1, long(1), long(2)])),
            json!([["delete", [4], null], ["delete", [3], null]])
        );
        assert_eq!(
            edits(json!([0, long(1), long(2)]), json!([long(1), long(2)])),
            json!([["delete", [0], null]])
        );
        edits(window(0), window(1));
    }

    #[test]
    fn a_short_value_is_replaced_rather_than_edited() {
        assert_eq!(edits(json!([1, 2, 3]), json!([4, 5, 6])), json!([["replace", [], [4, 5, 6]]]));
        assert_eq!(edits(json!(1), json!("1")), json!([["replace", [], "1"]]));
        assert_eq!(edits(json!({"a": 1}), json!({"a": 1})), json!([]));
        assert_eq!(
            edits(
                json!({"__proto__": 1, "a": "long enough"}),
                json!({"__proto__": 2, "a": "long enough"})
            ),
            json!([["replace", [], {"__proto__": 2, "a": "long enough"}]])
        );
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..4).prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[ab\u{85}🦊\"\n]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec(("[abc]|__proto__|0", inner), 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn applied_edits_give_the_new_value(old in json_value(), new in json_value()) {
            let edits = diff(&old, &new);
            let whole = length(&json!([["replace", [], new]]));
            prop_assert!(length(&edits) <= whole);
            prop_assert_eq!(apply(old, serde_json::to_value(edits).unwrap()), new);
        }
    }
}
