//! A listener as clients over HTTP see it.

use std::sync::Arc;

use actix_web::HttpRequest;
use serde_json::{Map, Value, json};

use super::Web;
use super::cache::{Cache, Kept, Key};
use super::login::Caller;
use super::parameters::Layout;
use super::refusal::{Detail, Rejection};
use super::root::root_url_of_api;
use super::schema::{self, Parameter};
use super::wire::Audience;
use crate::entry::Entry;
use crate::facts::ApiVisibility;
use crate::files::{is_file, reading};
use crate::handler::Input;
use crate::listener::InputError;

/// A listener with its parameters and its results.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub entry: Arc<Entry>,
    pub input: Layout,
    pub output: Layout,
    pub parameters: Vec<Parameter>,
    /// The schemas of the outputs.
    pub returns: Vec<Value>,
    /// The results that it keeps, if it does.
    pub cache: Option<Arc<Cache>>,
    /// Some output is a file, or holds one.
    gives_files: bool,
    /// The doc comment of the input's type.
    comment: Option<String>,
}

/// A call's arguments, ready to be submitted.
pub(crate) struct Prepared {
    input: Input,
    /// By which its result is kept, where results are.
    key: Option<Key>,
}

impl Prepared {
    /// The kept result of the same input.
    pub fn kept(&self, endpoint: &Endpoint) -> Option<Arc<Kept>> {
        endpoint.cache.as_ref()?.find(self.key.as_ref()?)
    }

    /// The input, and where its result is to be kept.
    pub fn split(self, endpoint: &Endpoint) -> (Input, Option<(Arc<Cache>, Key)>) {
        (self.input, endpoint.cache.clone().zip(self.key))
    }
}

impl Endpoint {
    pub fn new(entry: Arc<Entry>) -> Self {
        let (input_schema, output_schema) = ((entry.input.schema)(), (entry.output.schema)());
        let input = Layout::of_input(&input_schema);
        let output = Layout::of_output(&output_schema);
        let (input_schema, output_schema) = (input_schema.as_value(), output_schema.as_value());
        // That of a scalar is its parameter's.
        let comment = input_schema.get("description").and_then(Value::as_str);
        let comment = comment.filter(|_| matches!(input, Layout::Fields(_))).map(String::from);
        let returns = schema::returns(output_schema, &output);
        Endpoint {
            parameters: schema::parameters(input_schema, &input),
            gives_files: returns.iter().any(holds_file),
            returns,
            comment,
            cache: entry.facts.cache.map(|entries| Arc::new(Cache::new(entries))),
            entry,
            input,
            output,
        }
    }

    pub fn is_callable(&self) -> bool {
        self.entry.facts.visibility != ApiVisibility::Private
    }

    pub fn description(&self) -> Option<&str> {
        self.entry.facts.description.as_deref().or(self.comment.as_deref())
    }

    /// How the client of a request is told of its events.
    pub fn audience(&self, web: &Web, request: &HttpRequest) -> Audience {
        let root = || root_url_of_api(request, web.options.root_path.as_deref());
        let files_at = self.gives_files.then(|| format!("{}/gradio_api/file=", root()).into());
        Audience { show_error: web.options.show_error, files_at }
    }

    /// The typed input of positional data.
    pub fn input_from_positional(
        &self,
        data: Vec<Value>,
        web: &Web,
        caller: &Caller,
    ) -> Result<Prepared, Rejection> {
        let value = self.input.join(data).map_err(|wrong| {
            let (listener, expected, given) = (&self.entry.api_name, wrong.expected, wrong.given);
            let message = format!("/{listener} takes {expected} inputs, and {given} were given");
            let detail = Detail::new("value_error", &["data"], message);
            Rejection::invalid(detail.of_parameter("data"))
        })?;
        self.input_from_value(value, web, caller)
    }

    /// The typed input of named arguments.
    pub fn input_from_named(
        &self,
        mut arguments: Map<String, Value>,
        web: &Web,
        caller: &Caller,
    ) -> Result<Prepared, Rejection> {
        let known = |name: &str| self.parameters.iter().any(|parameter| parameter.name == name);
        if let Some(name) = arguments.keys().find(|name| !known(name)) {
            let listener = &self.entry.api_name;
            let detail =
                Detail::new("extra_forbidden", &[name], format!("/{listener} takes no {name}"));
            return Err(Rejection::invalid(detail.of_parameter(name)));
        }
        if matches!(self.input, Layout::Fields(_)) {
            return self.input_from_value(Value::Object(arguments), web, caller);
        }
        let data = self.parameters.iter().map(|parameter| {
            arguments.shift_remove(&parameter.name).ok_or_else(|| {
                let name = &parameter.name;
                let detail = Detail::new("missing", &[name], format!("{name} is missing"));
                Rejection::invalid(detail.of_parameter(name))
            })
        });
        self.input_from_positional(data.collect::<Result<_, _>>()?, web, caller)
    }

    fn input_from_value(
        &self,
        mut value: Value,
        web: &Web,
        caller: &Caller,
    ) -> Result<Prepared, Rejection> {
        if let (Layout::Fields(_), Value::Object(fields)) = (&self.input, &mut value) {
            fields.retain(|name, value| {
                let parameter = self.parameters.iter().find(|parameter| parameter.name == *name);
                !parameter.is_some_and(|parameter| parameter.is_left_out(value))
            });
        }
        let key = self.cache.as_ref().map(|cache| {
            // By the parameters' order, whatever the order of the arguments.
            let field = |parameter: &Parameter| value.get(&parameter.name);
            let input = match self.input {
                Layout::Fields(_) => json!(self.parameters.iter().map(field).collect::<Vec<_>>()),
                _ => value.clone(),
            };
            // What a handler gives may depend on its user.
            cache.key(&json!([caller.0.as_deref(), input]).to_string())
        });
        let input = reading(&web.files, || (self.entry.input.from_json)(value));
        let input = input.map_err(|error| self.wrong_input(error))?;
        Ok(Prepared { input, key })
    }

    fn wrong_input(&self, InputError { path, message }: InputError) -> Rejection {
        let detail = Detail::new("value_error", &["data"], message);
        Rejection::invalid(match self.input.position(&path) {
            Some(position) => {
                let detail = detail.at(position.into());
                let name = &self.parameters[position].name;
                // Said apart there.
                let detail = detail.of_parameter(name);
                match self.input {
                    Layout::Fields(_) => detail.prefix(&format!("{name}: ")),
                    _ => detail,
                }
            }
            None => detail.of_parameter("data"),
        })
    }
}

/// Whether a file is described anywhere in a schema.
fn holds_file(schema: &Value) -> bool {
    is_file(schema)
        || match schema {
            Value::Object(fields) => fields.values().any(holds_file),
            Value::Array(items) => items.iter().any(holds_file),
            _ => false,
        }
}
