//! A listener as clients over HTTP see it.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::parameters::Layout;
use super::refusal::{Detail, Rejection};
use crate::entry::Entry;
use crate::handler::Input;
use crate::listener::InputError;

/// A listener with the layout of its input and its output.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub entry: Arc<Entry>,
    pub input: Layout,
    pub output: Layout,
}

impl Endpoint {
    pub fn new(entry: Arc<Entry>) -> Self {
        let input = Layout::of_input(&(entry.input.schema)());
        let output = Layout::of_output(&(entry.output.schema)());
        Endpoint { entry, input, output }
    }

    /// The typed input of positional data.
    pub fn input_from_positional(&self, data: Vec<Value>) -> Result<Input, Rejection> {
        let value = self.input.join(data).map_err(|wrong| {
            let (listener, expected, given) = (&self.entry.api_name, wrong.expected, wrong.given);
            let message = format!("/{listener} takes {expected} inputs, and {given} were given");
            Rejection::invalid(Detail::new("value_error", &["data"], message))
        })?;
        (self.entry.input.from_json)(value).map_err(|error| self.wrong_input(error))
    }

    fn wrong_input(&self, InputError { path, message }: InputError) -> Rejection {
        let detail = Detail::new("value_error", &["data"], message);
        Rejection::invalid(match (self.input.position(&path), &self.input) {
            (Some(position), Layout::Fields(names)) => {
                let name = &names[position];
                detail.at(position.into()).prefix(&format!("{name}: "))
            }
            (Some(position), _) => detail.at(position.into()),
            (None, _) => detail,
        })
    }

    /// An empty object, where a listener's output says nothing.
    pub fn no_output() -> Value {
        Value::Object(Map::new())
    }
}
